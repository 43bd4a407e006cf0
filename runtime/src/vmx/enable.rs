//! Switches VMX operation on, for good (SDM, "Enabling and Entering VMX Operation").
//!
//! UNSAFETY: control registers and VMXON.
#![expect(unsafe_code, reason = "enters VMX operation")]

use super::controls::Unsupported;
use super::feature_control;
use crate::exit::pointer::ApicOverMemory;
use crate::smp::percpu::PerCpu;
use core::sync::atomic::{AtomicU64, Ordering};
use hw::bare::{Processor, Region, control_registers, vmx};
use hw::{Cpuid, Msrs, PhysMemory};
use x86::address::HostPhysAddr;
use x86::cpuid::{Leaf1Ecx, Leaf1Edx};
use x86::cr::{Cr0, Cr4};
use x86::msr::{GuestMsr, Msr, RTIT_CTL_TRACE_EN};
use x86::vmx::capability::VmxBasic;

/// Why this CPU cannot enter VMX operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnableError {
    /// The firmware locked VMX off on this CPU.
    LockedOff,
    /// VMXON failed.
    Vmxon,
    /// The firmware left this CPU a physical pointer that the hypervisor cannot let it have.
    Pointers(ApicOverMemory),
    /// A control is missing.
    Unsupported(Unsupported),
}

/// Puts this CPU into VMX root operation with an active, current, clear VMCS.
pub(super) fn enable(cpu: &PerCpu, region: &Region) -> Result<(), EnableError> {
    // In the manual's order: VMXON works once IA32_FEATURE_CONTROL is locked with VMX allowed, and CR4.VMXE is set
    // (SDM, "Enabling and Entering VMX Operation").
    allow_vmx(cpu.index == 0)?;
    end_trace();
    set_control_registers();
    // VMXON and VMPTRLD look for the revision in the region (SDM, "VMXON Region"; "Format of the VMCS Region").
    let revision = revision()?;
    let [vmxon_region, vmcs] = cpu.vendor_frames;
    for frame in [vmxon_region, vmcs] {
        region.write(frame, &revision.to_le_bytes());
    }
    // SAFETY: the frame is this CPU's own and holds the revision; CR4.VMXE and the fixed bits are set.
    unsafe { vmx::vmxon(vmxon_region) }.map_err(|_| EnableError::Vmxon)?;
    // SAFETY: the frame is this CPU's own and holds the revision.
    unsafe { vmx::vmclear(vmcs) }.map_err(|_| EnableError::Vmxon)?;
    // SAFETY: as above; no other CPU ever loads it.
    unsafe { vmx::vmptrld(vmcs) }.map_err(|_| EnableError::Vmxon)
}

/// Returns the frame of the VMCS that [`enable`] makes current on `cpu`.
pub(super) const fn vmcs_of(cpu: &PerCpu) -> HostPhysAddr {
    let [_, vmcs] = cpu.vendor_frames;
    vmcs
}

/// VMCS revision identifier.
pub(super) fn revision() -> Result<u32, EnableError> {
    let basic = Processor.read(Msr::IA32_VMX_BASIC).map_err(|_| EnableError::Vmxon)?;
    Ok(VmxBasic(basic).revision())
}

/// IA32_FEATURE_CONTROL of the first CPU, which the bootloader or the firmware locked.
static FIRST_FEATURE_CONTROL: AtomicU64 = AtomicU64::new(0);

/// Locks IA32_FEATURE_CONTROL where firmware left it open, on every CPU as on the first: an instruction, or a measured
/// launch, that works on one has to work on all (SDM, "Enabling and Entering VMX Operation").
fn allow_vmx(is_first: bool) -> Result<(), EnableError> {
    let control = Processor.read(Msr::IA32_FEATURE_CONTROL).map_err(|_| EnableError::LockedOff)?;
    let first = if is_first { control } else { FIRST_FEATURE_CONTROL.load(Ordering::Relaxed) };
    let wanted = feature_control::wanted(control, first);
    if wanted != control {
        Processor.write(GuestMsr::IA32_FEATURE_CONTROL, wanted).map_err(|_| EnableError::LockedOff)?;
    }
    if is_first {
        FIRST_FEATURE_CONTROL.store(wanted, Ordering::Relaxed);
    }
    if feature_control::allows_vmx(wanted) { Ok(()) } else { Err(EnableError::LockedOff) }
}

/// A trace that the firmware left on would write what the hypervisor does; VMXON ends it on some processors only (SDM,
/// "Tracing Post-VMXON").
fn end_trace() {
    if Processor.read(Msr::IA32_RTIT_CTL).is_ok_and(|control| control & RTIT_CTL_TRACE_EN != 0) {
        // Zero fits.
        // SAFETY: nothing is traced with it.
        let _ = unsafe { Processor.write_trusted(Msr::IA32_RTIT_CTL, 0) };
    }
}

fn set_control_registers() {
    let fixed = |msr| Processor.read(msr).unwrap_or(0);
    let cr0 = control_registers::cr0() & !(Cr0::CD | Cr0::NW).bits()
        | (Cr0::NE | Cr0::WP).bits()
        | fixed(Msr::IA32_VMX_CR0_FIXED0);
    let xsave =
        if Processor.cpuid(1, 0).ecx & Leaf1Ecx::XSAVE.bits() != 0 { Cr4::OSXSAVE } else { Cr4::empty() };
    let features = Processor.cpuid(1, 0).edx;
    let machine_checks = if features & Leaf1Edx::MCE.bits() != 0 { Cr4::MCE } else { Cr4::empty() };
    let cr4 = control_registers::cr4()
        | (Cr4::VMXE | xsave | machine_checks).bits()
        | fixed(Msr::IA32_VMX_CR4_FIXED0);
    // SAFETY: paging stays on; caches and write protection come on.
    unsafe { control_registers::set_cr0(cr0) };
    // SAFETY: adds VMX, XSETBV, and machine checks, for which there is a gate.
    unsafe { control_registers::set_cr4(cr4) };
}
