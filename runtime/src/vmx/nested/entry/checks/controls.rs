//! VM-execution, VM-exit and VM-entry control fields (SDM, "Checks on VMX Controls").

use super::{Entry, Rule, event_injection, require};
use crate::memory::guest::GuestMemory;
use crate::vmx::controls::Controls;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::vmx::capability::{Allowed, EptVpidCapability, VmxMisc};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::ept::EptPointer;
use x86::vmx::vmcs::{self, TrustedField};

/// Offset of the task-priority register in the virtual-APIC page.
const VTPR: u64 = 0x80;
const PAGE_BITS: u8 = 12;

/// Makes all checks on control fields; each failure of theirs is VM-instruction error 7.
pub(super) fn check<V: Vmcs, M: GuestMemory + ?Sized>(entry: &Entry<'_, V>, memory: &M) -> Result<(), Rule> {
    reserved_bits(entry)?;
    for (control, other, must_be, rule) in CONSISTENCY {
        require(!control.is_set(&entry.controls) || other.is_set(&entry.controls) == must_be, rule)?;
    }
    for (control, field, aligned_bits, rule) in ADDRESSES {
        require(!control.is_set(&entry.controls) || entry.is_physical(field, aligned_bits), rule)?;
    }
    values(entry)?;
    tpr_threshold(entry, memory)?;
    for (count, address, rule) in MSR_AREAS {
        msr_area(entry, count, address, rule)?;
    }
    event_injection::check(entry)
}

/// A bit of one of the control words.
#[derive(Clone, Copy, Debug)]
enum Control {
    Pin(PinBasedControls),
    Primary(PrimaryControls),
    Secondary(SecondaryControls),
    Exit(ExitControls),
}

impl Control {
    const fn is_set(self, controls: &Controls) -> bool {
        match self {
            Self::Pin(bit) => controls.pin_based.contains(bit),
            Self::Primary(bit) => controls.primary.contains(bit),
            Self::Secondary(bit) => controls.secondary.contains(bit),
            Self::Exit(bit) => controls.exit.contains(bit),
        }
    }
}

const NMI_EXITING: Control = Control::Pin(PinBasedControls::NMI_EXITING);
const VIRTUAL_NMIS: Control = Control::Pin(PinBasedControls::VIRTUAL_NMIS);
const POSTED_INTERRUPTS: Control = Control::Pin(PinBasedControls::PROCESS_POSTED_INTERRUPTS);
const TPR_SHADOW: Control = Control::Primary(PrimaryControls::USE_TPR_SHADOW);
const IO_BITMAPS: Control = Control::Primary(PrimaryControls::USE_IO_BITMAPS);
const X2APIC_MODE: Control = Control::Secondary(SecondaryControls::VIRTUALIZE_X2APIC_MODE);
const APIC_ACCESSES: Control = Control::Secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
const INTERRUPT_DELIVERY: Control = Control::Secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
const EPT: Control = Control::Secondary(SecondaryControls::ENABLE_EPT);
const PML: Control = Control::Secondary(SecondaryControls::ENABLE_PML);
const SHADOWING: Control = Control::Secondary(SecondaryControls::VMCS_SHADOWING);

/// Where the first control is 1, the second is as said.
const CONSISTENCY: [(Control, Control, bool, Rule); 13] = [
    (X2APIC_MODE, TPR_SHADOW, true, "x2APIC mode needs the TPR shadow"),
    (
        Control::Secondary(SecondaryControls::APIC_REGISTER_VIRTUALIZATION),
        TPR_SHADOW,
        true,
        "APIC-register virtualization needs the TPR shadow",
    ),
    (INTERRUPT_DELIVERY, TPR_SHADOW, true, "virtual-interrupt delivery needs the TPR shadow"),
    (VIRTUAL_NMIS, NMI_EXITING, true, "virtual NMIs need NMI exiting"),
    (
        Control::Primary(PrimaryControls::NMI_WINDOW_EXITING),
        VIRTUAL_NMIS,
        true,
        "NMI-window exiting needs virtual NMIs",
    ),
    (X2APIC_MODE, APIC_ACCESSES, false, "x2APIC mode excludes APIC accesses"),
    (
        INTERRUPT_DELIVERY,
        Control::Pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING),
        true,
        "virtual-interrupt delivery needs external-interrupt exiting",
    ),
    (POSTED_INTERRUPTS, INTERRUPT_DELIVERY, true, "posted interrupts need virtual-interrupt delivery"),
    (
        POSTED_INTERRUPTS,
        Control::Exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
        true,
        "posted interrupts need acknowledgement on exit",
    ),
    (PML, EPT, true, "the page-modification log needs EPT"),
    (Control::Secondary(SecondaryControls::UNRESTRICTED_GUEST), EPT, true, "unrestricted guest needs EPT"),
    (
        Control::Secondary(SecondaryControls::MODE_BASED_EXECUTE_CONTROL),
        EPT,
        true,
        "mode-based execute control needs EPT",
    ),
    (
        Control::Exit(ExitControls::SAVE_PREEMPTION_TIMER),
        Control::Pin(PinBasedControls::PREEMPTION_TIMER),
        true,
        "a preemption timer is saved only where it is active",
    ),
];

/// Where the control is 1, the field is a physical address with so many low bits 0.
const ADDRESSES: [(Control, TrustedField<u64>, u8, Rule); 9] = [
    (IO_BITMAPS, vmcs::IO_BITMAP_A, PAGE_BITS, "address of I/O bitmap A"),
    (IO_BITMAPS, vmcs::IO_BITMAP_B, PAGE_BITS, "address of I/O bitmap B"),
    (
        Control::Primary(PrimaryControls::USE_MSR_BITMAPS),
        vmcs::MSR_BITMAPS,
        PAGE_BITS,
        "address of the MSR bitmaps",
    ),
    (TPR_SHADOW, vmcs::VIRTUAL_APIC_ADDRESS, PAGE_BITS, "virtual-APIC address"),
    (APIC_ACCESSES, vmcs::APIC_ACCESS_ADDRESS, PAGE_BITS, "APIC-access address"),
    (POSTED_INTERRUPTS, vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 6, "posted-interrupt descriptor address"),
    (PML, vmcs::PML_ADDRESS, PAGE_BITS, "PML address"),
    (SHADOWING, vmcs::VMREAD_BITMAP_ADDRESS, PAGE_BITS, "VMREAD-bitmap address"),
    (SHADOWING, vmcs::VMWRITE_BITMAP_ADDRESS, PAGE_BITS, "VMWRITE-bitmap address"),
];

/// Count and address of the MSR areas.
const MSR_AREAS: [(TrustedField<u32>, TrustedField<u64>, Rule); 3] = [
    (vmcs::EXIT_MSR_STORE_COUNT, vmcs::EXIT_MSR_STORE_ADDRESS, "VM-exit MSR-store address"),
    (vmcs::EXIT_MSR_LOAD_COUNT, vmcs::EXIT_MSR_LOAD_ADDRESS, "VM-exit MSR-load address"),
    (vmcs::ENTRY_MSR_LOAD_COUNT, vmcs::ENTRY_MSR_LOAD_ADDRESS, "VM-entry MSR-load address"),
];

fn reserved_bits<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let (controls, capability) = (&entry.controls, entry.capability);
    let is_allowed = |allowed: Allowed, word: u32| allowed.allows(word);
    require(
        is_allowed(capability.pin_based, controls.pin_based.bits()),
        "reserved bits of the pin-based controls",
    )?;
    require(
        is_allowed(capability.primary, controls.primary.bits()),
        "reserved bits of the primary processor-based controls",
    )?;
    require(
        !entry.has_primary(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS)
            || is_allowed(capability.secondary, controls.secondary.bits()),
        "reserved bits of the secondary processor-based controls",
    )?;
    require(is_allowed(capability.exit, controls.exit.bits()), "reserved bits of the VM-exit controls")?;
    require(is_allowed(capability.entry, controls.entry.bits()), "reserved bits of the VM-entry controls")
}

fn values<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let misc = VmxMisc(entry.capability.misc);
    require(entry.read(vmcs::CR3_TARGET_COUNT) <= misc.cr3_target_count(), "CR3-target count")?;
    require(
        !POSTED_INTERRUPTS.is_set(&entry.controls)
            || entry.read(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR) <= 0xff,
        "posted-interrupt notification vector",
    )?;
    require(
        !entry.has_secondary(SecondaryControls::ENABLE_VPID) || entry.read(vmcs::VPID) != 0,
        "VPID 0 is the host's",
    )?;
    require(!EPT.is_set(&entry.controls) || is_ept_pointer_valid(entry), "EPT pointer")?;
    require(
        !entry.has_secondary(SecondaryControls::USE_TSC_SCALING) || entry.read(vmcs::TSC_MULTIPLIER) != 0,
        "TSC multiplier 0",
    )
}

/// Returns whether an entry takes the EPT pointer (SDM, "Extended-Page-Table Pointer (EPTP)"); walks of five levels are
/// not offered.
fn is_ept_pointer_valid<V: Vmcs>(entry: &Entry<'_, V>) -> bool {
    const RESERVED: u64 = 0xf80;
    let capability = entry.capability.ept_vpid;
    let pointer = EptPointer(entry.read(vmcs::EPT_POINTER));
    let is_type_supported = match pointer.memory_type() {
        0 => capability.contains(EptVpidCapability::UNCACHEABLE),
        6 => capability.contains(EptVpidCapability::WRITE_BACK),
        _ => false,
    };
    is_type_supported
        && pointer.walk_length() == 4
        && (!pointer.has_accessed_dirty() || capability.contains(EptVpidCapability::ACCESSED_DIRTY))
        && pointer.0 & RESERVED == 0
        && entry.is_within_width(pointer.0)
}

/// Checks the TPR threshold, which without virtualized APIC accesses the virtual TPR must reach already.
fn tpr_threshold<V: Vmcs, M: GuestMemory + ?Sized>(entry: &Entry<'_, V>, memory: &M) -> Result<(), Rule> {
    if !TPR_SHADOW.is_set(&entry.controls) || INTERRUPT_DELIVERY.is_set(&entry.controls) {
        return Ok(());
    }
    let threshold = entry.read(vmcs::TPR_THRESHOLD);
    require(threshold <= 0xf, "reserved bits of the TPR threshold")?;
    if APIC_ACCESSES.is_set(&entry.controls) {
        return Ok(());
    }
    // What is not L1's memory reads as an empty bus does.
    let mut vtpr = [0xff];
    let page = GuestPhysAddr::new(entry.read(vmcs::VIRTUAL_APIC_ADDRESS) | VTPR);
    if memory.read(page, &mut vtpr).is_err() {
        vtpr = [0xff];
    }
    require(threshold <= u32::from(vtpr[0] >> 4), "TPR threshold above the virtual TPR")
}

/// Checks an MSR area: it is 16-byte aligned, and its first and last byte are within the physical-address width.
fn msr_area<V: Vmcs>(
    entry: &Entry<'_, V>,
    count: TrustedField<u32>,
    address: TrustedField<u64>,
    rule: Rule,
) -> Result<(), Rule> {
    const ENTRY_BYTES: u64 = 16;
    let count = u64::from(entry.read(count));
    if count == 0 {
        return Ok(());
    }
    let last = entry.read(address).checked_add(count * ENTRY_BYTES - 1);
    require(entry.is_physical(address, 4) && last.is_some_and(|last| entry.is_within_width(last)), rule)
}
