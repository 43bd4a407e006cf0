//! MTRRs: the guest reads and writes registers of its own, and second-level tables do what they say.
//!
//! The processor's MTRRs keep what the firmware wrote; they say nothing about guest memory (SDM, "Memory Type
//! Used for Translated Guest-Physical Addresses"). All CPUs share one set of tables, and an operating system
//! keeps the MTRRs of all CPUs equal, so the CPU that wrote last decides.

use hw::{GeneralProtection, Msrs};
use platform::mtrr_map::Mtrrs;
use x86::msr::Msr;
use x86::mtrr::{MemoryType, MtrrDefaultType};

/// VCNT, FIX and WC of IA32_MTRRCAP; what the guest does not have, system-management ranges, is left out.
const CAPABILITIES: u64 = 0xff | 1 << 8 | 1 << 10;

/// What a write did to memory types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing, or nothing yet.
    Unchanged,
    /// They may have changed: `SecondLevel::adopt_mtrrs` finds out where.
    Types,
}

/// One CPU's MTRRs as its guest sees them.
#[derive(Clone, Debug)]
pub struct VirtualMtrrs {
    registers: Mtrrs,
}

/// A register by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Capabilities,
    DefaultType,
    Fixed(usize),
    Base(usize),
    Mask(usize),
}

impl VirtualMtrrs {
    /// Returns the registers as the firmware left them in the executing processor.
    #[must_use]
    pub fn from_hardware(msrs: &impl Msrs, physical_address_bits: u8) -> Self {
        // A register that the processor does not have reads as disabled.
        let read = |msr| msrs.read(msr).unwrap_or(0);
        let mut registers = Mtrrs::of_processor(physical_address_bits, read);
        registers.capabilities.0 &= CAPABILITIES;
        Self { registers }
    }

    /// Accesses of `msr` come here, whether this processor has the register or not.
    // Asked of every MSR that exits: what cannot be one is told at once.
    #[inline]
    #[must_use]
    pub fn covers(msr: Msr) -> bool {
        matches!(msr, Msr::IA32_MTRRCAP | Msr(0x200..=0x2ff)) && decode(msr).is_some()
    }

    /// RDMSR.
    ///
    /// # Errors
    ///
    /// [`GeneralProtection`] where the processor has no such register.
    pub fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        Ok(match self.register(msr)? {
            Register::Capabilities => self.registers.capabilities.0,
            Register::DefaultType => self.registers.default_type.0,
            Register::Fixed(index) => self.registers.fixed[index],
            Register::Base(index) => self.registers.variable[index].base,
            Register::Mask(index) => self.registers.variable[index].mask,
        })
    }

    /// WRMSR.
    ///
    /// While MTRRs are disabled nothing takes effect: around an update every operating system disables them
    /// (SDM, "MTRR Considerations in MP Systems"), which makes all memory uncacheable for some microseconds,
    /// by the letter. Tables would be rewritten twice for it and the guest could not tell but by its speed,
    /// so they stay as they were when MTRRs were last enabled.
    ///
    /// # Errors
    ///
    /// [`GeneralProtection`] where the processor has no such register, or refuses the value: reserved bits,
    /// addresses beyond its width, reserved types.
    pub fn write(&mut self, msr: Msr, value: u64) -> Result<Effect, GeneralProtection> {
        let register = self.register(msr)?;
        if !self.is_accepted(register, value) {
            return Err(GeneralProtection);
        }
        let is_same = self.read(msr) == Ok(value);
        match register {
            Register::Capabilities => return Err(GeneralProtection),
            Register::DefaultType => self.registers.default_type = MtrrDefaultType(value),
            Register::Fixed(index) => self.registers.fixed[index] = value,
            Register::Base(index) => self.registers.variable[index].base = value,
            Register::Mask(index) => self.registers.variable[index].mask = value,
        }
        let is_effective = !is_same && self.registers.default_type.is_enabled();
        Ok(if is_effective { Effect::Types } else { Effect::Unchanged })
    }

    /// Returns all registers.
    #[must_use]
    pub const fn registers(&self) -> &Mtrrs {
        &self.registers
    }

    /// Returns the register `msr`, where this processor has it.
    fn register(&self, msr: Msr) -> Result<Register, GeneralProtection> {
        let capabilities = self.registers.capabilities;
        let register = decode(msr).ok_or(GeneralProtection)?;
        let exists = match register {
            Register::Capabilities | Register::DefaultType => true,
            Register::Fixed(_) => capabilities.has_fixed(),
            Register::Base(index) | Register::Mask(index) => index < capabilities.variable_count(),
        };
        exists.then_some(register).ok_or(GeneralProtection)
    }

    /// SDM, "MTRRs": the formats of the registers; setting a reserved bit or type is #GP.
    fn is_accepted(&self, register: Register, value: u64) -> bool {
        let type_byte = value.to_le_bytes()[0];
        let beyond_width = !0 << self.registers.physical_address_bits;
        match register {
            Register::Capabilities => false,
            Register::DefaultType => value & !self.default_type_bits() == 0 && self.is_type(type_byte),
            Register::Fixed(_) => value.to_le_bytes().into_iter().all(|byte| self.is_type(byte)),
            Register::Base(_) => value & (0xf00 | beyond_width) == 0 && self.is_type(type_byte),
            Register::Mask(_) => value & (0x7ff | beyond_width) == 0,
        }
    }

    fn default_type_bits(&self) -> u64 {
        let fixed = if self.registers.capabilities.has_fixed() { 0 } else { MtrrDefaultType::FIXED_ENABLE };
        MtrrDefaultType::DEFINED & !fixed
    }

    fn is_type(&self, encoding: u8) -> bool {
        match MemoryType::from_encoding(encoding) {
            Some(MemoryType::WriteCombining) => self.registers.capabilities.has_write_combining(),
            memory_type => memory_type.is_some(),
        }
    }
}

/// By number, as this is asked at every exit of RDMSR and WRMSR.
fn decode(msr: Msr) -> Option<Register> {
    let pair = (msr.0 as usize & 0xff) / 2;
    Some(match msr.0 {
        0xfe => Register::Capabilities,
        0x200..0x250 if msr.0.is_multiple_of(2) => Register::Base(pair),
        0x200..0x250 => Register::Mask(pair),
        0x250 => Register::Fixed(0),
        0x258 => Register::Fixed(1),
        0x259 => Register::Fixed(2),
        0x268..=0x26f => Register::Fixed(msr.0 as usize - 0x265),
        0x2ff => Register::DefaultType,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "mtrr_tests.rs"]
mod tests;
