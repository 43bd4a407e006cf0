//! Features L1 may switch on: VMX capability MSRs agree with each other and take no writes, from L1 and from L2.
//! cmdline: nested=on
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "numbers of registers and ports, which are small")]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr, rdmsr_existing, read_cr0, read_cr4, wrmsr};
use guest::vmx::instruction::vmread;
use guest::vmx::prelude::*;
use x86::msr::Msr;
use x86::vmx::capability::Allowed;

guest!(main);

const FIRST: u32 = 0x480;
const COUNT: usize = 0x14;
const VMFUNC: Msr = Msr(0x491);
const TERTIARY: Msr = Msr(0x492);
/// What [`SEEN`] holds where RDMSR faults: no register reads as that.
const FAULT: u64 = 0xdead_0000_0000_dead;
const PAIRS: [(Msr, Msr); 4] = [
    (Msr::IA32_VMX_PINBASED_CTLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS),
    (Msr::IA32_VMX_PROCBASED_CTLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS),
    (Msr::IA32_VMX_EXIT_CTLS, Msr::IA32_VMX_TRUE_EXIT_CTLS),
    (Msr::IA32_VMX_ENTRY_CTLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS),
];

/// What L2 reads in each register, and behind them in IA32_FEATURE_CONTROL and IA32_EFER.
static SEEN: [AtomicU64; COUNT + 2] = [const { AtomicU64::new(0) }; COUNT + 2];
static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    basic();
    settings();
    existence();
    fixed_bits();
    fields();
    writes();
    from_l2();
    leave_operation();
}

fn basic() {
    let basic = rdmsr_existing(Msr::IA32_VMX_BASIC);
    check_eq!(basic >> 31 & 1, 0, "IA32_VMX_BASIC bit 31");
    check!((1..=4096).contains(&(basic >> 32 & 0x1fff)), "size of a VMCS");
    check_eq!(basic >> 50 & 0xf, 6, "memory type of a VMCS");
    check_eq!(basic >> 57, 0, "reserved bits of IA32_VMX_BASIC");
}

/// What must be 1 may be; the older registers only demand more.
fn settings() {
    for (plain, precise) in PAIRS {
        let (plain, precise) = (Allowed(rdmsr_existing(plain)), Allowed(rdmsr_existing(precise)));
        for word in [plain, precise] {
            check_eq!(word.must_be_one() & !word.may_be_one(), 0, "{word:x?}");
        }
        check_eq!(precise.must_be_one() & !plain.must_be_one(), 0, "TRUE controls demand more");
        check_eq!(precise.may_be_one(), plain.may_be_one(), "TRUE controls allow other ones");
    }
}

/// A register exists where the controls that it tells of do.
fn existence() {
    let may = |msr| Allowed(rdmsr_existing(msr)).may_be_one();
    let primary = may(Msr::IA32_VMX_TRUE_PROCBASED_CTLS);
    let secondary = if primary >> 31 == 1 { may(Msr::IA32_VMX_PROCBASED_CTLS2) } else { 0 };
    for (msr, exists) in [
        (Msr::IA32_VMX_PROCBASED_CTLS2, primary >> 31 == 1),
        (Msr::IA32_VMX_EPT_VPID_CAP, secondary & (1 << 1 | 1 << 5) != 0),
        (VMFUNC, secondary >> 13 & 1 == 1),
        (TERTIARY, primary >> 17 & 1 == 1),
    ] {
        check_eq!(rdmsr(msr).is_ok(), exists, "{msr:?} exists");
    }
}

fn fixed_bits() {
    for (name, value, zeros, ones) in [
        ("CR0", read_cr0(), Msr::IA32_VMX_CR0_FIXED0, Msr::IA32_VMX_CR0_FIXED1),
        ("CR4", read_cr4(), Msr::IA32_VMX_CR4_FIXED0, Msr::IA32_VMX_CR4_FIXED1),
    ] {
        let (zeros, ones) = (rdmsr_existing(zeros), rdmsr_existing(ones));
        check_eq!(zeros & !ones, 0, "{name}: bits that can be neither");
        check_eq!(value & !ones | zeros & !value, 0, "{name} in VMX operation");
    }
}

/// No field has a higher index than IA32_VMX_VMCS_ENUM says, and one has it.
fn fields() {
    let _guest = Guest::new(nothing);
    let highest = rdmsr_existing(Msr::IA32_VMX_VMCS_ENUM) >> 1 & 0x1ff;
    let mut found = 0;
    for (width, kind) in (0..4_u64).flat_map(|width| (0..4_u64).map(move |kind| (width, kind))) {
        for index in 0..0x40 {
            if vmread(width << 13 | kind << 10 | index << 1).is_ok() {
                found = found.max(index);
            }
        }
    }
    check_eq!(found, highest, "highest index of a field");
}

fn writes() {
    for number in (0..COUNT as u32).map(|index| FIRST + index).chain([Msr::IA32_FEATURE_CONTROL.0]) {
        let value = rdmsr(Msr(number)).unwrap_or(0);
        for value in [value, 0, !0] {
            let fault = wrmsr(Msr(number), value).map_err(|fault| fault.vector);
            check_eq!(fault, Err(13), "WRMSR of {number:#x}");
        }
    }
    check_eq!(rdmsr_existing(Msr::IA32_FEATURE_CONTROL) & 5, 5, "IA32_FEATURE_CONTROL");
}

/// With an MSR bitmap of zeros L2 reads what L1 does.
fn from_l2() {
    let mut nested = Guest::new(look);
    check_eq!(nested.run(), ExitReason::VMCALL, "L2 ends");
    check!(nested.has_ended(), "L2 ends");
    for (index, seen) in SEEN.iter().enumerate() {
        let msr = register(index);
        let value = rdmsr(msr).unwrap_or(FAULT);
        check_eq!(seen.load(Ordering::SeqCst), value, "{msr:?} in L2");
    }
    check_eq!(WRITTEN.load(Ordering::SeqCst), 0, "VMX MSRs that L2 could write");
}

extern "C" fn nothing() {}

/// L2: reads and writes what shows.
extern "C" fn look() {
    for (index, seen) in SEEN.iter().enumerate() {
        seen.store(rdmsr(register(index)).unwrap_or(FAULT), Ordering::SeqCst);
        if index <= COUNT && wrmsr(register(index), 0).is_ok() {
            WRITTEN.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn register(index: usize) -> Msr {
    match index - index.min(COUNT) {
        0 if index < COUNT => Msr(FIRST + index as u32),
        0 => Msr::IA32_FEATURE_CONTROL,
        _ => Msr::IA32_EFER,
    }
}
