//! Dangling pages: CR8, the virtual-APIC page, the APIC-access page and posted interrupts on odd pages.
//! model: corei7_skylake_x
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::boot;
use guest::cpu::{cpuid, read_cr8, write_cr8};
use guest::memory::{read32, write32};
use guest::vmx::prelude::*;
use guest::vmx::verdict::{CONTROLS, Entry};
use guest::vmx::{Ept, allocate, read, write};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::vmcs::TrustedField;

guest!(main);

const NOTHING: u64 = 0x8000_0000;
const ROM: u64 = 0xf_0000;
const SCREEN: u64 = 0xa_0000;
const VTPR: u64 = 0x80;
const NOTIFICATION: u16 = 0xf2;

static SEEN: AtomicU64 = AtomicU64::new(0);
static PAGE: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let ept = Ept::identity();
    for has_ept in [false, true] {
        task_priority(has_ept.then_some(&ept));
        accesses(has_ept.then_some(&ept));
        posted(has_ept.then_some(&ept));
    }
    leave_operation();
}

fn guest_with(ept: Option<&Ept>, code: extern "C" fn()) -> Guest {
    let mut nested = Guest::new(code);
    if let Some(ept) = ept {
        nested.use_ept(ept);
    }
    nested
}

/// Where no page of a hypervisor's can be: the entry fails.
fn bad_pages(page: u64, alignment: u64) -> [u64; 4] {
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    [page + alignment / 2, page + 1, page | 1 << width, page | 1 << 63]
}

/// Where a hypervisor should put none: the entry does what it does on a machine.
fn odd_pages() -> [u64; 4] {
    [boot::hidden_memory().unwrap_or(NOTHING), NOTHING, ROM, SCREEN]
}

fn try_pages(nested: &mut Guest, field: TrustedField<u64>, page: u64, alignment: u64, what: &str) {
    for bad in bad_pages(page, alignment) {
        nested.write(field, bad);
        nested.call(guest::vmx::verdict::end);
        check_eq!(nested.try_entry(), CONTROLS, "{what} at {bad:#x}");
    }
}

/// L2: raises its task priority and looks at it, and lowers it.
extern "C" fn use_cr8() {
    let _ = write_cr8(5);
    SEEN.store(read_cr8(), Ordering::SeqCst);
    let _ = write_cr8(1);
}

fn task_priority(ept: Option<&Ept>) {
    let mut nested = guest_with(ept, use_cr8);
    let page = allocate();
    check!(nested.add_primary(PrimaryControls::USE_TPR_SHADOW), "the processor has a TPR shadow");
    nested.write(vmcs::TPR_THRESHOLD, 0);
    try_pages(&mut nested, vmcs::VIRTUAL_APIC_ADDRESS, page, 4096, "virtual-APIC page");
    let own = read_cr8();
    // Bitmaps, tables and the VMCS itself are pages like others.
    let bitmap = nested.read(vmcs::MSR_BITMAPS);
    for place in [page, bitmap].into_iter().chain(odd_pages()) {
        nested.write(vmcs::VIRTUAL_APIC_ADDRESS, place);
        nested.call(use_cr8);
        check_eq!(nested.run(), ExitReason::VMCALL, "CR8 by {place:#x}");
        check_eq!(read_cr8(), own, "CR8 of the hypervisor behind {place:#x}");
        if place == page || place == bitmap {
            check_eq!(SEEN.load(Ordering::SeqCst), 5, "CR8 in memory at {place:#x}");
            check_eq!(read(place + VTPR) & 0xff, 0x10, "what is left at {place:#x}");
            write(place + VTPR, 0);
        }
    }
    // Below the threshold it leaves.
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, page);
    write(page + VTPR, 0x70);
    nested.write(vmcs::TPR_THRESHOLD, 3);
    nested.call(use_cr8);
    check_eq!(nested.run(), ExitReason::TPR_BELOW_THRESHOLD, "CR8 below the threshold");
    nested.write(vmcs::TPR_THRESHOLD, 0x10);
    check_eq!(nested.try_entry(), CONTROLS, "a threshold of five bits");
}

/// L2: reads and writes its local APIC's task priority.
extern "C" fn use_apic_page() {
    let page = PAGE.load(Ordering::SeqCst);
    SEEN.store(read32(page + VTPR).map_or(u64::MAX, u64::from), Ordering::SeqCst);
    let _ = write32(page + VTPR, 0x30);
}

fn accesses(ept: Option<&Ept>) {
    let mut nested = guest_with(ept, use_apic_page);
    let (page, virtual_page) = (allocate(), allocate());
    if !nested.add_secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES) {
        return;
    }
    try_pages(&mut nested, vmcs::APIC_ACCESS_ADDRESS, page, 4096, "APIC-access page");
    let bitmap = nested.read(vmcs::MSR_BITMAPS);
    for place in [page, bitmap].into_iter().chain(odd_pages()) {
        let is_memory = place == page || place == bitmap;
        PAGE.store(if is_memory { place } else { virtual_page }, Ordering::SeqCst);
        nested.write(vmcs::APIC_ACCESS_ADDRESS, place);
        nested.call(use_apic_page);
        let reason = nested.run();
        if !is_memory {
            check_eq!(reason, ExitReason::VMCALL, "APIC-access page at {place:#x}");
            continue;
        }
        check_eq!(reason, ExitReason::APIC_ACCESS, "an access to the APIC-access page");
        check_eq!(nested.read(vmcs::EXIT_QUALIFICATION) & 0xffff, VTPR, "offset and kind of the access");
    }
    // The same page in both roles.
    check!(nested.add_primary(PrimaryControls::USE_TPR_SHADOW), "the processor has a TPR shadow");
    nested.write(vmcs::TPR_THRESHOLD, 0);
    write(page + VTPR, 0x20);
    nested.write(vmcs::APIC_ACCESS_ADDRESS, page);
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, page);
    PAGE.store(page, Ordering::SeqCst);
    nested.call(use_apic_page);
    check_eq!(nested.run(), ExitReason::VMCALL, "one page in both roles");
    check_eq!(SEEN.load(Ordering::SeqCst), 0x20, "virtual task priority");
    check_eq!(read(page + VTPR) & 0xff, 0x30, "what is left of it");
}

fn posted(ept: Option<&Ept>) {
    let mut nested = guest_with(ept, use_cr8);
    let (page, descriptor) = (allocate(), allocate());
    let has_all = nested.add_primary(PrimaryControls::USE_TPR_SHADOW)
        && nested.add_secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY)
        && nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
        && nested.add_pin(
            PinBasedControls::EXTERNAL_INTERRUPT_EXITING | PinBasedControls::PROCESS_POSTED_INTERRUPTS,
        );
    if !has_all {
        return;
    }
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, page);
    nested.write(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, NOTIFICATION);
    for field in
        [vmcs::EOI_EXIT_BITMAP_0, vmcs::EOI_EXIT_BITMAP_1, vmcs::EOI_EXIT_BITMAP_2, vmcs::EOI_EXIT_BITMAP_3]
    {
        nested.write(field, 0);
    }
    nested.write(vmcs::GUEST_INTERRUPT_STATUS, 0);
    try_pages(&mut nested, vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, descriptor, 64, "descriptor");
    nested.write(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, descriptor);
    nested.write(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x100);
    nested.call(use_cr8);
    check_eq!(nested.try_entry(), CONTROLS, "a notification vector of nine bits");
    nested.write(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, NOTIFICATION);
    for place in [descriptor + 64, page + 0xfc0] {
        nested.write(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, place);
        nested.call(use_cr8);
        check_eq!(nested.try_entry(), Entry::Entered, "a descriptor within a page");
    }
    for place in [descriptor, page].into_iter().chain(odd_pages()) {
        nested.write(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, place);
        nested.call(use_cr8);
        check_eq!(nested.try_entry(), Entry::Entered, "a descriptor at {place:#x}");
        check_eq!(SEEN.load(Ordering::SeqCst), 5, "CR8 beside a descriptor at {place:#x}");
    }
}
