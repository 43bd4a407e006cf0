//! Pages that VMCS02 names: merged bitmaps, and those of APIC virtualization, at an entry of L1 and while L2 goes on.
//!
//! UNSAFETY: addresses that the processor reads by.
#![expect(unsafe_code, reason = "addresses of bitmaps")]

use super::merged_page::Pages;
use crate::machine::RegionMemory;
use crate::memory::guest_physical::GuestPhysical;
use crate::vmx::nested::cpu::NestedHardware;
use crate::vmx::nested::memory::ept02::machine_cache as ept02;
use crate::vmx::nested::virtual_apic_page;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::nested::vmcs12::{Dirty, Vmcs12};
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::address::GuestPhysAddr;
use x86::vmx::controls::PrimaryControls;
use x86::vmx::vmcs;

/// Names bitmaps and pages as they are now in the VMCS of L2, which is current and about to be entered by L1.
pub(crate) fn set_pages(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, hardware: &mut NestedHardware) {
    if vmcs12.dirty.contains(Dirty::CONTROLS) || hardware.translated_at != ept02::changes() {
        set_addresses(vmcs02, vmcs12, hardware);
    }
    // Only now is it known which of them the processor writes unseen.
    set_bitmaps(vmcs02, vmcs12, hardware);
}

/// The same for an L2 that goes on, where pages may change hands or bitmaps be written.
pub(crate) fn follow(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, hardware: &mut NestedHardware) {
    let primary = L1Controls::of(vmcs12).primary;
    let l0 = hardware.l0_bitmaps;
    if primary.contains(PrimaryControls::USE_MSR_BITMAPS) {
        let page = GuestPhysAddr::new(vmcs12.read(vmcs::MSR_BITMAPS));
        hardware.msr_bitmaps.follow(&PAGES, l0.msr, page);
    }
    if primary.contains(PrimaryControls::USE_IO_BITMAPS) {
        hardware.io_bitmaps.follow(&PAGES, l0.io, io_bitmaps(vmcs12));
    }
    if hardware.translated_at != ept02::changes() {
        set_addresses(vmcs02, vmcs12, hardware);
    }
}

const PAGES: Pages<'_, RegionMemory, GuestPhysical, GuestPhysical> =
    Pages { memory: &RegionMemory, guest: &GuestPhysical, watcher: &GuestPhysical };

fn set_addresses(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, hardware: &mut NestedHardware) {
    // Counted first: what changes from here on is translated at the next entry.
    hardware.translated_at = ept02::changes();
    virtual_apic_page::set_addresses(vmcs02, vmcs12, hardware.scratch, &mut hardware.unseen_writes);
}

/// Addresses of L1's I/O bitmaps.
fn io_bitmaps(vmcs12: &Vmcs12) -> [GuestPhysAddr; 2] {
    [vmcs::IO_BITMAP_A, vmcs::IO_BITMAP_B].map(|field| GuestPhysAddr::new(vmcs12.read(field)))
}

fn set_bitmaps(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, hardware: &mut NestedHardware) {
    let primary = L1Controls::of(vmcs12).primary;
    let l0 = hardware.l0_bitmaps;
    if primary.contains(PrimaryControls::USE_MSR_BITMAPS) {
        let page = GuestPhysAddr::new(vmcs12.read(vmcs::MSR_BITMAPS));
        let frame = hardware.msr_bitmaps.of(&PAGES, l0.msr, page);
        // SAFETY: L0's own bitmap is part of it, and the frame is this CPU's.
        unsafe { vmcs02.write_trusted(vmcs::MSR_BITMAPS, frame.get()) }
    }
    let io = if primary.contains(PrimaryControls::USE_IO_BITMAPS) {
        hardware.io_bitmaps.of(&PAGES, l0.io, io_bitmaps(vmcs12))
    } else {
        l0.io
    };
    for (field, address) in [(vmcs::IO_BITMAP_A, io.get()), (vmcs::IO_BITMAP_B, io.get() + 4096)] {
        // SAFETY: L0's own bitmap is part of it, or it, and the frame holds nothing else.
        unsafe { vmcs02.write_trusted(field, address) }
    }
}
