//! MSR-load and MSR-store areas, carried out in software (SDM, "Loading MSRs"; "Saving MSRs").
//!
//! Each entry is read once, so what was checked is what is used. An area that is longer than IA32_VMX_MISC
//! recommends fails at its first entry too many: the manual leaves that undefined, and an exit of L1 must
//! not keep its processor for ever.

pub(super) mod l1_msrs;
pub(super) mod switched;

use super::capability::Capability;
use crate::memory::guest::GuestMemory;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::msr::Msr;
use x86::vmx::capability::VmxMisc;
use x86::vmx::vmcs::{self, TrustedField};

const ENTRY_BYTES: u64 = 16;
const VALUE_OFFSET: u64 = 8;

/// The MSRs of a guest as a VM entry or VM exit loads and stores them: those that live in a VMCS, those of
/// the hardware, and the hypervisor's policy over both.
pub(super) trait AreaMsrs {
    /// Returns the value to be stored; `None` where RDMSR would fault.
    fn read(&mut self, msr: Msr) -> Option<u64>;
    /// Loads a value; false where WRMSR would fault.
    fn write(&mut self, msr: Msr, value: u64) -> bool;
}

/// An MSR area of VMCS12, which the checks of a VM entry have found aligned and within the address width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsrArea {
    /// Address of the first entry.
    pub(super) address: u64,
    /// Number of entries.
    pub(super) count: u32,
    /// Most entries that are carried out.
    pub(super) limit: u32,
}

/// An entry cannot be carried out; its number, the first being 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// The number.
    pub(super) entry: u32,
}

impl MsrArea {
    /// Loads the MSRs of a VM entry. A failure fails the entry with exit reason 34.
    pub(super) fn load_on_entry<M: GuestMemory + ?Sized>(
        self,
        memory: &M,
        msrs: &mut impl AreaMsrs,
    ) -> Result<(), Unusable> {
        self.each(memory, |entry, _| is_loadable(entry.msr) && msrs.write(entry.msr, entry.value))
    }

    /// Stores the MSRs of a VM exit. A failure is a VMX abort.
    pub(super) fn store_on_exit<M: GuestMemory + ?Sized>(
        self,
        memory: &M,
        msrs: &mut impl AreaMsrs,
    ) -> Result<(), Unusable> {
        self.each(memory, |entry, address| {
            if !is_storable(entry.msr) {
                return false;
            }
            let Some(value) = msrs.read(entry.msr) else { return false };
            let place = GuestPhysAddr::new(address + VALUE_OFFSET);
            // What L1 may not write goes nowhere, as a write to an empty bus does.
            let _ = memory.write(place, &value.to_le_bytes());
            true
        })
    }

    /// Loads the MSRs of a VM exit. A failure is a VMX abort.
    pub(super) fn load_on_exit<M: GuestMemory + ?Sized>(
        self,
        memory: &M,
        msrs: &mut impl AreaMsrs,
    ) -> Result<(), Unusable> {
        self.load_on_entry(memory, msrs)
    }

    /// Returns the area of `vmcs12` that a VM entry loads.
    pub(super) fn of_entry(vmcs12: &impl Vmcs, capability: &Capability) -> Self {
        let fields = (vmcs::ENTRY_MSR_LOAD_ADDRESS, vmcs::ENTRY_MSR_LOAD_COUNT);
        Self::at(vmcs12, capability, fields)
    }

    /// Returns the area of `vmcs12` that a VM exit stores.
    pub(super) fn of_exit_store(vmcs12: &impl Vmcs, capability: &Capability) -> Self {
        let fields = (vmcs::EXIT_MSR_STORE_ADDRESS, vmcs::EXIT_MSR_STORE_COUNT);
        Self::at(vmcs12, capability, fields)
    }

    /// Returns the area of `vmcs12` that a VM exit loads.
    pub(super) fn of_exit_load(vmcs12: &impl Vmcs, capability: &Capability) -> Self {
        let fields = (vmcs::EXIT_MSR_LOAD_ADDRESS, vmcs::EXIT_MSR_LOAD_COUNT);
        Self::at(vmcs12, capability, fields)
    }

    fn at(
        vmcs12: &impl Vmcs,
        capability: &Capability,
        fields: (TrustedField<u64>, TrustedField<u32>),
    ) -> Self {
        Self {
            address: vmcs12.read(fields.0),
            count: vmcs12.read(fields.1),
            limit: VmxMisc(capability.misc).msr_area_entries(),
        }
    }

    fn each<M: GuestMemory + ?Sized>(
        self,
        memory: &M,
        mut act: impl FnMut(Entry, u64) -> bool,
    ) -> Result<(), Unusable> {
        for index in 0..self.count {
            let address = self.address.wrapping_add(u64::from(index) * ENTRY_BYTES);
            // The limit comes before the read: an entry too many touches no memory.
            let is_done =
                index < self.limit && Entry::read(memory, address).is_some_and(|entry| act(entry, address));
            if !is_done {
                return Err(Unusable { entry: index + 1 });
            }
        }
        Ok(())
    }
}

/// An entry of an area (SDM, "Format of an MSR Entry").
#[derive(Clone, Copy, Debug)]
struct Entry {
    msr: Msr,
    value: u64,
}

impl Entry {
    /// Returns the entry at `address`, unless its reserved half is not 0, which it is not where L1 has no memory.
    fn read<M: GuestMemory + ?Sized>(memory: &M, address: u64) -> Option<Self> {
        let mut bytes = [0; 16];
        memory.read(GuestPhysAddr::new(address), &mut bytes).ok()?;
        let [number, value] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        Some(Self { msr: Msr(u32::try_from(number).ok()?), value })
    }
}

/// Only the fields of a VMCS load the bases of FS and GS; only their own instruction, or system-management mode,
/// reaches the registers of the local APIC, of that mode, and those that load microcode.
const fn is_loadable(msr: Msr) -> bool {
    !matches!(
        msr,
        Msr::IA32_FS_BASE
            | Msr::IA32_GS_BASE
            | Msr::IA32_SMM_MONITOR_CTL
            | Msr::IA32_BIOS_UPDT_TRIG
            | Msr::IA32_BIOS_SIGN_ID
    ) && !is_x2apic(msr)
}

const fn is_storable(msr: Msr) -> bool {
    !is_x2apic(msr) && !matches!(msr, Msr::IA32_SMBASE)
}

const fn is_x2apic(msr: Msr) -> bool {
    msr.0 >> 8 == Msr::X2APIC_FIRST.0 >> 8
}

#[cfg(test)]
mod tests;
