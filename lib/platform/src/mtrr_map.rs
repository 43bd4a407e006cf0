//! The memory type of every physical address, from one processor's MTRRs.
//!
//! [`Mtrrs`] are the registers and know the type of one address; [`TypeMap`] is the sorted list of ranges that
//! they make. Masks with holes, which a guest may set, can make more ranges than any list could hold: then the
//! map goes on asking the registers.

use arrayvec::ArrayVec;
use x86::msr::Msr;
use x86::mtrr::{FIXED, FIXED_END, MemoryType, MtrrCapabilities, MtrrDefaultType, VariableMtrr, fixed_slot};

/// Most variable-range pairs that can exist: more would run into the numbers of the fixed-range registers.
pub const VARIABLE_CAPACITY: usize = 40;
/// Most ranges that [`TypeMap::changes`] tells apart.
pub const CHANGES_CAPACITY: usize = 16;

/// Most ranges in a list: without holes in masks, each fixed range and each end of a variable range makes one.
const LIST_CAPACITY: usize = 8 * FIXED.len() + 2 * VARIABLE_CAPACITY + 2;
/// Low bits of a list's entry, which hold the type; the others are the address where it begins.
const TYPE_MASK: u64 = 0xfff;

/// One processor's memory type range registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtrrs {
    /// IA32_MTRRCAP.
    pub capabilities: MtrrCapabilities,
    /// IA32_MTRR_DEF_TYPE.
    pub default_type: MtrrDefaultType,
    /// The fixed-range registers, in the order of [`FIXED`].
    pub fixed: [u64; FIXED.len()],
    /// The variable-range registers; those past the processor's number are zero.
    pub variable: [VariableMtrr; VARIABLE_CAPACITY],
    /// MAXPHYADDR, at most 52.
    pub physical_address_bits: u8,
}

/// Adjoining addresses of one memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeRun {
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
    /// The type.
    pub memory_type: MemoryType,
}

/// Ranges in which the type differs: sorted, apart, each by its first address and the one behind it.
pub type Changes = ArrayVec<(u64, u64), CHANGES_CAPACITY>;

impl Mtrrs {
    /// Registers as after power-up: all disabled, all memory uncacheable.
    #[must_use]
    pub const fn disabled(physical_address_bits: u8) -> Self {
        Self {
            capabilities: MtrrCapabilities(0),
            default_type: MtrrDefaultType(0),
            fixed: [0; FIXED.len()],
            variable: [VariableMtrr { base: 0, mask: 0 }; VARIABLE_CAPACITY],
            physical_address_bits,
        }
    }

    /// Returns the registers of a processor with so many bits of physical address, as `read` gives them: 0 for one that
    /// the processor does not have.
    #[must_use]
    pub fn of_processor(physical_address_bits: u8, read: impl Fn(Msr) -> u64) -> Self {
        let mut registers = Self::disabled(physical_address_bits);
        registers.capabilities = MtrrCapabilities(read(Msr::IA32_MTRRCAP));
        registers.default_type = MtrrDefaultType(read(Msr::IA32_MTRR_DEF_TYPE));
        if registers.capabilities.has_fixed() {
            registers.fixed = FIXED.map(|register| read(register.msr));
        }
        let count = registers.capabilities.variable_count();
        for (pair, msr) in registers.variable.iter_mut().take(count).zip((0x200..).step_by(2)) {
            *pair = VariableMtrr { base: read(Msr(msr)), mask: read(Msr(msr + 1)) };
        }
        registers
    }

    /// Returns the memory type of `address`.
    #[must_use]
    pub fn type_at(&self, address: u64) -> MemoryType {
        self.single_run(address).memory_type
    }

    /// Returns the run of `address` that one register, or the absence of any, decides.
    fn single_run(&self, address: u64) -> TypeRun {
        let limit = 1 << self.physical_address_bits;
        if address >= limit {
            return TypeRun { start: limit, end: u64::MAX, memory_type: MemoryType::Uncacheable };
        }
        if !self.default_type.is_enabled() {
            return TypeRun { start: 0, end: limit, memory_type: MemoryType::Uncacheable };
        }
        if !self.default_type.is_fixed_enabled() {
            return self.variable_run(address, 0, limit);
        }
        match fixed_slot(address) {
            Some((index, byte)) => self.fixed_run(index, byte),
            None => self.variable_run(address, FIXED_END, limit),
        }
    }

    fn fixed_run(&self, index: usize, byte: usize) -> TypeRun {
        let granule = FIXED[index].granule;
        let start = FIXED[index].start + byte as u64 * granule;
        let memory_type = decode(self.fixed[index].to_le_bytes()[byte]);
        TypeRun { start, end: start + granule, memory_type }
    }

    fn variable_run(&self, address: u64, start: u64, end: u64) -> TypeRun {
        let limit = 1 << self.physical_address_bits;
        let count = self.capabilities.variable_count().min(VARIABLE_CAPACITY);
        let (mut start, mut end) = (start, end);
        let mut memory_type = None;
        for register in self.variable[..count].iter().filter(|r| r.is_valid()) {
            let mask = register.address_mask(self.physical_address_bits);
            // A mask of no bits matches every address.
            let granule = if mask == 0 { limit } else { mask & mask.wrapping_neg() };
            let base = register.base & mask;
            let is_match = address & mask == base;
            if is_match {
                memory_type = Some(overlap(memory_type, decode(register.type_encoding())));
            }
            // Without holes the mask describes one range; with holes, what is known is the piece around the
            // address in which all addresses agree in the bits that count.
            let has_holes = mask != limit - granule;
            if has_holes || is_match {
                let piece = address & !(granule - 1);
                start = start.max(piece);
                end = end.min(piece + granule);
            } else if address < base {
                end = end.min(base);
            } else {
                start = start.max(base + granule);
            }
        }
        let memory_type = memory_type.unwrap_or_else(|| decode(self.default_type.type_encoding()));
        TypeRun { start, end, memory_type }
    }
}

/// The memory type of every physical address.
#[derive(Clone, Debug)]
pub struct TypeMap {
    mtrrs: Mtrrs,
    /// Sorted; empty where the ranges are too many.
    list: ArrayVec<u64, LIST_CAPACITY>,
}

impl TypeMap {
    /// Returns the map of [`Mtrrs::disabled`].
    #[must_use]
    pub const fn disabled(physical_address_bits: u8) -> Self {
        Self { mtrrs: Mtrrs::disabled(physical_address_bits), list: ArrayVec::new_const() }
    }

    /// Returns the first run in `[start, end)` of another type than `memory_type`.
    #[must_use]
    pub fn first_unlike(&self, memory_type: MemoryType, start: u64, end: u64) -> Option<TypeRun> {
        let mut at = start;
        while at < end {
            let run = self.run_at(at);
            if run.memory_type != memory_type {
                return Some(run);
            }
            at = run.end;
        }
        None
    }

    /// Takes the types from `mtrrs` from now on.
    pub fn set(&mut self, mtrrs: &Mtrrs) {
        self.mtrrs.clone_from(mtrrs);
        self.list.clear();
        let limit = 1 << mtrrs.physical_address_bits;
        let mut at = 0;
        for _ in 0..LIST_CAPACITY {
            let run = mtrrs.single_run(at);
            if self.list.last().is_none_or(|&last| decode_entry(last) != run.memory_type) {
                self.list.push(at | run.memory_type as u64);
            }
            if run.end >= limit {
                return;
            }
            at = run.end;
        }
        self.list.clear();
    }

    /// Returns the run around `address`, as long as it is unless masks with holes make too many.
    ///
    /// It never reaches past the end of physical address space; what lies behind that is uncacheable.
    #[must_use]
    pub fn run_at(&self, address: u64) -> TypeRun {
        let limit = 1 << self.mtrrs.physical_address_bits;
        let behind = self.list.partition_point(|&entry| entry & !TYPE_MASK <= address);
        match behind.checked_sub(1).and_then(|last| self.list.get(last)) {
            Some(&entry) if address < limit => TypeRun {
                start: entry & !TYPE_MASK,
                end: self.list.get(behind).map_or(limit, |next| next & !TYPE_MASK),
                memory_type: decode_entry(entry),
            },
            _ => self.mtrrs.single_run(address),
        }
    }

    /// Returns where the memory type differs between `self` and `new`, both of one processor model, and nowhere else;
    /// `None` where that is too much to tell apart.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Option<Changes> {
        let limit = 1 << self.mtrrs.physical_address_bits;
        let mut ranges = Changes::new();
        let mut at = 0;
        for _ in 0..2 * LIST_CAPACITY {
            let (before, after) = (self.run_at(at), new.run_at(at));
            let end = before.end.min(after.end);
            if before.memory_type != after.memory_type {
                let adjoining = if ranges.last().is_some_and(|r| r.1 == at) { ranges.pop() } else { None };
                let start = adjoining.map_or(at, |r| r.0);
                ranges.try_push((start, end)).ok()?;
            }
            if end >= limit {
                return Some(ranges);
            }
            at = end;
        }
        None
    }
}

fn decode_entry(entry: u64) -> MemoryType {
    decode(entry.to_le_bytes()[0])
}

/// Returns the type where ranges overlap (SDM, "MTRR Precedences"): what the manual leaves undefined is uncacheable,
/// which is always correct.
fn overlap(first: Option<MemoryType>, second: MemoryType) -> MemoryType {
    match (first, second) {
        (None, _) => second,
        (Some(first), _) if first == second => second,
        (Some(MemoryType::WriteBack), MemoryType::WriteThrough)
        | (Some(MemoryType::WriteThrough), MemoryType::WriteBack) => MemoryType::WriteThrough,
        _ => MemoryType::Uncacheable,
    }
}

/// Returns the type of an encoding. The registers refuse reserved ones, so none is found in them.
fn decode(encoding: u8) -> MemoryType {
    MemoryType::from_encoding(encoding).unwrap_or(MemoryType::Uncacheable)
}

#[cfg(test)]
#[path = "mtrr_map_tests.rs"]
mod tests;
