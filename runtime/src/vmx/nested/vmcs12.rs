//! L1's VMCS, kept in the hypervisor's memory while it is current.

use super::fields::{self, COUNT};
use hw::Vmcs;
use x86::vmx::vmcs::{Field, FieldValue};

/// The fields of L1's current VMCS. Nothing in them is to be trusted: VM entry checks all of it.
#[derive(Clone, Debug)]
pub(super) struct Vmcs12 {
    values: [u64; COUNT],
}

impl Vmcs12 {
    /// All fields zero.
    pub(super) const fn new() -> Self {
        Self { values: [0; COUNT] }
    }
}

impl Vmcs for Vmcs12 {
    #[inline(always)]
    fn read<T: FieldValue>(&self, field: Field<T>) -> T {
        T::from_u64(fields::index(field.encoding()).map_or(0, |index| self.values[index]))
    }

    #[inline(always)]
    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        if let Some(index) = fields::index(field.encoding()) {
            self.values[index] = value.to_u64();
        }
    }
}
