//! Ticks of registering, calling and unregistering a PAL, alone and among a thousand others.
//! model: corei7_skylake_x
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::bench::bench;
use guest::memory::FREE;
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::{Regs, measured, println, run};

guest!(main);

const MODE: Mode = Mode::User64;
const INTEGERS: [(ParameterType, u64); 10] = [(ParameterType::Integer, 0); 10];
const OTHERS: u64 = 1000;
const ROUNDS: usize = 101;

fn main() {
    let pal = Pal::place(MODE, 0, snippet!("lea rax, [rdi + rsi]", "ret"));
    let alone = measure(&pal, "");
    for number in 1..=OTHERS {
        if (Pal { at: PALS + number * 4 * PAGE, mode: MODE }).register(&INTEGERS) != 0 {
            check!(false, "PAL {number} is not registered");
            return;
        }
    }
    let among_others = measure(&pal, "_1000");
    let operations = ["a call", "registering", "unregistering"];
    for ((what, percent), (one, many)) in
        operations.into_iter().zip([10, 25, 25]).zip(alone.into_iter().zip(among_others))
    {
        let most = one + one * percent / 100;
        check!(many < most, "{what} takes {one} ticks alone and {many} among others");
    }
}

/// Ticks of a call, of registering and of unregistering.
fn measure(pal: &Pal, suffix: &str) -> [u64; 3] {
    let mut registering = [0; ROUNDS];
    let mut unregistering = [0; ROUNDS];
    for (register, unregister) in registering.iter_mut().zip(&mut unregistering) {
        check_eq!((pal.register(&INTEGERS), pal.unregister()), (0, 0), "registering and unregistering");
        // The lists are where they were put just now.
        *register = hypercall(
            Command::REGISTER,
            [pal::user(MODE, FREE), 0, pal::user(MODE, FREE + PAGE), pal.entry()],
        );
        *unregister = hypercall(Command::UNREGISTER, [pal.entry(), 0, 0, 0]);
    }
    let register = told("pal_register", suffix, registering);
    let unregister = told("pal_unregister", suffix, unregistering);
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    let call = measured!(
        "push 4",
        "push 3",
        "push 2",
        "push 1",
        "mov edi, 1",
        "mov esi, 2",
        "mov r8d, 5",
        "mov r9d, 6",
        "call rbx",
        "add rsp, 32"
    );
    let inputs = Regs { rbx: pal.entry(), rflags: pal::IF, ..Regs::default() };
    let name = if suffix.is_empty() { "pal_call" } else { "pal_call_1000" };
    let ticks = bench(name, MODE, call, inputs);
    check_eq!(pal.unregister(), 0, "unregistering");
    [ticks.median, register, unregister]
}

fn told(name: &str, suffix: &str, mut samples: [u64; ROUNDS]) -> u64 {
    samples.sort_unstable();
    let median = samples[samples.len() / 2];
    println!("bench {name}{suffix} ticks={} median={median}", samples[0]);
    median
}

fn hypercall(command: Command, [r9, r10, rsi, rdi]: [u64; 4]) -> u64 {
    let mut regs = Regs { r8: command.0.into(), r9, r10, rsi, rdi, rflags: pal::IF, ..Regs::default() };
    check_eq!(run(MODE, timed(), &mut regs), Ok(()), "a hypercall");
    check_eq!(regs.r12, 0, "its status");
    regs.rax
}

fn timed() -> Snippet {
    snippet!(
        "jmp 3f",
        "3: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov r13, rax",
        "mov rax, r8",
        "mov rcx, r9",
        "mov rdx, r10",
        "vmcall",
        "mov r12, rax",
        "jmp 4f",
        "4: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "sub rax, r13"
    )
}
