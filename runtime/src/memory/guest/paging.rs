//! The guest's paging mode and what its entries mean (SDM, "Paging Modes and Control Bits").

use super::{GuestMemory, Refused};
use crate::vcpu::Vcpu;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::event::Event;
use x86::paging::PageFlags;

/// Returns whether `entry` has `flag`.
pub(super) const fn has(entry: u64, flag: PageFlags) -> bool {
    entry & flag.bits() != 0
}

/// How a guest's processor translates linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Paging is off: linear addresses are physical.
    Off,
    /// Two levels of 32-bit entries.
    Bits32,
    /// Four PDPTE registers, then two levels of 64-bit entries.
    Pae,
    /// Four or five levels of 64-bit entries.
    Long {
        /// Number of levels.
        levels: u8,
    },
}

/// The paging state of a guest's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    pub(super) mode: Mode,
    pub(super) cr0: Cr0,
    pub(super) cr3: u64,
    pub(super) cr4: Cr4,
    pub(super) efer: Efer,
    pub(super) pdptes: [u64; 4],
    pub(super) is_alignment_check_set: bool,
    pub(super) pkru: u32,
    pub(super) pkrs: u32,
    physical_address_bits: u8,
    has_1gib_pages: bool,
}

impl Paging {
    /// Returns the paging state of `vcpu`.
    pub fn of<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(vcpu: &V, memory: &M) -> Self {
        let (cr0, cr4, efer) = (vcpu.cr0(), vcpu.cr4(), vcpu.efer());
        let mode = mode(cr0, cr4, efer);
        Self {
            mode,
            cr0,
            cr3: vcpu.cr3(),
            cr4,
            efer,
            pdptes: if mode == Mode::Pae { vcpu.pdptes() } else { [0; 4] },
            is_alignment_check_set: vcpu.rflags().contains(Rflags::AC),
            pkru: if cr4.contains(Cr4::PKE) { vcpu.pkru() } else { 0 },
            pkrs: if cr4.contains(Cr4::PKS) { vcpu.pkrs() } else { 0 },
            physical_address_bits: memory.physical_address_bits(),
            has_1gib_pages: memory.has_1gib_pages(),
        }
    }

    /// The linear address `bytes` behind `address`: outside IA-32e mode the last byte of 4 GiB is followed by
    /// the first.
    pub(super) fn step(&self, address: GuestLinearAddr, bytes: usize) -> GuestLinearAddr {
        let sum = address.get().wrapping_add(bytes as u64);
        GuestLinearAddr::new(if self.efer.contains(Efer::LMA) { sum } else { sum & 0xffff_ffff })
    }

    /// Returns whether execute-disable means anything.
    pub(super) fn has_execute_disable(&self) -> bool {
        self.efer.contains(Efer::NXE) && matches!(self.mode, Mode::Pae | Mode::Long { .. })
    }

    /// Returns whether an entry of `level` (1 is the page table) that is present maps a page.
    pub(super) fn is_leaf(&self, entry: u64, level: u8) -> bool {
        level == 1
            || has(entry, PageFlags::PS)
                && match (self.mode, level) {
                    (Mode::Bits32, 2) => self.cr4.contains(Cr4::PSE),
                    (_, 2) => true,
                    (Mode::Long { .. }, 3) => self.has_1gib_pages,
                    _ => false,
                }
    }

    /// Returns the bits that a present entry of `level` must not have (SDM, "Page-Fault Exceptions", reserved bits).
    pub(super) fn reserved(&self, entry: u64, level: u8) -> u64 {
        if self.mode == Mode::Bits32 {
            let width = self.physical_address_bits.min(40);
            // A 4 MiB page has address bits 39:32 in bits 20:13; those beyond the width are reserved.
            return if self.is_leaf(entry, level) && level == 2 { bits(width - 19, 22) } else { 0 };
        }
        let execute_disable = if self.has_execute_disable() { 0 } else { PageFlags::XD.bits() };
        let high = bits(self.physical_address_bits, if self.mode == Mode::Pae { 63 } else { 52 });
        let low = match level {
            1 => 0,
            _ if self.is_leaf(entry, level) => bits(13, level_shift(level)),
            _ => entry & PageFlags::PS.bits(),
        };
        execute_disable | high | low
    }

    /// Address of the page or table that a present entry names.
    pub(super) fn address(&self, entry: u64, level: u8) -> u64 {
        if !self.is_leaf(entry, level) || level == 1 {
            return entry & bits(12, 52);
        }
        if self.mode == Mode::Bits32 {
            return entry & bits(22, 32) | (entry >> 13 & 0xff) << 32;
        }
        entry & bits(level_shift(level), 52)
    }

    /// Bit of the linear address at which the index of `level` begins.
    pub(super) fn index_shift(&self, level: u8) -> u8 {
        if self.mode == Mode::Bits32 { 2 + 10 * level } else { level_shift(level) }
    }
}

/// A present PDPTE has reserved bits: what loads the registers raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdpteError {
    /// Reserved bits are set.
    Reserved,
    /// The table is not in the guest's memory.
    Refused,
}

/// Both are answered with #GP(0).
impl From<PdpteError> for Event {
    fn from(_: PdpteError) -> Self {
        Self::GP0
    }
}

/// Reads the four PDPTEs that `cr3` names, for the registers (SDM, "PDPTE Registers").
///
/// # Errors
///
/// [`PdpteError`] where the processor would raise #GP(0) instead of loading them.
pub fn load_pdptes<M: GuestMemory + ?Sized>(memory: &M, cr3: u64) -> Result<[u64; 4], PdpteError> {
    let mut bytes = [0; 32];
    let table = GuestPhysAddr::new(cr3 & 0xffff_ffe0);
    memory.read(table, &mut bytes).map_err(|Refused| PdpteError::Refused)?;
    let mut pdptes = [0; 4];
    for (pdpte, word) in pdptes.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *pdpte = u64::from_le_bytes(*word);
    }
    let is_valid = |&pdpte: &u64| is_pdpte_valid(pdpte, memory.physical_address_bits());
    if pdptes.iter().all(is_valid) { Ok(pdptes) } else { Err(PdpteError::Reserved) }
}

/// Returns whether a PDPTE register takes `pdpte`, with physical addresses of `physical_address_bits`.
#[must_use]
pub fn is_pdpte_valid(pdpte: u64, physical_address_bits: u8) -> bool {
    let reserved = bits(1, 3) | bits(5, 9) | bits(physical_address_bits, 64);
    !has(pdpte, PageFlags::P) || pdpte & reserved == 0
}

fn mode(cr0: Cr0, cr4: Cr4, efer: Efer) -> Mode {
    if !cr0.contains(Cr0::PG) {
        Mode::Off
    } else if efer.contains(Efer::LMA) {
        Mode::Long { levels: if cr4.contains(Cr4::LA57) { 5 } else { 4 } }
    } else if cr4.contains(Cr4::PAE) {
        Mode::Pae
    } else {
        Mode::Bits32
    }
}

/// Bit of the linear address at which the index of `level` begins, with 64-bit entries.
fn level_shift(level: u8) -> u8 {
    3 + 9 * level
}

/// Returns the bits `from` (included) to `to` (excluded).
pub(super) fn bits(from: u8, to: u8) -> u64 {
    let below = |bit: u8| if bit >= 64 { u64::MAX } else { (1 << bit) - 1 };
    below(to) & !below(from)
}
