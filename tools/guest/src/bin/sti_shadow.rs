//! Interruptibility: a pending interrupt waits for one instruction behind STI, whatever it is, and not two.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::cpu::{read_cr0, read_cr8, write_cr8};
use guest::trap::{Frame, handle};
use guest::{Mode, Regs, Snippet, apic, check_eq, guest, run, snippet};

guest!(main);

const VECTOR: u8 = 0x51;
const INTERRUPT_FLAG: u64 = 1 << 9;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static PLACE: AtomicU64 = AtomicU64::new(0);

fn main() {
    handle(VECTOR, Some(note));
    for (what, code) in [
        ("NOP", snippet!("sti", "nop", "nop", "nop", "cli")),
        ("CPUID", snippet!("sti", "cpuid", "nop", "nop", "cli")),
        ("RDMSR", snippet!("sti", "rdmsr", "nop", "nop", "cli")),
        ("OUT", snippet!("sti", "out 0x80, al", "nop", "nop", "cli")),
        ("IN of the keyboard controller", snippet!("sti", "in al, 0x64", "nop", "nop", "cli")),
        ("WBINVD", snippet!("sti", "wbinvd", "nop", "nop", "cli")),
        ("MOV to CR0", snippet!("sti", "mov cr0, rbx", "nop", "nop", "cli")),
        ("HLT", snippet!("sti", "hlt", "nop", "nop", "cli")),
    ] {
        // STI, the instruction, two NOPs, CLI, INT 80h.
        let behind = code.length() as u64 - 5;
        let regs = Regs { rcx: 0x1b, rbx: read_cr0(), ..Regs::default() };
        interrupted_at(what, code, regs, behind);
    }
    let code = snippet!("push 0x202", "popfq", "nop", "nop", "cli");
    interrupted_at("POPF, which has no shadow", code, Regs::default(), code.length() as u64 - 5);
    let code = snippet!("cpuid", "nop", "mov cr8, rdi", "nop", "nop", "cli");
    check_eq!(write_cr8(15), Ok(()), "CR8 = 15");
    let regs = Regs { rflags: INTERRUPT_FLAG, ..Regs::default() };
    interrupted_at("MOV to CR8 that lowers the priority", code, regs, code.length() as u64 - 5);
    check_eq!(read_cr8(), 0, "CR8 as before");

    // An interrupt between two exits: it comes at a boundary, and no CPUID is lost or done twice.
    apic::interrupt_self(VECTOR);
    let mut regs = Regs { rflags: INTERRUPT_FLAG, ..Regs::default() };
    COUNT.store(0, Ordering::Relaxed);
    let code = snippet!("mov edi, 100", "2:", "xor eax, eax", "cpuid", "inc r15", "dec edi", "jnz 2b", "cli");
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "a hundred CPUIDs");
    check_eq!((regs.r15, COUNT.load(Ordering::Relaxed)), (100, 1), "CPUIDs and interrupts");
}

fn interrupted_at(what: &str, code: Snippet, mut regs: Regs, expected: u64) {
    COUNT.store(0, Ordering::Relaxed);
    apic::interrupt_self(VECTOR);
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "{what}");
    check_eq!(COUNT.load(Ordering::Relaxed), 1, "interrupts at {what}");
    let place = PLACE.load(Ordering::Relaxed).wrapping_sub(code.address());
    check_eq!(place, expected, "place of the interrupt at {what}");
}

fn note(frame: &mut Frame) -> bool {
    COUNT.fetch_add(1, Ordering::Relaxed);
    PLACE.store(frame.rip, Ordering::Relaxed);
    apic::end_of_interrupt();
    true
}
