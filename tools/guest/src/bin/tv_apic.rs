//! A PAL's memory is its own wherever a kernel moves the local APIC: before or after the registration, on any CPU.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::apic::{self, register};
use guest::cpu::{rdmsr, wrmsr};
use guest::memory::read32;
use guest::pal;
use guest::pal::prelude::*;
use guest::smp;
use x86::msr::Msr;

guest!(main);

const INTEGERS: [(ParameterType, u64); 3] = [(ParameterType::Integer, 0); 3];
const STORE: u64 = 1;
const LOAD: u64 = 2;
/// What the PAL keeps is this and what it is told, so that the guest never has it.
const KEY: u64 = 0x5ec2_e7c0;
const HIDDEN: u64 = 0x1234_5678;
const SECRET: u64 = KEY ^ HIDDEN;
const CHOSEN: u32 = 0x0bad_cafe;
/// Of the word in the PAL's data page, and of the register that would stand before it.
const OFFSET: u64 = register::TIMER_INITIAL as u64;

fn main() {
    check!(smp::start_others(1), "two CPUs");
    let pal = Pal::place(Mode::User64, 0, code());
    registered_beneath_the_apic(&pal);
    attack();
    check!(smp::run_on(1, attack), "the other CPU is back");
    unregistered_beneath_the_apic(&pal);
}

/// Keeps a secret in its word for STORE, gives the word for LOAD.
fn code() -> Snippet {
    snippet!(
        "cmp edi, 1",
        "jne 2f",
        "mov eax, 0x5ec2e7c0",
        "xor eax, esi",
        "mov [rdx], eax",
        "xor eax, eax",
        "ret",
        "2: mov eax, [rdx]",
        "ret"
    )
}

fn placed() -> Pal {
    Pal { at: pal::PALS, mode: Mode::User64 }
}

fn ask(pal: &Pal, what: u64) -> Option<u64> {
    let word = pal.entry() + PAGE + OFFSET;
    pal.call([what, HIDDEN, word, 0, 0, 0, 0, 0, 0, 0]).ok().map(|regs| regs.rax)
}

/// What `act` gives while this CPU's APIC lies over the PAL's data page, if it may.
fn beneath_the_apic<T>(pal: &Pal, act: impl FnOnce() -> T) -> T {
    let home = rdmsr(Msr::IA32_APIC_BASE).unwrap_or(0);
    let _ = wrmsr(Msr::IA32_APIC_BASE, pal.data() | home & 0xfff);
    let given = act();
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, home), Ok(()), "the APIC back home");
    given
}

fn registered_beneath_the_apic(pal: &Pal) {
    apic::write(register::TIMER_INITIAL, CHOSEN);
    let (status, loaded) = beneath_the_apic(pal, || (pal.register(&INTEGERS), ask(pal, LOAD)));
    check!(
        status != 0 || loaded == Some(0x9090_9090),
        "registered beneath the APIC, the PAL reads its own memory: {status:#x} {loaded:x?}"
    );
    if status != 0 {
        check_eq!(pal.register(&INTEGERS), 0, "registering");
    }
}

/// On the executing CPU: what the PAL reads there is not chosen, what it writes there is not seen.
fn attack() {
    let (pal, cpu) = (placed(), smp::number());
    check_eq!(ask(&pal, STORE), Some(0), "storing");
    apic::write(register::TIMER_INITIAL, CHOSEN);
    check_eq!(
        beneath_the_apic(&pal, || ask(&pal, LOAD)),
        Some(SECRET),
        "CPU {cpu}: the PAL loads what it stored"
    );
    check_eq!(beneath_the_apic(&pal, || ask(&pal, STORE)), Some(0), "CPU {cpu}: storing again");
    check_eq!(
        u64::from(apic::read(register::TIMER_INITIAL)),
        CHOSEN.into(),
        "CPU {cpu}: a register of the APIC"
    );
    apic::write(register::TIMER_INITIAL, 0);
}

fn unregistered_beneath_the_apic(pal: &Pal) {
    check_eq!(beneath_the_apic(pal, || pal.unregister()), 0, "unregistering");
    check_eq!(read32(pal.data() + OFFSET), Ok(0), "nothing of the PAL is left");
}
