//! The virtual-APIC page of L2, and what else L1 gives the processor to virtualize an APIC (SDM, "APIC Virtualization and
//! Virtual Interrupts").
//!
//! The processor reads and writes these pages itself, so they are L1's own, by the addresses where L1's memory is now.

use super::vmcs12::controls::Wanted;
#[cfg(target_os = "none")]
use super::{cpu::NestedHardware, memory::ept02::machine as ept02, vmcs12::Vmcs12};
#[cfg(target_os = "none")]
use crate::machine::SECOND_LEVEL;
use hw::Vmcs;
#[cfg(target_os = "none")]
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::{PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::vmcs;
#[cfg(target_os = "none")]
use x86::{address::GuestPhysAddr, paging::Rights};

/// Writes what an entry changes but the addresses of pages, which change with what memory L1 has.
pub(super) fn set_controls(vmcs02: &mut impl Vmcs, vmcs12: &impl Vmcs) {
    let wanted = Wanted::of(vmcs12);
    if wanted.primary.contains(PrimaryControls::USE_TPR_SHADOW) {
        vmcs02.write(vmcs::TPR_THRESHOLD, vmcs12.read(vmcs::TPR_THRESHOLD));
    }
    if wanted.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY) {
        vmcs02.write(vmcs::EOI_EXIT_BITMAP_0, vmcs12.read(vmcs::EOI_EXIT_BITMAP_0));
        vmcs02.write(vmcs::EOI_EXIT_BITMAP_1, vmcs12.read(vmcs::EOI_EXIT_BITMAP_1));
        vmcs02.write(vmcs::EOI_EXIT_BITMAP_2, vmcs12.read(vmcs::EOI_EXIT_BITMAP_2));
        vmcs02.write(vmcs::EOI_EXIT_BITMAP_3, vmcs12.read(vmcs::EOI_EXIT_BITMAP_3));
    }
    if wanted.pin_based.contains(PinBasedControls::PROCESS_POSTED_INTERRUPTS) {
        vmcs02.write(
            vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
            vmcs12.read(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR),
        );
    }
}

/// Memory that is not L1's, or no longer, is stood in for: the processor reads and writes, and L1 finds nothing
/// of it.
#[cfg(target_os = "none")]
pub(super) fn set_addresses(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, hardware: &mut NestedHardware) {
    hardware.translated_at = ept02::changes();
    let wanted = Wanted::of(vmcs12);
    let translate = |field| {
        let gpa = GuestPhysAddr::new(vmcs12.read(field));
        // A bitmap may be the same page: what the processor writes to it nobody notices.
        SECOND_LEVEL.lock().written(gpa);
        let hpa = ept02::translate(gpa, Rights::READ | Rights::WRITE).unwrap_or(hardware.scratch);
        hpa.page().get() | gpa.page_offset() as u64
    };
    if wanted.primary.contains(PrimaryControls::USE_TPR_SHADOW) {
        vmcs02.write(vmcs::VIRTUAL_APIC_ADDRESS, translate(vmcs::VIRTUAL_APIC_ADDRESS));
    }
    if wanted.secondary.contains(SecondaryControls::VIRTUALIZE_APIC_ACCESSES) {
        vmcs02.write(vmcs::APIC_ACCESS_ADDRESS, translate(vmcs::APIC_ACCESS_ADDRESS));
    }
    if wanted.pin_based.contains(PinBasedControls::PROCESS_POSTED_INTERRUPTS) {
        let field = vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS;
        vmcs02.write(field, translate(field));
    }
}
