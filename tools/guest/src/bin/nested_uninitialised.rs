//! Uninitialised data: a VMCS made of junk shows nothing but that junk, and enters nothing.
#![no_std]
#![no_main]

use guest::cpu::under_hypervisor;
use guest::vmx::instruction::{vmclear, vmlaunch, vmptrld, vmread};
use guest::vmx::prelude::*;
use guest::vmx::{Failure, Random, allocate, clear, instruction, revision, verdict, write};
use x86::vmx::vmcs::{FIELDS, Width};

guest!(main);

const PAGES: u64 = 200;

fn main() {
    enter_operation();
    if under_hypervisor() {
        // Where a processor keeps which field, and what it keeps besides, is its own business.
        shows_only_its_page();
    }
    enters_nothing();
    exits_tell_of_l2_alone();
    leave_operation();
}

fn fill(page: u64, mut word: impl FnMut() -> u64) {
    (0..512).for_each(|index| write(page + 8 * index, word()));
    write(page, revision().into());
}

/// Fields that nobody has written, by VMREAD with an exit and without.
fn shows_only_its_page() {
    let page = allocate();
    for byte in [0_u8, 0xa5, 0xff] {
        let word = u64::from_ne_bytes([byte; 8]);
        fill(page, || word);
        check_eq!(vmclear(page).and_then(|()| vmptrld(page)), Ok(()), "a VMCS of {byte:#x}");
        let mut there = 0;
        for field in FIELDS {
            let Ok(value) = vmread(field.encoding.into()) else { continue };
            there += 1;
            let expected = match field.width() {
                Width::Bits16 => word & 0xffff,
                Width::Bits32 => word & 0xffff_ffff,
                Width::Bits64 | Width::Natural => word,
            };
            // The failure of VMREAD before is told here.
            if field.encoding != vmcs::INSTRUCTION_ERROR.encoding() {
                check_eq!(value, expected, "{} of a page of {byte:#x}", field.name);
            }
        }
        check!(there > 100, "{there} fields");
        check_eq!(vmclear(page), Ok(()), "VMCLEAR");
    }
}

fn enters_nothing() {
    let page = allocate();
    let mut random = Random::new(0x756e_696e);
    for number in 0..PAGES {
        fill(page, || if number % 2 == 0 { random.word() } else { random.sparse().into() });
        check_eq!(vmclear(page), Ok(()), "VMCLEAR of junk");
        check_eq!(vmptrld(page), Ok(()), "VMPTRLD of junk");
        check_eq!(vmlaunch(), Err(Failure::Valid(7)), "VMLAUNCH of junk page {number}");
    }
    check_eq!(vmclear(page), Ok(()), "VMCLEAR in the end");
}

/// What an exit does not tell of stays what it was, or is L2's: of one VMCS nothing comes into another.
fn exits_tell_of_l2_alone() {
    let mut other = Guest::new(verdict::end);
    other.write(vmcs::GUEST_LDTR_BASE, 0x0bad_0bad_0000);
    other.write(vmcs::GUEST_SYSENTER_EIP, 0x0bad_0bad_1000);
    check_eq!(other.run(), ExitReason::VMCALL, "the other guest");
    let region = allocate();
    clear(region);
    write(region, revision().into());
    let mut nested = Guest::at(region, verdict::end);
    check_eq!(nested.run(), ExitReason::VMCALL, "a guest");
    for field in [vmcs::GUEST_LDTR_BASE, vmcs::GUEST_SYSENTER_EIP, vmcs::EXIT_QUALIFICATION] {
        check_eq!(instruction::read(field), 0, "field {:#x} beside another guest's", field.encoding());
    }
    check_eq!(instruction::read(vmcs::IDT_VECTORING_INFORMATION), 0, "IDT vectoring");
    check_eq!(instruction::read(vmcs::EXIT_INTERRUPTION_INFORMATION), 0, "interruption");
}
