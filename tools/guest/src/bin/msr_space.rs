//! The whole MSR space: read and written with odd values, each answers or faults and none does harm.
//!
//! Left out of the writing: the time-stamp counter and the APIC base, which other guests cover.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, read_cr0, read_cr4, wrmsr};
use guest::{Fault, check, check_eq, guest, println};
use x86::msr::Msr;

guest!(main);

const ODD: [u64; 5] = [0, !0, 0x5555_5555_5555_5555, 1 << 63, 0x8000_0000_0000];

fn main() {
    let before = (cpuid(1, 0), read_cr0(), read_cr4(), rdmsr(Msr::IA32_EFER));
    let ranges = [0..0x2000, 0x4000_0000..0x4000_0200, 0xc000_0000..0xc000_2000, 0xc001_0000..0xc001_0200];
    let (mut existing, mut unwritable) = (0, 0);
    for number in ranges.into_iter().flatten() {
        let msr = Msr(number);
        let value = rdmsr(msr);
        check!(value.is_ok() || value == Err(Fault::GP), "RDMSR {number:#x}: {value:x?}");
        existing += usize::from(value.is_ok());
        if matches!(msr, Msr::IA32_TIME_STAMP_COUNTER | Msr::IA32_APIC_BASE) {
            continue;
        }
        for odd in ODD {
            let result = wrmsr(msr, odd);
            check!(matches!(result, Ok(()) | Err(Fault::GP)), "WRMSR {number:#x} of {odd:#x}: {result:x?}");
        }
        // Some registers cannot be written at all, or not with what they say.
        unwritable += usize::from(value.is_ok_and(|value| wrmsr(msr, value).is_err()));
    }
    println!("{existing} registers, {unwritable} of them refuse their own value");
    let after = (cpuid(1, 0), read_cr0(), read_cr4(), rdmsr(Msr::IA32_EFER));
    check_eq!(after, before, "CPUID, CR0, CR4 and EFER after all that");
}
