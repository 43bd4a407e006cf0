//! Parameters on their way into a PAL and out of it.

use crate::layout::{Layout, Section};
use crate::machine::{Inaccessible, Pages, Process, Use};
use arrayvec::ArrayVec;
use trustvisor::call::{Failure, PARAMETER_HEADER_BYTES, SENTINEL};
use trustvisor::parameter::{self, ParameterType, WordSize};
use trustvisor::section::SectionType;

/// Parameters that a 64-bit call passes in registers: RDI, RSI, RDX, RCX, R8, R9 (System V ABI, "Parameter
/// Passing").
pub const REGISTERS: usize = 6;

/// Words that fit in a parameter list.
pub type Words = ArrayVec<u64, { parameter::CAPACITY }>;

/// Bytes of what pointers name that are copied at a time: what a processor does without an interrupt.
pub const STEP_BYTES: u64 = 4 << 10;

const CHUNK: usize = 512;

/// What a caller passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Where the call returns to.
    pub return_address: u64,
    /// The parameters, in order.
    pub values: Words,
}

/// How a PAL starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The registers of parameters; zero in 32-bit mode.
    pub registers: [u64; REGISTERS],
    /// Stack pointer.
    pub stack_pointer: u64,
}

impl Arguments {
    /// Reads what a call of `layout` passed, with `registers` and the stack at `stack_pointer`.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`]: the stack.
    pub fn read(
        process: &impl Process,
        layout: &Layout,
        registers: &[u64; REGISTERS],
        stack_pointer: u64,
    ) -> Result<Self, Inaccessible> {
        let count = layout.parameters.len();
        let in_registers = registers_used(layout.word, count);
        let mut values: Words = registers[..in_registers].iter().copied().collect();
        let word = word_bytes(layout.word);
        // The return address too: in 64-bit mode some parameters are in registers.
        let mut bytes = [0; 8 * parameter::CAPACITY];
        let bytes = &mut bytes[..word * (1 + count - in_registers)];
        process.read(stack_pointer, bytes)?;
        let mut words = bytes.chunks(word).map(from_bytes);
        let return_address = words.next().unwrap_or_default();
        values.extend(words);
        Ok(Self { return_address, values })
    }

    /// Puts the parameters where the PAL finds them, and its return address on its stack. Of what pointers name, all
    /// bytes counted together, it takes [`STEP_BYTES`] from the one with the number `from` on; `None` where there are
    /// more.
    ///
    /// # Errors
    ///
    /// [`Failure::BAD_POINTER`]; nothing of the process has changed.
    pub fn carry_in(
        &self,
        process: &impl Process,
        memory: &impl Pages,
        layout: &Layout,
        from: u64,
    ) -> Result<Option<Start>, Failure> {
        let mut passed = self.values.clone();
        if let Some(room) = layout.section(SectionType::Parameters)
            && self.fill_section(process, memory, layout, (room, from), &mut passed)?
        {
            return Ok(None);
        }
        let in_registers = registers_used(layout.word, passed.len());
        let mut start = Start::default();
        start.registers[..in_registers].copy_from_slice(&passed[..in_registers]);
        let stack = layout.section(SectionType::Stack).map_or(0, Section::end);
        start.stack_pointer = fill_stack(memory, layout, stack, &passed[in_registers..]);
        Ok(Some(start))
    }

    /// Copies what pointers name back to the process, as [`Self::carry_in`] takes it; false where there are more.
    ///
    /// # Errors
    ///
    /// [`Failure::BAD_OUTPUT`]; other parameters may have been copied.
    pub fn carry_out(
        &self,
        process: &impl Process,
        memory: &impl Pages,
        layout: &Layout,
        from: u64,
    ) -> Result<bool, Failure> {
        let Some(room) = layout.section(SectionType::Parameters) else { return Ok(true) };
        let word = layout.word.bytes();
        let mut step = Step::new(from);
        let mut at = room.start + PARAMETER_HEADER_BYTES;
        for (parameter, &value) in layout.parameters.iter().zip(&self.values) {
            at += 3 * word;
            if parameter.kind == ParameterType::Pointer {
                let length = parameter.words * word;
                let (skipped, count) = step.part(length);
                let to = value.checked_add(skipped).ok_or(Failure::BAD_OUTPUT)?;
                copy_out(process, memory, layout, at + skipped, to, count)?;
                at += length;
            }
        }
        Ok(!step.has_more())
    }

    /// Returns whether there is more.
    fn fill_section(
        &self,
        process: &impl Process,
        memory: &impl Pages,
        layout: &Layout,
        (room, from): (&Section, u64),
        passed: &mut Words,
    ) -> Result<bool, Failure> {
        let word = layout.word.bytes();
        let mut step = Step::new(from);
        let mut writer = Writer { memory, layout, at: room.start, chunk: ArrayVec::new() };
        writer.word(layout.parameters.len() as u64);
        writer.flush();
        writer.at = room.start + PARAMETER_HEADER_BYTES;
        for ((parameter, &value), passed) in layout.parameters.iter().zip(&self.values).zip(passed) {
            for field in [parameter.kind as u64, parameter.words, value] {
                writer.word(field);
            }
            if parameter.kind == ParameterType::Pointer {
                writer.flush();
                *passed = writer.at;
                let length = parameter.words * word;
                let (skipped, count) = step.part(length);
                let from = value.checked_add(skipped).ok_or(Failure::BAD_POINTER)?;
                writer.at += skipped;
                copy_in(process, &mut writer, from, count).map_err(|Inaccessible| Failure::BAD_POINTER)?;
                if skipped + count < length {
                    writer.flush();
                    writer.at += length - skipped - count;
                }
            }
        }
        writer.flush();
        Ok(step.has_more())
    }
}

/// Which bytes of what pointers name a step copies, where all are counted together.
struct Step {
    from: u64,
    /// Bytes of the parameters so far.
    position: u64,
}

impl Step {
    const fn new(from: u64) -> Self {
        Self { from, position: 0 }
    }

    /// Of the next parameter, of `length` bytes: how many are skipped, and how many copied.
    fn part(&mut self, length: u64) -> (u64, u64) {
        let start = self.position;
        self.position += length;
        let skipped = self.from.saturating_sub(start).min(length);
        let end = (self.from + STEP_BYTES).saturating_sub(start).min(length);
        (skipped, end - skipped)
    }

    const fn has_more(&self) -> bool {
        self.position > self.from + STEP_BYTES
    }
}

/// Returns the number of parameters in registers.
fn registers_used(word: WordSize, count: usize) -> usize {
    match word {
        WordSize::Bits32 => 0,
        WordSize::Bits64 => count.min(REGISTERS),
    }
}

/// Puts the sentinel and the parameters behind it below `top`; the stack pointer is 16-byte aligned as in front
/// of a call (System V ABI, "The Stack Frame").
fn fill_stack(memory: &impl Pages, layout: &Layout, top: u64, values: &[u64]) -> u64 {
    let word = layout.word.bytes();
    let parameters = (top - word * values.len() as u64) & !0xf;
    let mut writer = Writer { memory, layout, at: parameters - word, chunk: ArrayVec::new() };
    let start = writer.at;
    writer.word(SENTINEL);
    for &value in values {
        writer.word(value);
    }
    writer.flush();
    start
}

fn copy_in<P: Pages>(
    process: &impl Process,
    writer: &mut Writer<'_, P>,
    address: u64,
    length: u64,
) -> Result<(), Inaccessible> {
    let mut bytes = [0; CHUNK];
    for (at, count) in chunks(address, length)? {
        let bytes = &mut bytes[..count];
        // What comes back has to have somewhere to go.
        if at == address || at % crate::layout::PAGE < CHUNK as u64 {
            process.page(at, Use::Write)?;
        }
        process.read(at, bytes)?;
        writer.bytes(bytes);
    }
    if length != 0 {
        process.page(address + length - 1, Use::Write)?;
    }
    Ok(())
}

fn copy_out(
    process: &impl Process,
    memory: &impl Pages,
    layout: &Layout,
    from: u64,
    to: u64,
    length: u64,
) -> Result<(), Failure> {
    let mut bytes = [0; CHUNK];
    for (at, count) in chunks(to, length).map_err(|Inaccessible| Failure::BAD_OUTPUT)? {
        let chunk = &mut bytes[..count];
        let read = layout.pieces(from + (at - to), count, false, |physical, offset, length| {
            memory.read(physical, &mut chunk[offset..offset + length]);
        });
        read.and_then(|()| process.write(at, chunk)).map_err(|Inaccessible| Failure::BAD_OUTPUT)?;
    }
    Ok(())
}

/// `[address, address + length)` in chunks.
fn chunks(address: u64, length: u64) -> Result<impl Iterator<Item = (u64, usize)>, Inaccessible> {
    address.checked_add(length).ok_or(Inaccessible)?;
    Ok((0..length).step_by(CHUNK).map(move |offset| {
        let count = usize::try_from(length - offset).unwrap_or(CHUNK).min(CHUNK);
        (address + offset, count)
    }))
}

/// Writes to a PAL's memory, little by little, to where the layout was checked to have room.
struct Writer<'a, P> {
    memory: &'a P,
    layout: &'a Layout,
    at: u64,
    chunk: ArrayVec<u8, CHUNK>,
}

impl<P: Pages> Writer<'_, P> {
    #[expect(clippy::cast_possible_truncation, reason = "a word of 32 bits has no more")]
    fn word(&mut self, value: u64) {
        // Of lengths that the compiler knows: words are most of what is written.
        let written = match self.layout.word {
            WordSize::Bits32 => self.chunk.try_extend_from_slice(&(value as u32).to_le_bytes()),
            WordSize::Bits64 => self.chunk.try_extend_from_slice(&value.to_le_bytes()),
        };
        if written.is_err() {
            self.bytes(&value.to_le_bytes()[..word_bytes(self.layout.word)]);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.chunk.try_extend_from_slice(bytes).is_err() {
            self.flush();
            // A chunk holds whatever is written at once.
            let _ = self.chunk.try_extend_from_slice(bytes);
        }
    }

    fn flush(&mut self) {
        let (layout, memory, chunk) = (self.layout, self.memory, &self.chunk);
        let written = layout.pieces(self.at, chunk.len(), true, |physical, offset, length| {
            memory.write(physical, &chunk[offset..offset + length]);
        });
        debug_assert!(written.is_ok(), "the registration checked the room");
        self.at += self.chunk.len() as u64;
        self.chunk.clear();
    }
}

fn word_bytes(word: WordSize) -> usize {
    match word {
        WordSize::Bits32 => 4,
        WordSize::Bits64 => 8,
    }
}

fn from_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
#[path = "marshal_tests.rs"]
mod tests;
