//! x87 errors: by vector 16 with CR0.NE = 1; with 0 by line 13 of the interrupt controllers, and by vector 16 beneath us.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};
use guest::cpu::{out8, read_cr0, under_hypervisor, write_cr0};
use guest::trap::{Frame, handle};
use guest::{Mode, Regs, check_eq, guest, run, snippet};

guest!(main);

const NUMERIC_ERROR: u64 = 1 << 5;
const EMULATE: u64 = 1 << 2;
const TASK_SWITCHED: u64 = 1 << 3;
/// Both controllers to vectors 68H and 70H, all lines masked but the cascade and line 13.
const CONTROLLERS: [(u16, u8); 10] = [
    (0x20, 0x11),
    (0xa0, 0x11),
    (0x21, 0x68),
    (0xa1, 0x70),
    (0x21, 4),
    (0xa1, 2),
    (0x21, 1),
    (0xa1, 1),
    (0x21, 0xfb),
    (0xa1, 0xdf),
];
static LINE_13: AtomicUsize = AtomicUsize::new(0);
static VECTOR_16: AtomicUsize = AtomicUsize::new(0);

fn main() {
    CONTROLLERS.into_iter().for_each(|(port, value)| out8(port, value));
    handle(0x75, Some(line_13));
    handle(16, Some(vector_16));
    // The hypervisor has NE set: what it cannot give is told in its limits.
    let without = if under_hypervisor() { (0, 1) } else { (1, 0) };
    for (error, expected) in [(0, without), (NUMERIC_ERROR, (0, 1))] {
        let cr0 = read_cr0() & !(EMULATE | TASK_SWITCHED | NUMERIC_ERROR) | error;
        check_eq!(write_cr0(cr0), Ok(()), "CR0");
        check_eq!(read_cr0() & NUMERIC_ERROR, error, "CR0.NE as written");
        LINE_13.store(0, Ordering::SeqCst);
        VECTOR_16.store(0, Ordering::SeqCst);
        check_eq!(divide_by_zero(), Ok(()), "a division by zero");
        let seen = (LINE_13.load(Ordering::SeqCst), VECTOR_16.load(Ordering::SeqCst));
        check_eq!(seen, expected, "by line 13, by vector 16 with CR0.NE = {}", error >> 5);
    }
}

/// With the exception unmasked, and interrupts on.
fn divide_by_zero() -> Result<(), guest::Fault> {
    let control = 0x037b_u16;
    let mut regs = Regs { rdi: (&raw const control).addr() as u64, ..Regs::default() };
    let code =
        snippet!("fninit", "fldcw [rdi]", "fld1", "fldz", "sti", "fdivp", "fwait", "nop", "cli", "fninit");
    run(Mode::Kernel64, code, &mut regs)
}

fn line_13(_: &mut Frame) -> bool {
    LINE_13.fetch_add(1, Ordering::SeqCst);
    for (port, value) in [(0xf0, 0), (0xa0, 0x20), (0x20, 0x20)] {
        out8(port, value);
    }
    clear();
    true
}

fn vector_16(_: &mut Frame) -> bool {
    VECTOR_16.fetch_add(1, Ordering::SeqCst);
    clear();
    true
}

fn clear() {
    let _ = run(Mode::Kernel64, snippet!("fnclex"), &mut Regs::default());
}
