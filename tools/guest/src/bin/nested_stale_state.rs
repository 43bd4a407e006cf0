//! Stale state: what an exit saved is what the next entry checks and loads, also after an entry that failed.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, read_cr8, vmcall, wrmsr_existing};
use guest::run::USER_BASE;
use guest::vmx::prelude::*;
use guest::vmx::verdict::{CONTROLS, Entry, GUEST_STATE};
use guest::vmx::{allocate, trial, write};
use guest::{Mode, Regs, snippet};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const COMPATIBILITY_CODE: u32 = 0xc09b;
const FS_BASE: u64 = 0x1234_5000;
/// Virtual TPR in the virtual-APIC page.
const VTPR: u64 = 0x80;

static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    code_segment();
    failed_entries();
    virtual_tpr();
    leave_operation();
}

/// L1 looks at CS while L2 is in compatibility mode, and writes a control when L2 has left it: the entry's checks go by
/// the CS that L2 has then.
fn code_segment() {
    let mut nested = Guest::new(trial::perform);
    trial::begin(&mut nested, Mode::Compatibility32, snippet!(code32: "cpuid"), Regs::default());
    check_eq!(nested.run(), ExitReason::CPUID, "CPUID in compatibility mode");
    check_eq!(nested.read(vmcs::GUEST_CS_ACCESS_RIGHTS), COMPATIBILITY_CODE, "its code segment");
    nested.advance();
    check_eq!(nested.run(), ExitReason::VMCALL, "back in 64-bit mode");
    // In compatibility mode there would be no such RIP.
    let end = nested.read(vmcs::GUEST_RIP);
    nested.write(vmcs::GUEST_RIP, end + USER_BASE);
    nested.write(vmcs::EXCEPTION_BITMAP, 1 << 6);
    check_eq!(nested.run(), ExitReason::VMCALL, "64-bit code above 4 GiB");
    check_eq!(nested.read(vmcs::GUEST_RIP), end + USER_BASE, "its place");
}

/// L2: gives its FS another base, and tells it at its next two entries.
extern "C" fn change_fs() {
    let old = rdmsr_existing(Msr::IA32_FS_BASE);
    wrmsr_existing(Msr::IA32_FS_BASE, FS_BASE);
    for _ in 0..2 {
        vmcall();
        SEEN.store(rdmsr_existing(Msr::IA32_FS_BASE), Ordering::SeqCst);
    }
    wrmsr_existing(Msr::IA32_FS_BASE, old);
}

/// An entry that fails half-way changes nothing of L2: neither what L2 made of its registers, nor what the VMCS says.
fn failed_entries() {
    let mut nested = Guest::new(change_fs);
    let area = allocate();
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, area);
    nested.write(vmcs::GUEST_SYSENTER_ESP, 0x77_0000);
    check_eq!(nested.run(), ExitReason::VMCALL, "L2 has changed FS");
    nested.advance();
    write(area, Msr::IA32_SYSENTER_ESP.0.into());
    write(area + 8, 0x88_0000);
    write(area + 16, Msr::IA32_FS_BASE.0.into());
    write(area + 24, 0x99_0000);
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 2);
    check_eq!(nested.try_entry(), Entry::Failed(34, 2), "the second MSR");
    check_eq!(nested.read(vmcs::GUEST_SYSENTER_ESP), 0x77_0000, "a field after a failed entry");
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 0);
    check_eq!(nested.run(), ExitReason::VMCALL, "L2 goes on");
    check_eq!(SEEN.load(Ordering::SeqCst), FS_BASE, "L2's FS base behind a failed entry");
    nested.advance();
    // Flags may have been checked by nobody but the processor: it comes before the area all the same.
    let flags = nested.read(vmcs::GUEST_RFLAGS);
    let old = rdmsr_existing(Msr::IA32_KERNEL_GS_BASE);
    write(area, Msr::IA32_KERNEL_GS_BASE.0.into());
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    check_eq!(nested.run(), ExitReason::VMCALL, "an entry with an area");
    check_eq!(SEEN.load(Ordering::SeqCst), FS_BASE, "L2's FS base");
    wrmsr_existing(Msr::IA32_KERNEL_GS_BASE, old);
    nested.write(vmcs::GUEST_RFLAGS, flags & !2);
    check_eq!(nested.try_entry(), GUEST_STATE, "bad flags");
    check_eq!(rdmsr_existing(Msr::IA32_KERNEL_GS_BASE), old, "an MSR behind an entry with bad flags");
}

/// The virtual task priority lies in memory, and is compared with the threshold at each entry, before anything is loaded.
fn virtual_tpr() {
    let mut nested = Guest::new(trial::perform);
    let (page, area) = (allocate(), allocate());
    check!(nested.add_primary(PrimaryControls::USE_TPR_SHADOW), "the processor has a TPR shadow");
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, page);
    nested.write(vmcs::TPR_THRESHOLD, 3);
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, area);
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    let old = rdmsr_existing(Msr::IA32_KERNEL_GS_BASE);
    write(area, Msr::IA32_KERNEL_GS_BASE.0.into());
    for (priority, expected) in [(5, Entry::Entered), (2, CONTROLS), (3, Entry::Entered), (0, CONTROLS)] {
        write(page + VTPR, priority << 4);
        write(area + 8, old ^ 0x1000);
        nested.call(look_at_cr8);
        check_eq!(nested.try_entry(), expected, "threshold 3 and priority {priority}");
        if expected == CONTROLS {
            check_eq!(rdmsr_existing(Msr::IA32_KERNEL_GS_BASE), old, "an MSR behind a refused entry");
        } else {
            check_eq!(SEEN.load(Ordering::SeqCst), priority, "CR8 of L2");
        }
        wrmsr_existing(Msr::IA32_KERNEL_GS_BASE, old);
    }
}

/// L2.
extern "C" fn look_at_cr8() {
    SEEN.store(read_cr8(), Ordering::SeqCst);
}
