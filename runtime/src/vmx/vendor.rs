//! The [contract of a processor vendor](Vendor), kept by VMX.
//!
//! UNSAFETY: leaves VMX operation.
#![expect(unsafe_code, reason = "leaves VMX operation")]

use super::{bitmaps, compartment, dump, invalidate, nested, probe, start, view, vm_entry, watch};
use crate::exit::cpuid::Instructions;
use crate::hypapp::Hypapp;
use crate::memory::TableRoot;
use crate::memory::compartment_tables::Roots;
use crate::memory::guest::{GuestMemory, Refused};
use crate::policies::Policies;
use crate::smp::percpu;
use crate::vendor::{SecondLevelFeatures, Vendor};
use core::fmt;
use hw::Msrs;
use hw::bare::Processor;
use hw::bare::vmx;
use platform::handoff::Handoff;
use x86::address::GuestPhysAddr;
use x86::cr::Cr4;
use x86::event::Event;
use x86::msr::Msr;
use x86::paging::{PageSize, Rights};
use x86::vmx::capability::{Allowed, EptVpidCapability};
use x86::vmx::controls::SecondaryControls;
use x86::vmx::exit_reason::ExitReason;

/// Intel's processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vmx;

/// The one value of the type, for the boot to hand down.
pub(crate) static VMX: Vmx = Vmx;

impl Vendor for Vmx {
    fn second_level_features(&self) -> SecondLevelFeatures {
        let capability = Processor.read(Msr::IA32_VMX_EPT_VPID_CAP).unwrap_or_default();
        let capability = EptVpidCapability::from_bits_retain(capability);
        let largest_page = if capability.contains(EptVpidCapability::PAGES_1G) {
            PageSize::Size1G
        } else if capability.contains(EptVpidCapability::PAGES_2M) {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        SecondLevelFeatures {
            largest_page,
            has_execute_only: capability.contains(EptVpidCapability::EXECUTE_ONLY),
        }
    }

    fn invalidate_second_level(&self) {
        invalidate::all_guest_physical();
    }

    fn forget_changes(&self) -> bool {
        nested::forget_changes()
    }

    fn cr4_for_guest(&self) -> Cr4 {
        probe::cr4_for_guest(&Processor)
    }

    fn missing_instructions(&self) -> Instructions {
        let secondary = Processor.read(Msr::IA32_VMX_PROCBASED_CTLS2).unwrap_or_default();
        instructions_without_control(Allowed(secondary))
    }

    fn intercept_apic_base(&self) {
        bitmaps::intercept_apic_base();
    }

    fn prepare(&self, handoff: &Handoff, hypapp: &dyn Hypapp, policies: &Policies) {
        bitmaps::prepare(handoff, hypapp, policies);
    }

    fn run_bootstrap_processor(&self, finish: &mut dyn FnMut()) -> ! {
        start::run_bootstrap_processor(percpu::current(), finish)
    }

    fn run_application_processor(&self) -> ! {
        start::run_application_processor(percpu::current())
    }

    fn follow_watched_events(&self) {
        watch::follow_watched_events();
    }

    fn use_second_level(&self, root: TableRoot) {
        view::use_second_level(root);
    }

    fn is_nested(&self) -> bool {
        nested::is_l2(percpu::current())
    }

    fn has_nested_second_level(&self) -> bool {
        let cpu = percpu::current();
        nested::is_l2(cpu) && nested::has_second_level(cpu)
    }

    fn nested_memory(&self) -> Option<&'static dyn GuestMemory> {
        nested::memory()
    }

    fn translate_nested(&self, gpa: GuestPhysAddr, access: Rights) -> Result<GuestPhysAddr, Refused> {
        nested::translate(gpa, access)
    }

    fn note_nested_fault(&self, event: Event) {
        nested::note_fault(event);
    }

    fn ask_nested_hypervisor(&self) -> bool {
        nested::ask_l1()
    }

    fn enter_compartment(&self, roots: &Roots, ticks: u64) {
        compartment::enter(roots, ticks);
    }

    fn leave_compartment(&self) {
        compartment::leave();
    }

    fn forget_compartment(&self, roots: &Roots) {
        compartment::forget_translations(roots);
    }

    fn restart_after_nmi(&self, rip: u64) -> Option<u64> {
        vm_entry::restart(rip)
    }

    fn leave(&self) {
        // SAFETY: the caller ends the guest.
        if unsafe { vmx::vmxoff() }.is_err() {
            log::warn!("cpu={} did not leave VMX operation", percpu::current().index);
        }
    }

    fn dump(&self, to: &mut dyn fmt::Write, with_guest: bool) -> fmt::Result {
        dump::dump(to, with_guest)
    }

    fn exit_name(&self, cause: u32) -> &'static str {
        ExitReason(cause).name()
    }
}

/// Returns the instructions that need a control to work in a guest, where the processor's VMX lacks the control.
fn instructions_without_control(secondary: Allowed) -> Instructions {
    let has = |control: SecondaryControls| secondary.may_be_one() & control.bits() != 0;
    let mut without = Instructions::PCONFIG;
    without.set(Instructions::RDTSCP, !has(SecondaryControls::ENABLE_RDTSCP));
    without.set(Instructions::INVPCID, !has(SecondaryControls::ENABLE_INVPCID));
    without.set(Instructions::XSAVES, !has(SecondaryControls::ENABLE_XSAVES));
    without.set(Instructions::WAITPKG, !has(SecondaryControls::ENABLE_USER_WAIT_AND_PAUSE));
    without
}
