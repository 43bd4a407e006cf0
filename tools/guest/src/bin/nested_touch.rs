//! Ticks that a guest's guest takes to touch 4 KiB pages for the first time, of those its hypervisor has mapped.
//! model: corei7_skylake_x
//! cmdline: log=warn nested=on
#![no_std]
#![no_main]

use guest::cpu::under_hypervisor;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate_run, instruction, trial};
use guest::{Mode, Regs, Snippet, println, snippet};

guest!(main);

const BLOCK: u64 = 0x3000_0000;
const PAGES: u64 = 512;
/// What an L2 page may cost at most, of the path beneath.
const LIMIT: u64 = 3000;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let memory = allocate_run(PAGES);
    for index in 0..PAGES {
        ept.map(BLOCK + 4096 * index, memory + 4096 * index, 7);
    }
    let one_after_the_other = measure(&mut nested, &ept, 1);
    let one_in_eight = measure(&mut nested, &ept, 8);
    println!("bench l2_touch ticks={one_after_the_other} median={one_after_the_other}");
    println!("bench l2_touch_apart ticks={one_in_eight} median={one_in_eight}");
    check!(!under_hypervisor() || one_after_the_other <= LIMIT, "{one_after_the_other} ticks a page");
    check!(!under_hypervisor() || one_in_eight <= LIMIT, "{one_in_eight} ticks a page that stands alone");
    leave_operation();
}

/// Average ticks of touching each page that is `step` pages behind the last.
fn measure(nested: &mut Guest, ept: &Ept, step: u64) -> u64 {
    check_eq!(instruction::invept(1, [ept.pointer(), 0]), Ok(()), "INVEPT");
    // Once more than counts: the first run brings the guest's own pages.
    let mut ticks = 0;
    for _ in 0..2 {
        let count = PAGES / step / 2;
        let first = if ticks == 0 { BLOCK } else { BLOCK + 4096 * PAGES / 2 };
        let regs = Regs { rdi: first, rsi: 4096 * step, r15: count, ..Regs::default() };
        trial::begin(nested, Mode::Kernel64, touch(), regs);
        check_eq!(nested.run(), ExitReason::VMCALL, "the guest touches its pages");
        let (result, regs) = trial::result();
        check_eq!(result, Ok(()), "the guest touches its pages");
        ticks = regs.r13 / count;
    }
    ticks
}

/// Touches R15 pages from RDI on, RSI bytes apart; R13 is the ticks that it took.
fn touch() -> Snippet {
    snippet!(
        "jmp 2f",
        "2: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov r13, rax",
        "3: mov rax, [rdi]",
        "add rdi, rsi",
        "dec r15",
        "jnz 3b",
        "jmp 4f",
        "4: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "sub rax, r13",
        "mov r13, rax"
    )
}
