//! The machine, as traits: the only way by which the hypervisor reaches hardware.
//!
//! Decisions take `&impl Trait`, so they run in a host test over `sim`; the images pass the types of
//! `bare`, where all inline assembly lives, one instruction family a file. On a host `host` goes by that name, so that
//! the images' own code runs in tests too.
#![cfg_attr(target_os = "none", no_std)]

use raw_cpuid::{CpuId, CpuIdReader, CpuIdResult};
use x86::address::HostPhysAddr;
use x86::cpuid::CpuidResult;
use x86::msr::{GuestMsr, Msr};
use x86::vmx::vmcs::{Field, FieldValue, TrustedField};

pub mod apic;
#[cfg(target_os = "none")]
pub mod bare;
pub mod exception_table;
#[cfg(not(target_os = "none"))]
pub mod host;
#[cfg(not(target_os = "none"))]
pub mod sim;
pub mod topology;

/// On a host threads stand for processors.
#[cfg(not(target_os = "none"))]
pub use host as bare;

/// The instruction raised #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// Nothing is mapped at the address, or not for this access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmapped;

/// CPUID.
pub trait Cpuid {
    /// Executes CPUID with EAX = `leaf` and ECX = `subleaf`.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult;

    /// Returns what the processor says of itself, by name; it asks for no leaf that the processor lacks.
    fn identify(&self) -> CpuId<impl CpuIdReader>
    where
        Self: Sized,
    {
        CpuId::with_cpuid_reader(|leaf, subleaf| {
            let CpuidResult { eax, ebx, ecx, edx } = self.cpuid(leaf, subleaf);
            CpuIdResult { eax, ebx, ecx, edx }
        })
    }
}

/// Model-specific registers.
pub trait Msrs {
    /// Reads `msr`.
    ///
    /// # Errors
    ///
    /// [`GeneralProtection`] where the processor has no such register.
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection>;

    /// Writes a register that may hold anything.
    ///
    /// # Errors
    ///
    /// [`GeneralProtection`] where the processor has no such register or refuses the value.
    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection>;

    /// Writes any register.
    ///
    /// # Errors
    ///
    /// As for [`Self::write`].
    ///
    /// # Safety
    ///
    /// With `value` the register changes neither how the code that runs translates addresses and finds its data, nor
    /// what the processor reads or writes past any page table: the local APIC's page lies over no memory, and nothing
    /// is traced or recorded into memory while the hypervisor runs.
    // UNSAFETY: what is written through it makes the processor act on the hypervisor.
    #[expect(unsafe_code, reason = "the processor acts on the hypervisor by some registers")]
    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection>;
}

/// Extended control registers.
pub trait Xcrs {
    /// Executes XSETBV.
    ///
    /// # Errors
    ///
    /// [`GeneralProtection`] where the processor refuses index or value.
    fn xsetbv(&self, index: u32, value: u64) -> Result<(), GeneralProtection>;
}

/// Caches of the processor that executes this code.
pub trait Caches {
    /// Executes WBINVD.
    fn write_back_and_invalidate(&self);
}

/// What keeps later speculation of the processor that executes this code from what came before.
pub trait Barriers {
    /// Fills the return stack buffer with returns that lead nowhere, and lets no later instruction begin before.
    fn fill_return_stack(&self);
    /// Executes VERW, which overwrites the buffers that loads and stores leave data in, where the processor says so.
    fn overwrite_buffers(&self);
}

/// Size of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortWidth {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
}

/// I/O ports.
pub trait Ports {
    /// IN; the value is zero-extended.
    fn read(&self, port: u16, width: PortWidth) -> u32;
    /// OUT; bits above the width are ignored.
    fn write(&self, port: u16, width: PortWidth, value: u32);
}

/// The registers of a processor's local APIC, by their offsets in its page (SDM, "The Local APIC Block Diagram").
pub trait ApicRegisters {
    /// Reads a register; 0 where the APIC, or its present mode, has none.
    fn read(&self, offset: u16) -> u32;
    /// Writes a register; without effect where the APIC, or its present mode, has none.
    fn write(&self, offset: u16, value: u32);
}

/// Physical memory, by copies: no reference into a guest's memory is ever made.
pub trait PhysMemory {
    /// Copies `bytes.len()` bytes at `address` out.
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]);
    /// Copies `bytes` to `address`.
    fn write(&self, address: HostPhysAddr, bytes: &[u8]);

    /// Reads a little-endian 64-bit word; `address` is 8-byte aligned and the read is atomic.
    fn read_u64(&self, address: HostPhysAddr) -> u64;
    /// Writes a little-endian 64-bit word; `address` is 8-byte aligned and the write is atomic.
    fn write_u64(&self, address: HostPhysAddr, value: u64);
}

/// A VMCS: the current one of this CPU, one kept in memory for a nested hypervisor, or a fake.
pub trait Vmcs {
    /// Reads a field that this processor has.
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T;
    /// Writes a field that this processor has, and that is the guest's own matter.
    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T);
    /// Writes a field that this processor has, and by which it acts on the hypervisor.
    ///
    /// # Safety
    ///
    /// With `value` every entry under this VMCS stays sound:
    ///
    /// 1. Exits run the hypervisor's own code in its own address space, on a stack of this CPU's own.
    /// 2. Guest-physical addresses are translated, by tables that give the guest no memory of the hypervisor's.
    /// 3. What the processor reads or writes by the addresses in this VMCS is not used for anything else meanwhile.
    /// 4. The guest writes no MSR and no port by which it could change any of this.
    // UNSAFETY: what is written through it makes the processor act on the hypervisor.
    #[expect(unsafe_code, reason = "the processor acts on the hypervisor by the field")]
    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T);
}

/// A VMCS under which no guest is entered: one kept in memory for a nested hypervisor, a shadow, or a fake. Any of its
/// fields may hold anything.
pub trait VmcsData: Vmcs {
    /// Writes a field that this processor has.
    fn set<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>, value: T);
}
