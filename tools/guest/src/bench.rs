//! Ticks of instructions, each between two readings of the time-stamp counter.
//!
//! Bochs counts at the end of a run of straight code, hence the jumps. A figure holds the counter's own cost
//! too: take away that of [`crate::measured!`] with nothing in it.

use crate::memory::{FREE, read64};
use crate::run::USER_BASE;
use crate::{Mode, Regs, Snippet, check_eq, println, run};

/// Repetitions of which the least and the median count.
pub const ROUNDS: u64 = 101;

/// A snippet that measures instructions: RAX, RCX, RDX and RDI are what the caller put in R8, R9, R10 and RDI.
#[macro_export]
macro_rules! measured {
    ($($line:expr),*) => {
        $crate::snippet!(
            "2: jmp 3f",
            "3: rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov r13, rax",
            "mov rax, r8",
            "mov rcx, r9",
            "mov rdx, r10",
            $($line,)*
            "jmp 4f",
            "4: rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "sub rax, r13",
            "mov [r14], rax",
            "add r14, 8",
            "dec r15",
            "jnz 2b"
        )
    };
}

/// Ticks of one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    /// Least.
    pub minimum: u64,
    /// Median.
    pub median: u64,
}

/// Runs a [`crate::measured!`] snippet, prints `bench NAME ticks=MINIMUM median=MEDIAN` and gives the figures.
pub fn bench(name: &str, mode: Mode, code: Snippet, inputs: Regs) -> Ticks {
    let base = if mode == Mode::User64 { USER_BASE } else { 0 };
    let mut regs = Regs { r14: base + FREE, r15: ROUNDS, ..inputs };
    check_eq!(run(mode, code, &mut regs), Ok(()), "{name} runs");
    let mut samples = [0_u64; ROUNDS as usize];
    for (address, sample) in (FREE..).step_by(8).zip(&mut samples) {
        *sample = read64(address).unwrap_or(u64::MAX);
    }
    samples.sort_unstable();
    let ticks = Ticks { minimum: samples[0], median: samples[samples.len() / 2] };
    println!("bench {name} ticks={} median={}", ticks.minimum, ticks.median);
    ticks
}
