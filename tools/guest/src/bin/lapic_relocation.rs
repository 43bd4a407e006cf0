//! Local APIC base: its registers move where IA32_APIC_BASE says; bad bits and mode changes raise #GP(0), and under
//! the hypervisor a place over memory.
//!
//! Not tried: clearing the enable bit, which Bochs 3.0 never takes back.
#![no_std]
#![no_main]

use guest::apic::{self, register};
use guest::boot::{self, Record};
use guest::cpu::{cpuid, rdmsr, read_cr8, under_hypervisor, wrmsr};
use guest::memory::{FREE, read32, write32};
use guest::{Fault, check, check_eq, guest};
use x86::msr::Msr;

guest!(main);

const ENABLED: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
const HOME: u64 = 0xfee0_0000;
const PATTERN: u32 = 0x5a5a_a5a5;

fn main() {
    let old = rdmsr(Msr::IA32_APIC_BASE).unwrap_or(0);
    check_eq!(old & !0x100, HOME | ENABLED, "APIC base at start");
    let version = apic::read(register::VERSION);
    let flags = old & 0xfff;
    over_memory(old, version);
    for target in [0xfed8_0000, 0xd000_0000] {
        check_eq!(wrmsr(Msr::IA32_APIC_BASE, target | flags), Ok(()), "APIC to {target:#x}");
        check_eq!(rdmsr(Msr::IA32_APIC_BASE), Ok(target | flags), "APIC base");
        check_eq!(read32(target + 0x30), Ok(version), "version register at {target:#x}");
        check!(read32(HOME + 0x30) != Ok(version), "no version register at its old place");
        check_eq!(write32(target + 0x80, 0x20), Ok(()), "task priority at {target:#x}");
        check_eq!(read_cr8(), 2, "task priority at {target:#x}");
        apic::write(register::TPR, 0);
        check_eq!(wrmsr(Msr::IA32_APIC_BASE, old), Ok(()), "APIC back home");
        check_eq!(read32(HOME + 0x30), Ok(version), "version register at home");
    }
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    for bit in (0..8).chain([9]).chain(width..64) {
        check_eq!(wrmsr(Msr::IA32_APIC_BASE, old | 1 << bit), Err(Fault::GP), "APIC base bit {bit}");
        check_eq!(rdmsr(Msr::IA32_APIC_BASE), Ok(old), "APIC base after a refused write");
    }
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, old & !ENABLED | X2APIC), Err(Fault::GP), "x2APIC while disabled");
    over_reserved_memory(old);
    x2apic(old);
}

/// A bare processor takes it; nobody needs it, and a hypapp's hidden memory could not do with it.
fn over_memory(old: u64, version: u32) {
    let target = FREE + 0x10_0000;
    let expected = if under_hypervisor() { (Err(Fault::GP), PATTERN) } else { (Ok(()), version) };
    check_eq!(write32(target + 0x30, PATTERN), Ok(()), "write");
    let moved = wrmsr(Msr::IA32_APIC_BASE, target | old & 0xfff);
    check_eq!((moved, read32(target + 0x30)), (expected.0, Ok(expected.1)), "the APIC over memory");
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, old), Ok(()), "APIC back home");
    check_eq!(read32(target + 0x30), Ok(PATTERN), "memory that was to be covered");
}

/// A guest may ask for the page to lie over memory that is not its own: refused or not, nothing breaks.
fn over_reserved_memory(old: u64) {
    let reserved =
        |record: &&Record| record.kind == 2 && record.base() >= 1 << 20 && record.end() < 0xf000_0000;
    for record in boot::e820_24().iter().filter(reserved) {
        let pages = (record.base()..record.base() + 0x10_0000).step_by(0x1000);
        for page in pages.chain((record.base()..record.end()).step_by(0x20_0000)) {
            let leaf = cpuid(0, 0);
            let result = wrmsr(Msr::IA32_APIC_BASE, page & !0xfff | old & 0xfff);
            let seen = cpuid(0, 0);
            check!(matches!(result, Ok(()) | Err(Fault::GP)), "APIC over {page:#x}: {result:x?}");
            check_eq!(wrmsr(Msr::IA32_APIC_BASE, old), Ok(()), "APIC back home");
            check_eq!(seen, leaf, "CPUID with the APIC over {page:#x}");
        }
    }
}

/// SDM, "x2APIC State Transitions". There is no way back here, so this is the end.
fn x2apic(old: u64) {
    if cpuid(1, 0).ecx & 1 << 21 == 0 {
        return;
    }
    let (id, version) = (apic::id(), apic::read(register::VERSION));
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, old | X2APIC), Ok(()), "x2APIC mode");
    check_eq!(rdmsr(Msr::IA32_APIC_BASE), Ok(old | X2APIC), "x2APIC mode");
    check_eq!((apic::id(), apic::read(register::VERSION)), (id, version), "registers by MSR");
    check!(read32(HOME + 0x30) != Ok(version), "no registers in memory in x2APIC mode");
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, old), Err(Fault::GP), "x2APIC to xAPIC mode at one go");
    check_eq!(rdmsr(Msr(0x80e)), Err(Fault::GP), "x2APIC register that does not exist");
    check_eq!(wrmsr(Msr(0x802), 0), Err(Fault::GP), "x2APIC register that cannot be written");
    check_eq!(wrmsr(Msr(0x80b), 1), Err(Fault::GP), "end of interrupt other than 0");
}
