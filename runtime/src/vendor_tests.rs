//! A second vendor's skeleton: it compiles against the contract alone, with nothing changed outside its folder.

use super::{SecondLevelFeatures, Vendor};
use crate::exit::cpuid::Instructions;
use crate::hypapp::Hypapp;
use crate::memory::TableRoot;
use crate::memory::compartment_tables::Roots;
use crate::memory::guest::{GuestMemory, Refused};
use crate::policies::Policies;
use core::fmt;
use platform::handoff::Handoff;
use x86::address::GuestPhysAddr;
use x86::cr::Cr4;
use x86::event::Event;
use x86::paging::{PageSize, Rights};

/// A processor with nested paging and without nesting.
struct Second;

impl Vendor for Second {
    fn second_level_features(&self) -> SecondLevelFeatures {
        SecondLevelFeatures { largest_page: PageSize::Size1G, has_execute_only: false }
    }

    fn invalidate_second_level(&self) {}

    fn forget_changes(&self) -> bool {
        false
    }

    fn cr4_for_guest(&self) -> Cr4 {
        Cr4::PAE
    }

    fn missing_instructions(&self) -> Instructions {
        Instructions::PCONFIG
    }

    fn intercept_apic_base(&self) {}

    fn prepare(&self, _: &Handoff, _: &dyn Hypapp, _: &Policies) {}

    fn run_bootstrap_processor(&self, finish: &mut dyn FnMut()) -> ! {
        finish();
        panic!("it has no guest")
    }

    fn run_application_processor(&self) -> ! {
        panic!("it has no guest")
    }

    fn follow_watched_events(&self) {}

    fn use_second_level(&self, _root: TableRoot) {}

    fn is_nested(&self) -> bool {
        false
    }

    fn has_nested_second_level(&self) -> bool {
        false
    }

    fn nested_memory(&self) -> Option<&'static dyn GuestMemory> {
        None
    }

    fn translate_nested(&self, _gpa: GuestPhysAddr, _access: Rights) -> Result<GuestPhysAddr, Refused> {
        Err(Refused)
    }

    fn note_nested_fault(&self, _event: Event) {}

    fn ask_nested_hypervisor(&self) -> bool {
        false
    }

    fn enter_compartment(&self, _roots: &Roots, _ticks: u64) {}

    fn leave_compartment(&self) {}

    fn forget_compartment(&self, _roots: &Roots) {}

    fn restart_after_nmi(&self, _rip: u64) -> Option<u64> {
        None
    }

    fn leave(&self) {}

    fn dump(&self, to: &mut dyn fmt::Write, _with_guest: bool) -> fmt::Result {
        to.write_str("no guest\n")
    }

    fn exit_name(&self, cause: u32) -> &'static str {
        if cause == 0x72 { "CPUID" } else { "" }
    }
}

#[test]
fn a_second_vendor_needs_the_contract_alone() {
    let vendor: &'static dyn Vendor = &Second;
    assert_eq!(vendor.second_level_features().largest_page, PageSize::Size1G);
    assert_eq!((vendor.exit_name(0x72), vendor.is_nested()), ("CPUID", false));
    let mut dump = String::new();
    vendor.dump(&mut dump, true).unwrap();
    assert_eq!(dump, "no guest\n");
}
