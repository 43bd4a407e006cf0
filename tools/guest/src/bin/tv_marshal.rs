//! Pointers: what they name goes into the PAL and comes back, to the byte, in both word sizes.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::{FREE, read32, read64, write32, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::pal_code::increment_of_32_bits;
use trustvisor::call::Failure;

guest!(main);

/// Buffers of the caller's, in two pages.
const BUFFERS: u64 = FREE + 0x4000;
const POINTERS: [(ParameterType, u64); 10] = [(ParameterType::Pointer, 1); 10];

fn main() {
    ten_pointers_of_64_bits();
    ten_pointers_of_32_bits();
    a_large_buffer();
    bad_pointers();
}

fn ten_pointers_of_64_bits() {
    let pal = Pal::place(Mode::User64, 0, increment_64());
    check_eq!(pal.register(&POINTERS), 0, "registering");
    // A guard word in front of each and behind the last; one of them lies across the page's end.
    let at = |index: u64| BUFFERS + 0xff4 - 72 + 16 * index;
    for index in 0..10 {
        let _ = write64(at(index) - 8, 0x9a5d);
        let _ = write64(at(index), 100 * index);
        let _ = write64(at(index) + 8, 0x9a5d);
    }
    let arguments = core::array::from_fn(|index| pal::user(Mode::User64, at(index as u64)));
    let sum: u64 = (0..10).map(|index| 100 * index * (index + 1)).sum();
    check_eq!(pal.call(arguments).map(|regs| (regs.rax, regs.rflags & CF)), Ok((sum, 0)), "the sum");
    for index in 0..10 {
        let around = [read64(at(index) - 8), read64(at(index)), read64(at(index) + 8)];
        check_eq!(around, [Ok(0x9a5d), Ok(100 * index + 1), Ok(0x9a5d)], "buffer {index}");
    }
    check_eq!(pal.unregister(), 0, "unregistering");
}

fn ten_pointers_of_32_bits() {
    let pal = Pal::place(Mode::CompatibilityUser32, 0, increment_of_32_bits());
    check_eq!(pal.register(&POINTERS), 0, "registering");
    let at = |index: u64| BUFFERS + 0xff2 - 36 + 8 * index;
    for (index, value) in (0..10).zip((0..).step_by(100)) {
        let _ = write32(at(index), value);
        let _ = write32(at(index) + 4, 0x9a5d);
    }
    let arguments = core::array::from_fn(|index| at(index as u64));
    let sum: u64 = (0..10).map(|index| 100 * index * (index + 1)).sum();
    check_eq!(pal.call(arguments).map(|regs| (regs.rax, regs.rflags & CF)), Ok((sum, 0)), "32 bits, the sum");
    for (index, value) in (0..10).zip((0..).step_by(100)) {
        let around = [read32(at(index)), read32(at(index) + 4)];
        check_eq!(around, [Ok(value + 1), Ok(0x9a5d)], "32 bits, buffer {index}");
    }
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// As much as the parameter section holds.
fn a_large_buffer() {
    const WORDS: u64 = (4096 - 16) / 8 - 3;
    let pal = Pal::place(Mode::User64, 0, invert());
    check_eq!(pal.register(&[(ParameterType::Pointer, WORDS)]), 0, "registering");
    for index in 0..WORDS {
        let _ = write64(BUFFERS + 3 + 8 * index, index * 0x0101_0101);
    }
    let arguments = [pal::user(Mode::User64, BUFFERS + 3); 10];
    check_eq!(pal.call(arguments).map(|regs| regs.rax), Ok(WORDS), "a large buffer");
    let wrong =
        (0..WORDS).filter(|index| read64(BUFFERS + 3 + 8 * index) != Ok(!(index * 0x0101_0101))).count();
    check_eq!(wrong, 0, "words that did not come back");
    check_eq!(pal.unregister(), 0, "unregistering");
}

fn bad_pointers() {
    let pal = Pal::place(Mode::User64, 0, invert());
    check_eq!(pal.register(&[(ParameterType::Pointer, 4)]), 0, "registering");
    let mine = pal.entry() + PAGE;
    let bad = [0, 8, 0x8000, BUFFERS, 1 << 46, 1 << 47, 1 << 63, u64::MAX, u64::MAX - 15];
    for pointer in bad {
        let seen = pal.call([pointer; 10]).map(|regs| (regs.eax(), regs.rflags & CF));
        check_eq!(seen, Ok((Failure::BAD_POINTER.0, CF)), "a pointer to {pointer:#x}");
    }
    // There the process reads zeros, and cannot write.
    for pointer in [pal.entry(), mine, mine - 8] {
        let seen = pal.call([pointer; 10]).map(|regs| (regs.eax(), regs.rflags & CF));
        check_eq!(seen, Ok((Failure::BAD_OUTPUT.0, CF)), "a pointer into the PAL: {pointer:#x}");
    }
    let good = pal::user(Mode::User64, BUFFERS);
    check_eq!(pal.call([good; 10]).map(|regs| regs.rflags & CF), Ok(0), "a good one behind them");
    check_eq!(pal.unregister(), 0, "unregistering");
}

fn increment_64() -> Snippet {
    snippet!(
        "mov rax, [rdi]",
        "inc qword ptr [rdi]",
        "imul r10, [rsi], 2",
        "add rax, r10",
        "inc qword ptr [rsi]",
        "imul r10, [rdx], 3",
        "add rax, r10",
        "inc qword ptr [rdx]",
        "imul r10, [rcx], 4",
        "add rax, r10",
        "inc qword ptr [rcx]",
        "imul r10, [r8], 5",
        "add rax, r10",
        "inc qword ptr [r8]",
        "imul r10, [r9], 6",
        "add rax, r10",
        "inc qword ptr [r9]",
        "mov ecx, 7",
        "2: mov rdx, [rsp + 8 * rcx - 48]",
        "mov r10, [rdx]",
        "imul r10, rcx",
        "add rax, r10",
        "inc qword ptr [rdx]",
        "inc ecx",
        "cmp ecx, 11",
        "jne 2b",
        "ret"
    )
}

/// Inverts the words at RDI, as many as the parameter section says in front of them.
fn invert() -> Snippet {
    snippet!(
        "mov rcx, [rdi - 16]",
        "mov rax, rcx",
        "2: not qword ptr [rdi + 8 * rcx - 8]",
        "dec rcx",
        "jnz 2b",
        "ret"
    )
}
