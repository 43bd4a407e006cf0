//! Single step: RFLAGS.TF traps once behind every instruction, also behind those that leave the guest.
//! hypapp: quiesce
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::cpu::{read_cr0, read_dr6, write_dr6};
use guest::trap::{Frame, handle};
use guest::{Fault, Mode, Regs, Snippet, check_eq, guest, run, snippet};

guest!(main);

const TRAP_FLAG: u64 = 1 << 8;
const RESUME_FLAG: u64 = 1 << 16;
const SINGLE_STEP: u64 = 1 << 14;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static TRAPS: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

fn main() {
    handle(1, Some(note));
    let buffer = [0_u8; 8];
    let base = Regs { rdi: buffer.as_ptr() as u64, rax: read_cr0(), ..Regs::default() };
    // Each is followed by two NOPs.
    for (what, code, rcx, rdx) in [
        ("CPUID", snippet!("cpuid", "nop", "nop"), 0, 0),
        ("OUT", snippet!("out 0x80, al", "nop", "nop"), 0, 0),
        ("IN of the keyboard controller", snippet!("in al, 0x64", "nop", "nop"), 0, 0),
        ("RDMSR", snippet!("rdmsr", "nop", "nop"), 0x1b, 0),
        ("RDTSC", snippet!("rdtsc", "nop", "nop"), 0, 0),
        ("WBINVD", snippet!("wbinvd", "nop", "nop"), 0, 0),
        ("MOV from CR0", snippet!("mov rbx, cr0", "nop", "nop"), 0, 0),
        ("MOV to CR0", snippet!("mov cr0, rax", "nop", "nop"), 0, 0),
        ("CLTS", snippet!("clts", "nop", "nop"), 0, 0),
        ("INSB", snippet!("insb", "nop", "nop"), 0, 0x64),
    ] {
        let after = code.length() as u64 - 4;
        steps(what, Mode::Kernel64, code, Regs { rcx, rdx, ..base }, &[after, after + 1, after + 2]);
    }
    // SDM, "Single-Step Exception Condition": a repeated string instruction traps behind every iteration.
    for port in [0x71, 0x64] {
        let code = snippet!("rep insb", "nop", "nop");
        steps("REP INSB", Mode::Kernel64, code, Regs { rcx: 3, rdx: port, ..base }, &[0, 0, 2, 3, 4]);
    }
    let code = snippet!("cpuid", "nop", "cpuid");
    steps("CPUID at CPL 3", Mode::User64, code, Regs::default(), &[2, 3, 5]);
    // SDM, "Masking Exceptions and Interrupts When Switching Stacks": no trap between MOV SS and the next.
    let code = snippet!("mov ss, ebx", "cpuid", "nop");
    steps("CPUID behind MOV SS", Mode::Kernel64, code, Regs { rbx: 0x10, ..Regs::default() }, &[4, 5]);
    for (code, fault, rcx) in [(snippet!("vmcall"), Fault::UD, 0), (snippet!("rdmsr"), Fault::GP, 0x1234)] {
        COUNT.store(0, Ordering::Relaxed);
        let mut regs = Regs { rflags: TRAP_FLAG, rcx, ..Regs::default() };
        check_eq!(run(Mode::Kernel64, code, &mut regs), Err(fault), "fault under single step");
        check_eq!(COUNT.load(Ordering::Relaxed), 0, "traps of an instruction that faults");
        let saved = TRAP_FLAG | RESUME_FLAG;
        check_eq!(regs.rflags & saved, saved, "RFLAGS.TF and RF that the fault saved");
    }
}

fn steps(what: &str, mode: Mode, code: Snippet, mut regs: Regs, expected: &[u64]) {
    COUNT.store(0, Ordering::Relaxed);
    regs.rflags |= TRAP_FLAG;
    check_eq!(run(mode, code, &mut regs), Ok(()), "{what} under single step");
    let count = COUNT.load(Ordering::Relaxed);
    check_eq!(count, expected.len(), "traps of {what}");
    for (trap, expected) in TRAPS.iter().zip(expected).take(count) {
        let offset = (trap.load(Ordering::Relaxed) - code.address()) & 0xffff_ffff;
        check_eq!(offset, *expected, "place of a trap of {what}");
    }
}

fn note(frame: &mut Frame) -> bool {
    let index = COUNT.fetch_add(1, Ordering::Relaxed);
    check_eq!(read_dr6() & SINGLE_STEP, SINGLE_STEP, "DR6.BS");
    check_eq!(write_dr6(0), Ok(()), "DR6 cleared");
    if let Some(trap) = TRAPS.get(index) {
        trap.store(frame.rip, Ordering::Relaxed);
    }
    true
}
