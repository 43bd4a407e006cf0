//! VMX instructions (SDM, "VMX Instruction Reference").

use crate::{Vmcs, guarded};
use core::arch::asm;
use x86::address::HostPhysAddr;
use x86::vmx::instruction_error::VmFail;
use x86::vmx::vmcs::{Field, FieldValue, TrustedField};

macro_rules! with_status {
    ($($instruction:literal),+; $($operand:tt)*) => {{
        let (invalid, valid): (u8, u8);
        asm!($($instruction),+, "setc {invalid}", "setz {valid}",
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, $($operand)*);
        match (invalid, valid) {
            (0, 0) => Ok(()),
            (0, _) => Err(VmFail::Valid),
            _ => Err(VmFail::Invalid),
        }
    }};
}

/// Enters VMX root operation.
///
/// # Errors
///
/// As the processor says.
///
/// # Safety
///
/// 1. `region` is a frame of the hypervisor's own with the VMCS revision in its first word, used for
///    nothing else from now on.
/// 2. CR4.VMXE is set, CR0 and CR4 obey the fixed bits, IA32_FEATURE_CONTROL allows VMX.
pub unsafe fn vmxon(region: HostPhysAddr) -> Result<(), VmFail> {
    // SAFETY: by the caller's duties.
    unsafe { with_status!("vmxon [{operand}]"; operand = in(reg) &region.get(), options(nostack)) }
}

/// Leaves VMX operation.
///
/// # Errors
///
/// As the processor says.
///
/// # Safety
///
/// No guest runs on this processor any more.
pub unsafe fn vmxoff() -> Result<(), VmFail> {
    // SAFETY: by the caller's duty.
    unsafe { with_status!("vmxoff"; options(nostack)) }
}

/// Makes `vmcs` inactive and its launch state clear.
///
/// # Errors
///
/// As the processor says.
///
/// # Safety
///
/// `vmcs` is a frame of the hypervisor's own, used for nothing else, with the revision in its first word.
pub unsafe fn vmclear(vmcs: HostPhysAddr) -> Result<(), VmFail> {
    // SAFETY: by the caller's duty.
    unsafe { with_status!("vmclear [{operand}]"; operand = in(reg) &vmcs.get(), options(nostack)) }
}

/// Makes `vmcs` current.
///
/// # Errors
///
/// As the processor says.
///
/// # Safety
///
/// As for [`vmclear`]; and it is active on no other processor.
pub unsafe fn vmptrld(vmcs: HostPhysAddr) -> Result<(), VmFail> {
    // SAFETY: by the caller's duty.
    unsafe { with_status!("vmptrld [{operand}]"; operand = in(reg) &vmcs.get(), options(nostack)) }
}

/// Drops cached translations of every EPT pointer from this processor's TLB.
///
/// # Errors
///
/// As the processor says.
///
/// # Safety
///
/// This processor is in VMX root operation and has all-context INVEPT.
pub unsafe fn invept_all() -> Result<(), VmFail> {
    let descriptor = [0u64; 2];
    // SAFETY: dropping translations is always correct; the caller answers for the rest.
    unsafe {
        with_status!("invept {kind}, [{operand}]"; kind = in(reg) 2u64, operand = in(reg) &raw const descriptor,
            options(nostack))
    }
}

/// Drops cached translations of one EPT pointer from this processor's TLB.
///
/// # Errors
///
/// As the processor says, for a pointer that VM entry would refuse or a type that the processor does not have.
///
/// # Safety
///
/// This processor is in VMX root operation.
pub unsafe fn invept_single(pointer: u64) -> Result<(), VmFail> {
    let descriptor = [pointer, 0];
    // SAFETY: dropping translations is always correct; the caller answers for the rest.
    unsafe {
        with_status!("invept {kind}, [{operand}]"; kind = in(reg) 1u64, operand = in(reg) &raw const descriptor,
            options(nostack))
    }
}

/// INVVPID of type `kind`, for the identifier `vpid` and, where the type takes one, a linear address.
///
/// # Errors
///
/// As the processor says: a type that it does not have, identifier 0, an address that is not canonical.
///
/// # Safety
///
/// This processor is in VMX root operation.
pub unsafe fn invvpid(kind: u64, vpid: u16, address: u64) -> Result<(), VmFail> {
    let descriptor = [u64::from(vpid), address];
    // SAFETY: dropping translations is always correct; the caller answers for the rest.
    unsafe {
        with_status!("invvpid {kind}, [{operand}]"; kind = in(reg) kind, operand = in(reg) &raw const descriptor,
            options(nostack))
    }
}

/// The current VMCS of this processor.
#[derive(Debug)]
pub struct CurrentVmcs(());

impl CurrentVmcs {
    /// # Safety
    ///
    /// This processor is in VMX root operation with a current VMCS of the hypervisor's own for as long as
    /// the value lives.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// # Safety
    ///
    /// As for [`Vmcs::write_trusted`], where the field is one.
    #[inline(always)]
    unsafe fn write_any(&mut self, encoding: u32, value: u64) {
        #[cfg(feature = "count-vmcs-accesses")]
        super::vmcs_accesses::count_write();
        // SAFETY: by the contracts of `new` and of this; its failure never returns.
        unsafe {
            asm!("vmwrite {field}, {value}", "jbe {failed}", value = in(reg) value,
                field = in(reg) u64::from(encoding), failed = sym vmwrite_failed,
                options(nostack));
        }
    }
}

impl Vmcs for CurrentVmcs {
    #[inline(always)]
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        #[cfg(feature = "count-vmcs-accesses")]
        super::vmcs_accesses::count_read();
        let value: u64;
        // SAFETY: VMREAD writes one register; its failure never returns.
        unsafe {
            asm!("vmread {value}, {field}", "jbe {failed}", value = out(reg) value,
                field = in(reg) u64::from(field.encoding()), failed = sym vmread_failed,
                options(nomem, nostack));
        }
        T::from_u64(value)
    }

    #[inline(always)]
    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        // SAFETY: no trusted field.
        unsafe { self.write_any(field.encoding(), value.to_u64()) }
    }

    #[inline(always)]
    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        // SAFETY: by the caller's duties.
        unsafe { self.write_any(field.encoding(), value.to_u64()) }
    }
}

/// Reads a field by number; `None` where the processor has no such field, there is no current VMCS, or the processor
/// is not in VMX operation.
#[must_use]
pub fn probe(encoding: u32) -> Option<u64> {
    let (value, fail): (u64, u64);
    // SAFETY: VMREAD writes one register; the fault outside VMX operation is caught by the table row.
    unsafe {
        asm!("mov {fail:e}, 1", "2: vmread {value}, {field}", "jbe 3f", "xor {fail:e}, {fail:e}", "3:",
            guarded!(),
            value = out(reg) value, fail = out(reg) fail, field = in(reg) u64::from(encoding),
            options(nomem, nostack));
    }
    (fail == 0).then_some(value)
}

#[cold]
extern "C" fn vmread_failed() -> ! {
    panic!("VMREAD failed: a field that this processor does not have, or no current VMCS")
}

#[cold]
extern "C" fn vmwrite_failed() -> ! {
    panic!("VMWRITE failed: a field that this processor does not have, or no current VMCS")
}
