//! Two CPUs give microTPM commands at once: each PAL's registers come to what they come to alone, and no random bytes repeat.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::wait_until;
use guest::memory::{FREE, read8, read64, write64};
use guest::pal::prelude::*;
use guest::pal::{IF, user};
use guest::{Regs, run, smp};
use sha1::Sha1;
use sha2::Digest;

guest!(main);

const MODE: Mode = Mode::User64;
const PARAMETERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0), (ParameterType::Pointer, 8)];
const ROUNDS: u64 = 40;
/// The buffers of both CPUs: 20 bytes in and out, and at 32 a count and 24 random bytes.
const BUFFERS: [u64; 2] = [FREE + 0x4_0000, FREE + 0x4_1000];
static RESULT: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    let pals = [0, 1].map(|number| Pal::place(MODE, number, extend_and_draw()));
    let mut drawn = [[0; 3]; 6];
    for (round, drawn) in (0..).zip(drawn.chunks_mut(2)) {
        for (index, pal) in pals.iter().enumerate() {
            check_eq!(pal.register(&PARAMETERS), 0, "registering");
            for offset in (0..64).step_by(8) {
                let _ = write64(BUFFERS[index] + offset, 7 * offset + index as u64 + round);
            }
        }
        let expected = BUFFERS.map(extended);
        RESULT.store(u64::MAX, Ordering::SeqCst);
        smp::begin_on(1, there);
        let here = commands(&pals[0], BUFFERS[0]);
        check!(wait_until(10 * smp::PATIENCE, || smp::is_ready(1)), "the other CPU comes back");
        check_eq!((here, RESULT.load(Ordering::SeqCst)), (0, 0), "round {round}: failed commands");
        for index in 0..2 {
            check_eq!(bytes(BUFFERS[index]), expected[index], "round {round}: the register on CPU {index}");
            drawn[index] = [40, 48, 56].map(|offset| read64(BUFFERS[index] + offset).unwrap_or(0));
            check_eq!(pals[index].unregister(), 0, "unregistering");
        }
    }
    for (index, words) in drawn.iter().enumerate() {
        check!(
            !drawn[..index].contains(words) && words.iter().all(|&word| word != 0),
            "random bytes: {drawn:x?}"
        );
    }
}

fn there() {
    let pal = Pal { at: guest::pal::PALS + 4 * PAGE, mode: MODE };
    RESULT.store(commands(&pal, BUFFERS[1]), Ordering::SeqCst);
}

/// Sum of the statuses, all ones where the call failed.
fn commands(pal: &Pal, buffer: u64) -> u64 {
    let mut regs =
        Regs { rdi: ROUNDS, rsi: user(MODE, buffer), r15: pal.entry(), rflags: IF, ..Regs::default() };
    match run(MODE, snippet!("call r15"), &mut regs) {
        Ok(()) if regs.rflags & CF == 0 => regs.rax,
        _ => u64::MAX,
    }
}

fn bytes(at: u64) -> [u8; 20] {
    core::array::from_fn(|index| read8(at + index as u64).unwrap_or(0))
}

/// What register 1 is after so many extensions by what is in the buffer.
fn extended(buffer: u64) -> [u8; 20] {
    let measurement = bytes(buffer);
    (0..ROUNDS).fold([0; 20], |register, _| {
        let mut hash = Sha1::new();
        hash.update(register);
        hash.update(measurement);
        hash.finalize().into()
    })
}

/// Extends register 1 by what RSI names, RDI times, and draws 24 bytes each time; then reads the register.
fn extend_and_draw() -> Snippet {
    snippet!(
        "xor ebx, ebx",
        "mov r12, rdi",
        "mov r13, rsi",
        "2: mov eax, 8",
        "mov ecx, 1",
        "mov rdx, r13",
        "vmcall",
        "add rbx, rax",
        "mov dword ptr [r13 + 32], 24",
        "mov eax, 9",
        "lea rcx, [r13 + 40]",
        "lea rdx, [r13 + 32]",
        "vmcall",
        "add rbx, rax",
        "dec r12",
        "jnz 2b",
        "mov eax, 7",
        "mov ecx, 1",
        "mov rdx, r13",
        "vmcall",
        "add rax, rbx",
        "ret"
    )
}
