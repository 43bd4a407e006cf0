//! Registers in PCI configuration space that keep their value, whatever the guest writes there.
//!
//! A chipset has a register, PMBASE by name, in its bridge to the old buses or in a function of its own, that says where
//! the power-management registers are. A guest that wrote another port there could put the machine to sleep unseen: the
//! firmware would wake it without the hypervisor. Another register, PCIEXBAR by name, in the host bridge, says where
//! configuration space lies in memory; moved, it would leave the pages behind that are guarded.
//!
//! No chipset is known here: whatever register holds such a base at the start is kept. All buses are looked through that
//! ports reach, as large machines have host bridges' registers on buses of their own; of a function without an answer
//! nothing is known. Reading configuration space changes nothing.

use arrayvec::ArrayVec;
use platform::handoff::EcamRange;

/// Most registers: a chipset has three or four, and a device that ignores the function's number shows each eight times.
pub const KEPT_REGISTERS: usize = 64;
/// Registers that every function has alike come before: a command register holds what may look like a base.
const FIRST_OWN_REGISTER: u8 = 0x10;
/// Behind the last register that ports reach, in steps of four bytes.
const LAST_REGISTER: u8 = 0xfc;
/// What else than the base a register of ports has: that it is one of ports, and that it is in force.
const PORT_FLAGS: u32 = 3;
/// What else the lower half of a base of configuration space has: how many buses, and that it is in force.
const MEMORY_FLAGS: u32 = 0xf;
/// What a function that is not there reads as.
const ABSENT: u32 = u32::MAX;

/// Configuration space, as far as ports reach it.
pub trait ConfigurationSpace {
    /// Reads the four bytes at `register`, a multiple of four, of `function`: bus, device, function.
    fn read(&self, function: u16, register: u8) -> u32;
}

/// Four bytes of configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRegister {
    /// Bus, device, function.
    pub function: u16,
    /// Offset of the first byte.
    pub register: u8,
}

/// There are more than [`KEPT_REGISTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The registers.
#[derive(Clone, Debug, Default)]
pub struct KeptRegisters {
    registers: ArrayVec<KeptRegister, KEPT_REGISTERS>,
}

impl KeptRegisters {
    /// Looks for registers that hold a base of ports for which `is_base` says so, or that of a range of `ecam`.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn find(
        space: &impl ConfigurationSpace,
        is_base: impl Fn(u16) -> bool,
        ecam: &[EcamRange],
    ) -> Result<Self, TooMany> {
        let mut kept = Self::default();
        for device in (0..=u16::MAX).step_by(8) {
            // On the first bus firmware hides single functions, the first one too; on others that is the device's.
            if device >> 8 != 0 && space.read(device, 0) == ABSENT {
                continue;
            }
            for function in (device..=device + 7).filter(|&function| space.read(function, 0) != ABSENT) {
                kept.find_in(&|register| space.read(function, register), function, &is_base, ecam)?;
            }
        }
        Ok(kept)
    }

    fn find_in(
        &mut self,
        read: &impl Fn(u8) -> u32,
        function: u16,
        is_base: &impl Fn(u16) -> bool,
        ecam: &[EcamRange],
    ) -> Result<(), TooMany> {
        for register in (FIRST_OWN_REGISTER..=LAST_REGISTER).step_by(4) {
            let held = read(register);
            let holds_ports = u16::try_from(held & !PORT_FLAGS).is_ok_and(is_base);
            let upper = || (register < LAST_REGISTER).then(|| read(register + 4));
            let of_ecam = ecam.iter().find_map(|range| halves_held(range.base, held, upper)).unwrap_or(0);
            if holds_ports || of_ecam > 0 {
                self.insert(KeptRegister { function, register })?;
            }
            if of_ecam > 1 {
                self.insert(KeptRegister { function, register: register + 4 })?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, register: KeptRegister) -> Result<(), TooMany> {
        if self.registers.contains(&register) {
            return Ok(());
        }
        self.registers.try_push(register).map_err(|_| TooMany)
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registers.is_empty()
    }

    /// Returns whether one of the `width` bytes at `offset` of `function` is kept.
    #[must_use]
    pub fn touches(&self, function: u16, offset: u16, width: u16) -> bool {
        self.registers.iter().any(|kept| {
            let start = u16::from(kept.register);
            kept.function == function && offset < start + 4 && start < offset.saturating_add(width)
        })
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = KeptRegister> {
        self.registers.iter().copied()
    }
}

/// Returns how many of two registers hold the halves of `base`: where the first holds the lower one, and `upper` is the second.
fn halves_held(base: u64, lower: u32, upper: impl Fn() -> Option<u32>) -> Option<usize> {
    let [low, high] = [base, base >> 32].map(|half| u32::try_from(half & 0xffff_ffff).unwrap_or(0));
    if base == 0 || lower & !MEMORY_FLAGS != low {
        return None;
    }
    match (low, upper() == Some(high)) {
        (_, true) => Some(2),
        // A register of nothing but flags is a base only with its other half.
        (0, false) => None,
        // A chipset that has configuration space below 4 GiB only has something else behind.
        (_, false) => Some(1),
    }
}

#[cfg(test)]
#[path = "kept_registers_tests.rs"]
mod tests;
