//! L2's processor for the hypervisor's own handlers, which know nothing of L1.

use super::cr_masks::CR0_OF_L0;
use hw::Vmcs;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

/// The VMCS of L2, in which the read shadows show what the hypervisor's handlers expect of them: the
/// registers' own values, with the cache bits that L2 believes to have. What such a handler writes to them
/// changes only those, and L1's part of the shadows stays.
#[derive(Debug)]
pub(super) struct L2View<V> {
    vmcs: V,
    /// CR0 bits that L1 owns.
    l1_owns: u64,
}

impl<V: Vmcs> L2View<V> {
    /// L2 under `vmcs02`, where L1 owns the CR0 bits `l1_owns`.
    pub(super) const fn new(vmcs02: V, l1_owns: u64) -> Self {
        Self { vmcs: vmcs02, l1_owns }
    }

    fn cr0(&self) -> u64 {
        let bits = CR0_OF_L0.bits() & !self.l1_owns;
        self.vmcs.read(vmcs::GUEST_CR0) & !bits | self.vmcs.read(vmcs::CR0_READ_SHADOW) & bits
    }

    fn set_cr0(&mut self, value: u64) {
        let shadow = self.vmcs.read(vmcs::CR0_READ_SHADOW);
        // Bits that L1 does not own read as they are, and its shadow is what the rest reads as.
        self.vmcs.write(vmcs::CR0_READ_SHADOW, shadow & self.l1_owns | value & !self.l1_owns);
    }
}

// UNSAFETY: passes the contract of the VMCS that it views on.
#[expect(unsafe_code, reason = "passes a contract on")]
impl<V: Vmcs> Vmcs for L2View<V> {
    #[inline(always)]
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        match field.encoding() {
            encoding if encoding == vmcs::CR0_READ_SHADOW.encoding() => T::from_u64(self.cr0()),
            encoding if encoding == vmcs::CR4_READ_SHADOW.encoding() => {
                T::from_u64(self.vmcs.read(vmcs::GUEST_CR4))
            }
            _ => self.vmcs.read(field),
        }
    }

    #[inline(always)]
    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        match field.encoding() {
            encoding if encoding == vmcs::CR0_READ_SHADOW.encoding() => self.set_cr0(value.to_u64()),
            encoding if encoding == vmcs::CR4_READ_SHADOW.encoding() => (),
            _ => self.vmcs.write(field, value),
        }
    }

    #[inline(always)]
    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        // SAFETY: the caller's duties are of the same VMCS.
        unsafe { self.vmcs.write_trusted(field, value) }
    }
}

#[cfg(test)]
#[path = "l2_vmcs_tests.rs"]
mod tests;
