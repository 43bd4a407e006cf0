//! L1's VMCS, kept in the hypervisor's memory while it is current.
//!
//! The page that L1 gave it holds revision identifier and VMX-abort indicator, where the manual has them, then
//! the launch state and the fields in the order of the table. The page is read at VMPTRLD and written when
//! the VMCS stops being current, and never looked at between: L1, and other processors, can forge nothing
//! in use. What they forge while it lies there is checked at the next entry like all the rest. So a processor
//! keeps one VMCS of L1 in memory, whatever the number that L1 has.

pub(super) mod controls;
pub(super) mod fields;
pub(super) mod shadow_vmcs;
pub(super) mod shadowing;

use crate::memory::guest::{GuestMemory, Refused};
use bitflags::bitflags;
use fields::{Access, COUNT};
use hw::Vmcs;
use static_assertions::const_assert;
use x86::address::GuestPhysAddr;
use x86::cr::Cr0;
use x86::paging::PAGE_SIZE;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs::{self, Field, FieldValue, Treatment, TrustedField, Width};

/// Bit 31 of the first word: the shadow-VMCS indicator (SDM, "Format of the VMCS Region").
pub(super) const SHADOW_VMCS: u32 = vmcs::SHADOW_INDICATOR;
/// The VMCS link pointer of a VMCS that links nothing.
pub(super) const NO_LINK: u64 = u64::MAX;
const LAUNCH_STATE: u64 = 8;
const VALUES: u64 = 16;
const BYTES: usize = COUNT * size_of::<u64>();
const_assert!(VALUES + BYTES as u64 <= PAGE_SIZE);

bitflags! {
    /// What L1 has written since it was last used.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Dirty: u8 {
        /// Controls.
        const CONTROLS = 1 << 0;
        /// Guest state but the instruction, stack and flags registers, which change with every entry.
        const GUEST_STATE = 1 << 1;
        /// Guest state that entries copy only where this says so.
        const COLD = 1 << 2;
        /// Host state.
        const HOST_STATE = 1 << 3;
    }
}

/// Launch state (SDM, "Software Use of Virtual-Machine Control Structures").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaunchState {
    /// For VMLAUNCH.
    Clear,
    /// For VMRESUME.
    Launched,
}

/// The fields of L1's current VMCS. Nothing in them is to be trusted: VM entry checks all of it.
#[derive(Clone, Debug)]
pub(super) struct Vmcs12 {
    /// Launch state.
    pub(super) launch_state: LaunchState,
    /// What L1 has written.
    pub(super) dirty: Dirty,
    /// A shadow VMCS, for L2's VMREAD and VMWRITE and not for VM entry (SDM, "VMCS Types: Ordinary and Shadow").
    pub(super) is_shadow: bool,
    /// CR0.CD and CR0.NW of L1 at the last entry, which loads neither (SDM, "Loading Guest Control Registers, Debug
    /// Registers, and MSRs").
    pub(super) cache_bits: Cr0,
    /// The VMCS of L2 has newer values of the fields that are [`Treatment::Cold`].
    pub(super) is_stale: bool,
    values: [u64; COUNT],
}

impl Vmcs12 {
    /// All fields zero.
    pub(super) const fn new() -> Self {
        Self {
            launch_state: LaunchState::Clear,
            dirty: Dirty::all(),
            is_shadow: false,
            cache_bits: Cr0::empty(),
            is_stale: false,
            values: [0; COUNT],
        }
    }

    /// Reads the page at `region`.
    pub(super) fn load<M: GuestMemory + ?Sized>(
        &mut self,
        memory: &M,
        region: GuestPhysAddr,
    ) -> Result<(), Refused> {
        let mut state = [0; 4];
        let mut bytes = [0; BYTES];
        memory.read(at(region, LAUNCH_STATE), &mut state)?;
        memory.read(at(region, VALUES), &mut bytes)?;
        self.launch_state =
            if u32::from_le_bytes(state) == 0 { LaunchState::Clear } else { LaunchState::Launched };
        let (words, _) = bytes.as_chunks();
        for (index, word) in words.iter().enumerate() {
            self.values[index] = u64::from_le_bytes(*word) & mask(index);
        }
        // Nothing that was checked or merged before was of this VMCS.
        self.dirty = Dirty::all();
        self.is_stale = false;
        Ok(())
    }

    /// Writes the page at `region`. Where L1 may no longer write there, nothing happens, as to any other write
    /// of its processor's.
    pub(super) fn store<M: GuestMemory + ?Sized>(&self, memory: &M, region: GuestPhysAddr) {
        let mut bytes = [0; BYTES];
        let (words, _) = bytes.as_chunks_mut();
        for (word, value) in words.iter_mut().zip(self.values) {
            *word = value.to_le_bytes();
        }
        let state = u32::from(self.launch_state == LaunchState::Launched);
        let _ = memory.write(at(region, LAUNCH_STATE), &state.to_le_bytes());
        let _ = memory.write(at(region, VALUES), &bytes);
    }

    /// Returns the field as VMREAD gives it.
    pub(super) fn value(&self, access: Access) -> u64 {
        part(self.values[access.index], access)
    }

    /// Sets the field as VMWRITE does. The value that it has already, which some hypervisors write at every exit, is
    /// nothing new.
    pub(super) fn set_value(&mut self, access: Access, value: u64) {
        let slot = &mut self.values[access.index];
        let value = changed(*slot, access, value);
        if value == *slot {
            return;
        }
        *slot = value;
        self.dirty |= match fields::treatment(access.index) {
            Treatment::Control | Treatment::ByValue | Treatment::Ignored => {
                Dirty::CONTROLS | Dirty::GUEST_STATE
            }
            Treatment::Cold => Dirty::GUEST_STATE | Dirty::COLD,
            Treatment::Hot if is_plain(access) => Dirty::empty(),
            Treatment::Hot => Dirty::GUEST_STATE,
            Treatment::Host => Dirty::HOST_STATE,
            Treatment::Exit | Treatment::Absent => Dirty::empty(),
        };
    }

    /// Sets the VM-instruction error field.
    pub(super) fn set_instruction_error(&mut self, error: InstructionError) {
        self.write(vmcs::INSTRUCTION_ERROR, error.0);
    }
}

/// Returns the field of the VMCS at `region`, which is not current, as VMREAD gives it. Memory that L1 does not have
/// reads as ones.
pub(super) fn value_at<M: GuestMemory + ?Sized>(memory: &M, region: GuestPhysAddr, access: Access) -> u64 {
    part(stored(memory, region, access), access)
}

/// Sets the field of the VMCS at `region`, which is not current, as VMWRITE does.
pub(super) fn set_value_at<M: GuestMemory + ?Sized>(
    memory: &M,
    region: GuestPhysAddr,
    access: Access,
    value: u64,
) {
    let value = changed(stored(memory, region, access), access, value);
    let _ = memory.write(place(region, access), &value.to_le_bytes());
}

fn stored<M: GuestMemory + ?Sized>(memory: &M, region: GuestPhysAddr, access: Access) -> u64 {
    let mut bytes = [0xff; 8];
    let _ = memory.read(place(region, access), &mut bytes);
    u64::from_le_bytes(bytes) & mask(access.index)
}

fn place(region: GuestPhysAddr, access: Access) -> GuestPhysAddr {
    at(region, VALUES + 8 * access.index as u64)
}

/// Returns what an access reads of a field.
fn part(value: u64, access: Access) -> u64 {
    if access.is_high { value >> 32 } else { value }
}

/// Returns a field after an access wrote `new` to it.
fn changed(old: u64, access: Access, new: u64) -> u64 {
    if access.is_high { old & 0xffff_ffff | new << 32 } else { new & mask(access.index) }
}

/// Makes the launch state of the VMCS at `region` clear, which is not current.
pub(super) fn clear<M: GuestMemory + ?Sized>(memory: &M, region: GuestPhysAddr) {
    let _ = memory.write(at(region, LAUNCH_STATE), &0u32.to_le_bytes());
}

fn at(region: GuestPhysAddr, offset: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(region.get() + offset)
}

/// Every entry writes them, and the processor checks them against each other.
fn is_plain(access: Access) -> bool {
    let plain = [vmcs::GUEST_RIP, vmcs::GUEST_RSP, vmcs::GUEST_RFLAGS];
    let encoding = access.info().encoding;
    plain.iter().any(|field| field.encoding() == encoding)
        || encoding == vmcs::GUEST_INTERRUPTIBILITY.encoding()
        || encoding == vmcs::PREEMPTION_TIMER.encoding()
}

/// Returns the bits that a field has.
fn mask(index: usize) -> u64 {
    match fields::width(index) {
        Width::Bits16 => 0xffff,
        Width::Bits32 => 0xffff_ffff,
        Width::Bits64 | Width::Natural => u64::MAX,
    }
}

impl Vmcs12 {
    /// Writes any field: L1 may make anything of its VMCS.
    #[inline(always)]
    pub(crate) fn write<T: FieldValue, const IS_TRUSTED: bool>(
        &mut self,
        field: Field<T, IS_TRUSTED>,
        value: T,
    ) {
        if let Some(index) = fields::index(field.encoding()) {
            self.values[index] = value.to_u64();
        }
    }
}

// UNSAFETY: a contract about a processor, which enters no guest under it.
#[expect(unsafe_code, reason = "no guest is entered under it: a contract that asks nothing here")]
impl Vmcs for Vmcs12 {
    #[inline(always)]
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        T::from_u64(fields::index(field.encoding()).map_or(0, |index| self.values[index]))
    }

    #[inline(always)]
    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        self.write(field, value);
    }

    #[inline(always)]
    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        self.write(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_there_already_is_nothing_new() {
        for index in 0..COUNT {
            let access = Access { index, is_high: false };
            let mut vmcs12 = Vmcs12::new();
            vmcs12.set_value(access, !0);
            vmcs12.dirty = Dirty::empty();
            vmcs12.set_value(access, !0);
            assert_eq!(vmcs12.dirty, Dirty::empty(), "{:?}", access.info());
            vmcs12.set_value(access, 1);
            let wanted = match fields::treatment(index) {
                Treatment::Control => Dirty::CONTROLS,
                Treatment::Cold => Dirty::COLD,
                Treatment::Host => Dirty::HOST_STATE,
                _ => continue,
            };
            assert!(vmcs12.dirty.contains(wanted), "{:?}", access.info());
        }
    }
}
