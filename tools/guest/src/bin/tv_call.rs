//! A PAL is registered, called and unregistered from ring 3, in 64-bit and in compatibility mode.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::low;
use guest::pal;
use guest::pal::prelude::*;
use guest::pal_code::{cpuid_of_32_bits, sum_of_32_bits};
use guest::{Fault, cpu};
use trustvisor::call::Failure;
use trustvisor::probe;

guest!(main);

const INTEGERS: [(ParameterType, u64); 10] = [(ParameterType::Integer, 0); 10];
const ARGUMENTS: [u64; 10] = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31];

fn main() {
    check!(pal::is_present(), "TrustVisor is there");
    check_eq!(cpu::cpuid(probe::LEAF, 0).ebx, probe::NOT_IN_PAL, "outside a PAL");
    let sum: u64 = (1..).zip(ARGUMENTS).map(|(factor, argument)| factor * argument).sum();
    for (mode, weighted_sum, number) in [
        (Mode::User64, sum_of_64_bits(), cpuid_of_64_bits()),
        (Mode::CompatibilityUser32, sum_of_32_bits(), cpuid_of_32_bits()),
    ] {
        let adder = Pal::place(mode, 0, weighted_sum);
        let teller = Pal::place(mode, 1, number);
        for round in 0..3 {
            calls(&adder, sum, round);
            tells_that_it_is_a_pal(&teller);
        }
        check_eq!(pal::hypercall(mode, Command::TEST.0, [0x42, 0, 0, 0]), 0, "the test hypercall");
        check_eq!(pal::hypercall(mode, 77, [0; 4]), Status::UNKNOWN_COMMAND.0, "an unknown hypercall");
        for command in (3..6).chain(7..14) {
            check_eq!(pal::hypercall(mode, command, [0; 4]), Status::NOT_IN_PAL.0, "a PAL's");
        }
    }
}

fn calls(adder: &Pal, sum: u64, round: u32) {
    let mode = adder.mode;
    check_eq!(adder.register(&INTEGERS), 0, "{mode:?} round {round}: registering");
    check_eq!(adder.register(&INTEGERS), Status::ALREADY_REGISTERED.0, "{mode:?}: registering again");
    for _ in 0..3 {
        let Ok(regs) = adder.call(ARGUMENTS) else {
            check!(false, "{mode:?} round {round}: the call faulted");
            return;
        };
        check_eq!(regs.rax, sum, "{mode:?} round {round}: the sum");
        check_eq!(regs.rflags & CF, 0, "{mode:?}: the call did not fail");
        check_eq!([regs.rcx, regs.rdx], [0; 2], "{mode:?}: registers that are no results");
        check_eq!([regs.rbx, regs.rbp], [0x2222_2222, 0x4444_4444], "{mode:?}: registers that are kept");
        if mode == Mode::User64 {
            check_eq!(
                [regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10, regs.r11],
                [0; 6],
                "no results either"
            );
            check_eq!([regs.r12, regs.r13], [0x7777, 0x8888], "kept too");
        }
    }
    let off = pal::call(mode, adder.entry(), ARGUMENTS, 0).map(|regs| (low(regs.rax), regs.rflags & CF));
    check_eq!(off, Ok((Failure::INTERRUPTS_OFF.0, CF)), "{mode:?}: a call with interrupts off");
    let inside = pal::call(mode, adder.entry() + 1, ARGUMENTS, pal::IF).map(|_| ());
    check_eq!(inside, Err(Fault::GP), "{mode:?}: a call of the second byte");
    check_eq!(adder.unregister(), 0, "{mode:?} round {round}: unregistering");
    check_eq!(adder.unregister(), Status::NOT_REGISTERED.0, "{mode:?}: unregistering again");
    check_eq!(adder.call(ARGUMENTS).map(|regs| regs.rax), Ok(sum), "{mode:?}: a plain function again");
}

fn tells_that_it_is_a_pal(teller: &Pal) {
    let tells = || teller.call([0; 10]).map(|regs| low(regs.rax));
    check_eq!(tells(), Ok(probe::NOT_IN_PAL), "outside a PAL");
    check_eq!(teller.register(&[]), 0, "registering without parameters");
    let number = tells();
    check!(number.is_ok_and(|number| number < probe::PAL_NUMBER_LIMIT), "inside a PAL: {number:x?}");
    check_eq!(teller.unregister(), 0, "unregistering");
}

fn sum_of_64_bits() -> Snippet {
    snippet!(
        "lea rax, [rdi + 2 * rsi]",
        "imul rdx, rdx, 3",
        "add rax, rdx",
        "lea rax, [rax + 4 * rcx]",
        "imul r8, r8, 5",
        "add rax, r8",
        "imul r9, r9, 6",
        "add rax, r9",
        "imul rdx, [rsp + 8], 7",
        "add rax, rdx",
        "imul rdx, [rsp + 16], 8",
        "add rax, rdx",
        "imul rdx, [rsp + 24], 9",
        "add rax, rdx",
        "imul rdx, [rsp + 32], 10",
        "add rax, rdx",
        "mov r10, rax",
        "mov r11, rax",
        "mov rbx, rax",
        "stc",
        "ret"
    )
}

fn cpuid_of_64_bits() -> Snippet {
    snippet!("push rbx", "mov eax, 0x7a567254", "xor ecx, ecx", "cpuid", "mov eax, ebx", "pop rbx", "ret")
}
