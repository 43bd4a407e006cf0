//! Dangling pages: VMX regions where there is no memory or other's, and one page in several roles at once.
#![no_std]
#![no_main]

use guest::vmx::instruction::{vmclear, vmptrld, vmptrst};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, Failure, allocate, region, revision, trial, write};
use x86::vmx::controls::PrimaryControls;

guest!(main);

/// The BIOS's code, the hole behind a small machine's memory, the highest memory that there can be.
const NOT_MEMORY: [u64; 4] = [0xf_0000, 0x8000_0000, 0xc000_0000, 1 << 35];
/// The last pages of this machine's memory, which a hypervisor beneath takes for itself.
const TOP: core::ops::Range<u64> = 0x380_0000..0x3f0_0000;

fn main() {
    let vmxon_region = enter_operation();
    let current = region();
    check_eq!(vmclear(current).and_then(|()| vmptrld(current)), Ok(()), "a VMCS");
    for place in NOT_MEMORY {
        check_eq!(vmptrld(place), Err(Failure::Valid(11)), "VMPTRLD at {place:#x}");
        check_eq!(vmptrst(), current, "the current VMCS after {place:#x}");
    }
    // The hypervisor's memory, or no more than pages of zeros: neither holds the revision.
    for place in TOP.step_by(0x1_0000) {
        check_eq!(vmptrld(place), Err(Failure::Valid(11)), "VMPTRLD at {place:#x}");
        check_eq!(vmclear(place), Ok(()), "VMCLEAR at {place:#x}");
        check_eq!(vmptrld(place), Err(Failure::Valid(11)), "VMPTRLD after VMCLEAR at {place:#x}");
    }
    check_eq!(vmptrst(), current, "the current VMCS in the end");
    check_eq!(vmclear(vmxon_region), Err(Failure::Valid(3)), "VMCLEAR of the VMXON region");
    pointers_outside(&mut Guest::new(trial::perform));
    one_page_for_all();
    works();
    leave_operation();
}

/// Structures of a VMCS where there is no memory: no entry fails for that, nor does anything else than the guest.
fn pointers_outside(nested: &mut Guest) {
    for place in NOT_MEMORY {
        nested.write(vmcs::MSR_BITMAPS, place);
        trial::begin(nested, guest::Mode::Kernel64, guest::snippet!("nop"), guest::Regs::default());
        check_eq!(nested.run(), ExitReason::VMCALL, "MSR bitmaps at {place:#x}");
        check!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "I/O bitmaps");
        nested.write(vmcs::IO_BITMAP_A, place);
        nested.write(vmcs::IO_BITMAP_B, place);
        nested.call(trial::perform);
        check_eq!(nested.run(), ExitReason::VMCALL, "I/O bitmaps at {place:#x}");
        nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_IO_BITMAPS.bits());
    }
    // Tables there: all ones is a misconfigured entry. The BIOS's code is whatever it is.
    let ept = Ept::identity();
    nested.use_ept(&ept);
    for place in &NOT_MEMORY[1..3] {
        nested.write(vmcs::EPT_POINTER, place | 3 << 3 | 6);
        nested.call(trial::perform);
        let reason = nested.run();
        check_eq!(reason, ExitReason::EPT_MISCONFIGURATION, "tables at {place:#x}");
    }
}

/// The same page as bitmaps, MSR areas and tables: what comes of it is the guest's, and its hypervisor goes on.
fn one_page_for_all() {
    let page = allocate();
    let mut nested = Guest::new(trial::perform);
    check!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "I/O bitmaps");
    for field in [vmcs::IO_BITMAP_A, vmcs::IO_BITMAP_B, vmcs::MSR_BITMAPS, vmcs::ENTRY_MSR_LOAD_ADDRESS] {
        nested.write(field, page);
    }
    let ept = Ept::identity();
    nested.use_ept(&ept);
    nested.write(vmcs::EPT_POINTER, page | 3 << 3 | 6);
    for value in [0, u64::MAX, page | 7, u64::from(revision())] {
        (0..512).for_each(|index| write(page + 8 * index, value));
        nested.call(trial::perform);
        let reason = nested.run();
        check!(
            [ExitReason::EPT_VIOLATION, ExitReason::EPT_MISCONFIGURATION, ExitReason::TRIPLE_FAULT]
                .contains(&reason),
            "a page full of {value:#x}: {}",
            reason.name()
        );
    }
}

/// After all that a guest runs.
fn works() {
    let mut nested = Guest::new(nothing);
    check_eq!(nested.run(), ExitReason::VMCALL, "an ordinary guest");
    check!(nested.has_ended(), "an ordinary guest");
}

extern "C" fn nothing() {}
