//! MOV to memory, taken apart: the one instruction by which software writes configuration space in memory (PCI Firmware
//! Specification, "Memory Mapped Configuration Space Access"; SDM volume 2, "MOV—Move", "Instruction Format").
//!
//! Where the operand lies is none of its business: the exit says so.

use crate::vcpu::CodeSize;

/// No instruction is longer.
pub const LENGTH_LIMIT: usize = 15;

/// What a MOV stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The lower bytes of the general-purpose register of this encoding; 4 is RSP.
    Register(u8),
    /// Bits 15:8 of it: AH, CH, DH or BH.
    HighByte(u8),
    /// This, sign-extended.
    Immediate(u64),
}

/// A MOV to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovStore {
    /// Bytes stored: 1, 2, 4 or 8.
    pub width: u8,
    /// Bytes of the instruction.
    pub length: u8,
    /// What is stored.
    pub source: Source,
}

/// Why bytes are no MOV to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStore {
    /// The instruction goes on behind them.
    Incomplete,
    /// It is another instruction, or none.
    Other,
}

impl MovStore {
    /// Takes the instruction at the start of `bytes` apart, as code of this size has it.
    ///
    /// # Errors
    ///
    /// [`NoStore`].
    pub fn decode(bytes: &[u8], code: CodeSize) -> Result<Self, NoStore> {
        let bytes = &bytes[..bytes.len().min(LENGTH_LIMIT)];
        let is_whole = bytes.len() == LENGTH_LIMIT;
        Reader { bytes, at: 0 }.store(code).map_err(|error| if is_whole { NoStore::Other } else { error })
    }
}

/// Prefixes in front of an opcode.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    has_operand_size: bool,
    has_address_size: bool,
    /// The REX prefix right in front of the opcode; 0 where there is none.
    rex: u8,
}

impl Prefixes {
    const REX_W: u8 = 0x08;
    const REX_R: u8 = 0x04;

    /// Returns the bytes of an operand that is no byte.
    const fn width(self, code: CodeSize) -> u8 {
        if self.rex & Self::REX_W != 0 {
            return 8;
        }
        let is_16_bit = matches!(code, CodeSize::Bits16) != self.has_operand_size;
        if is_16_bit { 2 } else { 4 }
    }

    /// Returns the bytes of an address.
    const fn address_bytes(self, code: CodeSize) -> usize {
        match (code, self.has_address_size) {
            (CodeSize::Bits64, false) => 8,
            (CodeSize::Bits32, true) | (CodeSize::Bits16, false) => 2,
            _ => 4,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn store(mut self, code: CodeSize) -> Result<MovStore, NoStore> {
        let (prefixes, opcode) = self.prefixes(code)?;
        let width = if opcode & 1 == 0 { 1 } else { prefixes.width(code) };
        let address_bytes = prefixes.address_bytes(code);
        let source = match opcode {
            0x88 | 0x89 => {
                let register = self.memory_operand(address_bytes)?;
                let is_high = width == 1 && prefixes.rex == 0 && register >= 4;
                let extension = if prefixes.rex & Prefixes::REX_R == 0 { 0 } else { 8 };
                if is_high { Source::HighByte(register - 4) } else { Source::Register(register + extension) }
            }
            0xa2 | 0xa3 => {
                self.skip(address_bytes)?;
                Source::Register(0)
            }
            0xc6 | 0xc7 => {
                if self.memory_operand(address_bytes)? != 0 {
                    return Err(NoStore::Other);
                }
                Source::Immediate(self.immediate(width.min(4))?)
            }
            _ => return Err(NoStore::Other),
        };
        let length = u8::try_from(self.at).map_err(|_| NoStore::Other)?;
        Ok(MovStore { width, length, source })
    }

    /// Reads the prefixes that a MOV may have, and the opcode behind.
    fn prefixes(&mut self, code: CodeSize) -> Result<(Prefixes, u8), NoStore> {
        let mut prefixes = Prefixes::default();
        loop {
            let byte = self.byte()?;
            match byte {
                0x66 => prefixes.has_operand_size = true,
                0x67 => prefixes.has_address_size = true,
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
                0x40..=0x4f if code == CodeSize::Bits64 => {
                    prefixes.rex = byte;
                    continue;
                }
                _ => return Ok((prefixes, byte)),
            }
            // Only one right in front of the opcode counts.
            prefixes.rex = 0;
        }
    }

    /// Skips a ModR/M byte of an operand in memory, and what belongs to it; gives its register field.
    fn memory_operand(&mut self, address_bytes: usize) -> Result<u8, NoStore> {
        let byte = self.byte()?;
        let (mode, register, base) = (byte >> 6, byte >> 3 & 7, byte & 7);
        if mode == 3 {
            return Err(NoStore::Other);
        }
        let displacement = if address_bytes == 2 {
            match (mode, base) {
                (0, 6) | (2, _) => 2,
                (mode, _) => usize::from(mode),
            }
        } else {
            let base = if base == 4 { self.byte()? & 7 } else { base };
            match (mode, base) {
                (0, 5) | (2, _) => 4,
                (mode, _) => usize::from(mode),
            }
        };
        self.skip(displacement)?;
        Ok(register)
    }

    /// Reads an immediate operand of so many bytes, sign-extended.
    fn immediate(&mut self, bytes: u8) -> Result<u64, NoStore> {
        let start = self.at;
        self.skip(bytes.into())?;
        let mut value = [0; 8];
        for (byte, from) in value.iter_mut().zip(&self.bytes[start..self.at]) {
            *byte = *from;
        }
        let unused = 64 - 8 * u32::from(bytes);
        Ok((i64::from_le_bytes(value) << unused >> unused).cast_unsigned())
    }

    fn byte(&mut self) -> Result<u8, NoStore> {
        let byte = *self.bytes.get(self.at).ok_or(NoStore::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), NoStore> {
        self.at += bytes;
        if self.at <= self.bytes.len() { Ok(()) } else { Err(NoStore::Incomplete) }
    }
}

#[cfg(test)]
#[path = "mov_store_tests.rs"]
mod tests;
