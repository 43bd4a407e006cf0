//! The virtual-APIC page of L2, and what else L1 gives the processor to virtualize an APIC (SDM, "APIC Virtualization and
//! Virtual Interrupts").
//!
//! The processor reads and writes these pages itself, so they are L1's own, by the addresses where L1's memory is now.

use super::memory::ept02::machine_cache as ept02;
use super::vmcs12::Vmcs12;
use super::vmcs12::controls::L1Controls;
use crate::machine::SECOND_LEVEL;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::{PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::vmcs;
use x86::{
    address::{GuestPhysAddr, HostPhysAddr},
    paging::Rights,
};

/// Writes what an entry changes but the addresses of pages, which change with what memory L1 has.
pub(super) fn set_controls(vmcs02: &mut impl Vmcs, vmcs12: &impl Vmcs) {
    let wanted = L1Controls::of(vmcs12);
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

/// Names the pages where they are now. Memory that is not L1's, or no longer, is stood in for by `scratch`: the processor
/// reads and writes, and L1 finds nothing of it. Those that the processor writes are put into `unseen_writes`.
// UNSAFETY: names pages that the processor reads and writes by their addresses.
#[expect(unsafe_code, reason = "addresses that the processor reads and writes by")]
pub(super) fn set_addresses(
    vmcs02: &mut CurrentVmcs,
    vmcs12: &Vmcs12,
    scratch: HostPhysAddr,
    unseen_writes: &mut [Option<GuestPhysAddr>; 2],
) {
    let wanted = L1Controls::of(vmcs12);
    let has_shadow = wanted.primary.contains(PrimaryControls::USE_TPR_SHADOW);
    let has_posted = wanted.pin_based.contains(PinBasedControls::PROCESS_POSTED_INTERRUPTS);
    let has_access = wanted.secondary.contains(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
    let virtual_apic = has_shadow.then_some(vmcs::VIRTUAL_APIC_ADDRESS);
    let descriptor = has_posted.then_some(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS);
    let address = |field| GuestPhysAddr::new(vmcs12.read(field));
    // First, as a page that is watched cannot be written, and would be stood in for.
    let written = [virtual_apic, descriptor].map(|field| field.map(|field| address(field).page()));
    set_unseen_writes(written, unseen_writes);
    let mut name = |field, rights| {
        let gpa = address(field);
        let hpa = ept02::translate(gpa, rights).unwrap_or(scratch);
        // SAFETY: memory of L1's own, which is followed when it changes hands, or of nobody.
        unsafe { vmcs02.write_trusted(field, hpa.page().get() | gpa.page_offset() as u64) }
    };
    for field in [virtual_apic, descriptor].into_iter().flatten() {
        name(field, Rights::READ | Rights::WRITE);
    }
    if has_access {
        // Accesses leave or go to the virtual APIC, so that a bitmap may be there and stay watched.
        name(vmcs::APIC_ACCESS_ADDRESS, Rights::READ);
    }
}

/// What the processor writes for L2 nobody notices, and a bitmap may be on the same page, also another CPU's: such a
/// page is not watched for as long as this CPU's VMCS of L2 names it.
fn set_unseen_writes(pages: [Option<GuestPhysAddr>; 2], last: &mut [Option<GuestPhysAddr>; 2]) {
    if *last == pages {
        return;
    }
    let mut memory = SECOND_LEVEL.lock();
    for page in last.iter().flatten() {
        memory.end_unseen_writes(*page);
    }
    for page in pages.iter().flatten() {
        memory.begin_unseen_writes(*page);
    }
    *last = pages;
}
