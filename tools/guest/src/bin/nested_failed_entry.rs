//! Stale translations: without VPID, an entry that fails late drops its hypervisor's translations, as the control
//! registers that it loads do.
#![no_std]
#![no_main]

use guest::cpu::{read_cr3, write_cr3};
use guest::memory::read64;
use guest::vmx::prelude::*;
use guest::vmx::{allocate, write};

guest!(main);

/// Linear address that only tables of this test translate.
const LINEAR: u64 = 1 << 39 | 1 << 38 | 0x1000;
const GUEST_STATE: u32 = 0x8000_0021;
const MSR_LOADING: u32 = 0x8000_0022;

/// The entry that translates [`LINEAR`], and two pages for it to lead to; the first holds 0, the second 1.
struct Place {
    entry: u64,
    pages: [u64; 2],
}

fn main() {
    enter_operation();
    let place = make_place();
    let mut nested = Guest::new(nothing);
    check_eq!(nested.run(), ExitReason::VMCALL, "an entry that does not fail");
    nested.call(nothing);
    for round in 0..4 {
        // An activity state that there is not; a reserved bit of the interruptibility; an MSR that there is not.
        nested.write(vmcs::GUEST_ACTIVITY, 7);
        fails(&mut nested, &place, round, GUEST_STATE);
        nested.write(vmcs::GUEST_ACTIVITY, 0);
        nested.write(vmcs::GUEST_INTERRUPTIBILITY, 1 << 20);
        fails(&mut nested, &place, round, GUEST_STATE);
        nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
        let area = allocate();
        write(area, 0xdead_beef);
        nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, area);
        nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
        fails(&mut nested, &place, round, MSR_LOADING);
        nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 0);
    }
    write(read_cr3() & 0xf_ffff_f000 | 8, 0);
    leave_operation();
}

fn make_place() -> Place {
    let tables = [allocate(), allocate(), allocate()];
    let pages = [allocate(), allocate()];
    write(pages[1], 1);
    write(tables[2] + 8, pages[0] | 3);
    write(tables[1], tables[2] | 3);
    write(tables[0] + 8 * 256, tables[1] | 3);
    write(read_cr3() & 0xf_ffff_f000 | 8, tables[0] | 3);
    let _ = write_cr3(read_cr3());
    Place { entry: tables[2] + 8, pages }
}

/// The translation changes between two reads, with nothing but the entry to drop the old one.
fn fails(nested: &mut Guest, place: &Place, round: u32, reason: u32) {
    for page in [0, 1] {
        write(place.entry, place.pages[page] | 3);
        check_eq!(nested.run().0, reason, "round {round}: the entry fails");
        check_eq!(read64(LINEAR), Ok(page as u64), "round {round}, {reason:#x}: the hypervisor's read");
    }
}

extern "C" fn nothing() {}
