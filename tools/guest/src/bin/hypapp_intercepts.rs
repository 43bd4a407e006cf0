//! What a hypapp intercepts: its ports, its MSRs, interrupts and the interrupt window, and nothing beside them.
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{in8, in32, out8, rdmsr, wrmsr};
use guest::trap::{Frame, handle};
use guest::{Mode, Regs, apic, check, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

const SELECTOR: u64 = 0x494e_5443;
const VECTOR: u8 = 0x41;
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    ports();
    msrs();
    handle(VECTOR, Some(taken));
    let before = call(0);
    interrupt();
    check_eq!(call(0), before, "an interrupt that nobody watches for is not seen");
    check_eq!(call(1), before, "watching for an interrupt");
    interrupt();
    check_eq!(call(0), before + 1, "the interrupt was seen");
    interrupt();
    check_eq!(call(0), before + 1, "only the first was seen");
    check_eq!(call(2), before + 1, "watching for the window");
    let mut regs = Regs::default();
    check!(run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut regs).is_ok(), "a window opens");
    check_eq!(call(0), before + 2, "the window was seen");
    check_eq!(TAKEN.load(Ordering::SeqCst), 3, "each interrupt reached the guest");
}

fn ports() {
    let first = in8(0x1230);
    out8(0x1237, 7);
    check_eq!(in8(0x1233), first.wrapping_add(2), "three accesses were counted");
    for neighbour in [0x122f, 0x1238] {
        let _ = in8(neighbour);
    }
    check_eq!(in8(0x1230), first.wrapping_add(3), "neighbours are not counted");
    let _ = in32(0x122d);
    check_eq!(in8(0x1230), first.wrapping_add(5), "a dword in front reaches the first port");
    let mut buffer = [0; 3];
    let mut regs = Regs { rdx: 0x1230, rdi: buffer.as_mut_ptr() as u64, rcx: 3, ..Regs::default() };
    check!(run(Mode::Kernel64, snippet!("rep insb"), &mut regs).is_ok(), "REP INSB");
    check_eq!(buffer, [6, 7, 8].map(|more| first.wrapping_add(more)), "each element is the hypapp's");
    check_eq!(regs.rcx, 0, "RCX behind REP INSB");
}

fn msrs() {
    for (msr, value) in [(0x1b0, 0x1234_5678_9abc_def0), (0xc000_1000, u64::MAX)] {
        check_eq!(wrmsr(Msr(msr), value), Ok(()), "write of MSR {msr:#x}");
        check_eq!(rdmsr(Msr(msr)), Ok(value), "MSR {msr:#x}");
    }
    check!(rdmsr(Msr(0xc000_1001)).is_err(), "a neighbour that no processor has faults");
}

fn interrupt() {
    let before = TAKEN.load(Ordering::SeqCst);
    apic::write(0xf0, 0x1ff);
    apic::interrupt_self(VECTOR);
    let mut regs = Regs::default();
    for _ in 0..100 {
        check!(
            run(Mode::Kernel64, snippet!("sti", "nop", "nop", "cli"), &mut regs).is_ok(),
            "interrupts on and off"
        );
        if TAKEN.load(Ordering::SeqCst) != before {
            return;
        }
    }
    check!(false, "the interrupt is taken");
}

fn taken(_: &mut Frame) -> bool {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
    true
}

fn call(command: u64) -> u64 {
    let mut regs = Regs { rax: command, rbx: SELECTOR, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    regs.rax
}
