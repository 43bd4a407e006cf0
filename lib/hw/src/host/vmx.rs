//! VMX instructions of the processor that a thread is. They do not fail where the real ones would not.

use super::{Act, did, own};
use crate::Vmcs;
use crate::sim::SimVmcs;
use x86::address::HostPhysAddr;
use x86::vmx::instruction_error::VmFail;
use x86::vmx::vmcs::{Field, FieldValue, TrustedField};

/// Enters VMX root operation.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn vmxon(_region: HostPhysAddr) -> Result<(), VmFail> {
    Ok(())
}

/// Leaves VMX operation.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn vmxoff() -> Result<(), VmFail> {
    own(|cpu| cpu.current_vmcs = None);
    Ok(())
}

/// Makes `vmcs` inactive and its fields zero.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn vmclear(vmcs: HostPhysAddr) -> Result<(), VmFail> {
    own(|cpu| {
        cpu.vmcss.entry(vmcs).or_default();
        cpu.current_vmcs = cpu.current_vmcs.filter(|&current| current != vmcs);
    });
    Ok(())
}

/// Makes `vmcs` current.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn vmptrld(vmcs: HostPhysAddr) -> Result<(), VmFail> {
    own(|cpu| {
        cpu.vmcss.entry(vmcs).or_default();
        cpu.current_vmcs = Some(vmcs);
    });
    Ok(())
}

/// Drops all translations of guest-physical addresses.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn invept_all() -> Result<(), VmFail> {
    did(Act::InvalidateGuestPhysical);
    Ok(())
}

/// Drops the translations of the tables that `pointer` points to.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn invept_single(pointer: u64) -> Result<(), VmFail> {
    did(Act::InvalidateTables(pointer));
    Ok(())
}

/// INVVPID of type `kind`, for the identifier `vpid` and an address.
///
/// # Errors
///
/// None.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn invvpid(kind: u64, vpid: u16, address: u64) -> Result<(), VmFail> {
    did(Act::InvalidateLinear(kind, vpid, address));
    Ok(())
}

/// The current VMCS of this processor.
#[derive(Debug)]
pub struct CurrentVmcs(());

impl CurrentVmcs {
    /// # Safety
    ///
    /// As on the real machine.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

impl Vmcs for CurrentVmcs {
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        with_current(|vmcs| vmcs.read(field))
    }

    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        with_current(|vmcs| vmcs.write(field, value));
    }

    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        with_current(|vmcs| vmcs.write(field, value));
    }
}

/// Reads a field by number; `None` where there is no current VMCS.
#[must_use]
pub fn probe(encoding: u32) -> Option<u64> {
    own(|cpu| cpu.current_vmcs.and_then(|at| cpu.vmcss.get(&at)).map(|vmcs| vmcs.value(encoding)))
}

fn with_current<T>(act: impl FnOnce(&mut SimVmcs) -> T) -> T {
    own(|cpu| match cpu.current_vmcs.and_then(|at| cpu.vmcss.get_mut(&at)) {
        Some(vmcs) => act(vmcs),
        None => panic!("no VMCS is current"),
    })
}
