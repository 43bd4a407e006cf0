//! Unknown fields: VMREAD and VMWRITE of every encoding; each field keeps what was written to it, and nothing else.
#![no_std]
#![no_main]

use guest::cpu::rdmsr_existing;
use guest::vmx::instruction::{vmclear, vmptrld, vmread, vmwrite};
use guest::vmx::{Failure, enter_operation, leave_operation, region};
use guest::{check, check_eq, guest};
use x86::msr::Msr;

guest!(main);

const ENCODINGS: u64 = 0x8000;
/// Unsupported VMCS component, and VMWRITE to one that is read-only.
const UNSUPPORTED: Failure = Failure::Valid(12);
const READ_ONLY: Failure = Failure::Valid(13);
/// Fewest fields that a processor with EPT has, halves included.
const FIELDS: u64 = 140;

fn main() {
    enter_operation();
    let current = region();
    check_eq!(vmclear(current).and_then(|()| vmptrld(current)), Ok(()), "a VMCS");
    let is_all_writable = rdmsr_existing(Msr::IA32_VMX_MISC) >> 29 & 1 == 1;
    let mut fields = 0;
    for encoding in 0..ENCODINGS {
        fields += u64::from(try_encoding(encoding, is_all_writable));
    }
    check!(fields >= FIELDS, "{fields} fields");
    check!(fields < 2 * FIELDS, "{fields} fields");
    all_keep_theirs("at the end");
    let other = region();
    check_eq!(vmclear(other).and_then(|()| vmptrld(other)), Ok(()), "another VMCS");
    check_eq!(vmptrld(current), Ok(()), "the first again");
    all_keep_theirs("after another VMCS");
    check_eq!(vmclear(current).and_then(|()| vmptrld(current)), Ok(()), "VMCLEAR");
    all_keep_theirs("after VMCLEAR");
    upper_bits();
    check_eq!(vmclear(current), Ok(()), "VMCLEAR in the end");
    leave_operation();
}

/// Something else for each field.
fn value(encoding: u64) -> u64 {
    (encoding + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn is_half(encoding: u64) -> bool {
    encoding & 1 == 1
}

fn is_64_bits(encoding: u64) -> bool {
    encoding >> 13 & 3 == 1
}

fn is_read_only(encoding: u64) -> bool {
    encoding >> 10 & 3 == 1
}

/// What fits.
fn mask(encoding: u64) -> u64 {
    match encoding >> 13 & 3 {
        0 => 0xffff,
        2 => 0xffff_ffff,
        _ if is_half(encoding) => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Whether it is a field's.
fn try_encoding(encoding: u64, is_all_writable: bool) -> bool {
    let what = format_args!("encoding {encoding:#x}");
    let Ok(old) = vmread(encoding) else {
        check_eq!(vmread(encoding), Err(UNSUPPORTED), "VMREAD, {what}");
        check_eq!(vmwrite(encoding, 0), Err(UNSUPPORTED), "VMWRITE, {what}");
        return false;
    };
    check_eq!(old & !mask(encoding), 0, "bits that do not fit, {what}");
    check_eq!(encoding & 1 << 12, 0, "reserved bit 12, {what}");
    check!(!is_half(encoding) || is_64_bits(encoding), "half of a field that has none, {what}");
    let written = vmwrite(encoding, value(encoding));
    if is_read_only(encoding) {
        check_eq!(written, if is_all_writable { Ok(()) } else { Err(READ_ONLY) }, "VMWRITE, {what}");
        return true;
    }
    check_eq!(written, Ok(()), "VMWRITE, {what}");
    check_eq!(vmread(encoding), Ok(value(encoding) & mask(encoding)), "VMREAD behind VMWRITE, {what}");
    true
}

/// Every field that software writes still has its value.
fn all_keep_theirs(when: &str) {
    for encoding in (0..ENCODINGS).filter(|&encoding| !is_read_only(encoding)) {
        let Ok(seen) = vmread(encoding) else { continue };
        let mut expected = value(encoding) & mask(encoding);
        if is_64_bits(encoding) && !is_half(encoding) {
            // The upper half was written behind the whole.
            expected = expected & 0xffff_ffff | value(encoding + 1) << 32;
        }
        check_eq!(seen, expected, "{when}: encoding {encoding:#x}");
    }
}

/// No field has an encoding with one of these bits.
fn upper_bits() {
    for encoding in [0x0800, 0x2010, 0x2011, 0x4012, 0x6c16_u64] {
        check!(vmread(encoding).is_ok(), "VMREAD of {encoding:#x}");
        for bit in 15..64 {
            let beyond = encoding | 1 << bit;
            check_eq!(vmread(beyond), Err(UNSUPPORTED), "VMREAD of {beyond:#x}");
            check_eq!(vmwrite(beyond, 0), Err(UNSUPPORTED), "VMWRITE of {beyond:#x}");
        }
    }
    all_keep_theirs("behind the upper bits");
}
