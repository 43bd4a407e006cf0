//! Ticks that a guest's guest spends where its hypervisor answers, where nobody wants to, and on new pages.
#![no_std]
#![no_main]

use guest::bench::ROUNDS;
use guest::cpu::cpuid;
use guest::memory::{FREE, read64};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate_run, trial};
use guest::{Mode, Regs, Snippet, measured, println, snippet};
use x86::msr::Msr;

guest!(main);

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    // Page by page, so that each is a first touch of its own; far apart, as entries are filled by cache lines.
    let pages = allocate_run(9 * (ROUNDS + 1));
    for index in 0..9 * (ROUNDS + 1) {
        ept.map(pages + 4096 * index, pages + 4096 * index, 7);
    }
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    let fs_base = Regs { r9: Msr::IA32_FS_BASE.0.into(), ..Regs::default() };
    measure(&mut nested, "l2_nothing", measured!(), Regs::default());
    measure(&mut nested, "l2_cpuid_xmhf", measured!("cpuid"), Regs::default());
    measure(&mut nested, "l2_msr_unwanted", measured!("rdmsr"), fs_base);
    let first = Regs { rdi: pages, ..Regs::default() };
    measure(&mut nested, "l2_touch", measured!("add rdi, 9 * 4096", "mov byte ptr [rdi], 1"), first);
    if accesses().is_some() {
        count(&mut nested, "cpuid", snippet!("2: cpuid", "jmp 2b"), ExitReason::CPUID);
        ept.unmap(DEVICE);
        count(&mut nested, "violation", snippet!("2: mov [rdi], al", "jmp 2b"), ExitReason::EPT_VIOLATION);
    }
    leave_operation();
}

/// Where the hypervisor of the guest's guest has a device of its own making.
const DEVICE: u64 = 0xe000_0000;
/// CPUID leaf by which a hypervisor that counts its VMREADs and VMWRITEs tells them.
const ACCESSES: u32 = u32::from_le_bytes(*b"VMCS");

fn accesses() -> Option<[u32; 2]> {
    let answer = cpuid(ACCESSES, 0);
    (answer.edx == ACCESSES).then_some([answer.eax, answer.ebx])
}

/// VMREADs and VMWRITEs of the hypervisor beneath for an exit that is handed up, and the entry behind it.
fn count(nested: &mut Guest, name: &str, code: Snippet, reason: ExitReason) {
    trial::begin(nested, Mode::Kernel64, code, Regs { rdi: DEVICE, ..Regs::default() });
    let mut answer = || {
        check_eq!(nested.run(), reason, "exit");
        // Both instructions take two bytes.
        nested.write(vmcs::GUEST_RIP, nested.read(vmcs::GUEST_RIP) + 2);
    };
    for _ in 0..ROUNDS {
        answer();
    }
    let told = || accesses().unwrap_or_default();
    let (before, again) = (told(), told());
    for _ in 0..ROUNDS {
        answer();
    }
    let after = told();
    for (index, kind) in ["vmreads", "vmwrites"].into_iter().enumerate() {
        let telling = again[index].wrapping_sub(before[index]);
        let all = after[index].wrapping_sub(again[index]).wrapping_sub(telling);
        println!("bench l2_{name}_{kind} ticks={}", u64::from(all) / ROUNDS);
    }
}

fn measure(nested: &mut Guest, name: &str, code: Snippet, inputs: Regs) {
    trial::begin(nested, Mode::Kernel64, code, Regs { r14: FREE, r15: ROUNDS, ..inputs });
    while answer(nested) {}
    check_eq!(trial::result().0, Ok(()), "{name} runs");
    let mut samples = [0_u64; 101];
    for (address, sample) in (FREE..).step_by(8).zip(&mut samples) {
        *sample = read64(address).unwrap_or(u64::MAX);
    }
    let average = samples.iter().sum::<u64>() / ROUNDS;
    samples.sort_unstable();
    println!("bench {name} ticks={} median={} average={average}", samples[0], samples[samples.len() / 2]);
}

/// What a small hypervisor does at an exit; `false` at the guest's end.
fn answer(nested: &mut Guest) -> bool {
    let reason = nested.run();
    if reason != ExitReason::CPUID {
        check_eq!(reason, ExitReason::VMCALL, "exit");
        return false;
    }
    let registers = &mut nested.registers;
    (registers.rax, registers.rbx, registers.rcx, registers.rdx) = (1, 2, 3, 4);
    let length = nested.read(vmcs::EXIT_INSTRUCTION_LENGTH);
    nested.write(vmcs::GUEST_RIP, nested.read(vmcs::GUEST_RIP) + u64::from(length));
    true
}
