//! The task state as a TSS holds it (SDM, "32-Bit Task-State Segment (TSS)"; "16-Bit Task-State Segment
//! (TSS)").

use super::TaskSwitchSource;
use crate::vcpu::Vcpu;
use core::ops::Range;
use x86::cr::Rflags;
use x86::segment::{AccessRights, SegmentRegister};

/// Bytes of the larger format.
pub(super) const MOST_BYTES: usize = 104;
/// Index of the stack pointer among the general-purpose registers.
pub(super) const STACK_POINTER: usize = 4;
/// Flags that exist.
const FLAGS: u32 = 0x3f_7fd7;

/// Segment registers in the order of the TSS.
pub(super) const SEGMENTS: [SegmentRegister; 6] = [
    SegmentRegister::Es,
    SegmentRegister::Cs,
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

/// Which of the two TSS formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Of the 80286.
    Bits16,
    /// Of the 80386 and later.
    Bits32,
}

impl Format {
    /// Returns the format of a TSS with these access rights.
    pub(super) const fn of(rights: AccessRights) -> Self {
        if rights.kind() & 8 == 0 { Self::Bits16 } else { Self::Bits32 }
    }

    /// Returns the number of bytes that the processor uses.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Bits16 => 44,
            Self::Bits32 => MOST_BYTES,
        }
    }

    /// Returns the smallest limit of a TSS that can be switched to.
    pub(super) const fn least_limit(self) -> u32 {
        match self {
            Self::Bits16 => 43,
            Self::Bits32 => 103,
        }
    }

    /// Returns the dynamic fields, which a switch away writes: EIP to the last segment selector.
    pub(super) const fn saved(self) -> Range<usize> {
        match self {
            Self::Bits16 => 0x0e..0x2a,
            Self::Bits32 => 0x20..0x60,
        }
    }
}

/// The state of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskState {
    /// CR3; a 16-bit TSS has none.
    pub(super) cr3: Option<u32>,
    pub(super) eip: u32,
    eflags: u32,
    /// General-purpose registers in encoding order.
    pub(super) registers: [u32; 8],
    /// Selectors in the order of [`SEGMENTS`].
    pub(super) selectors: [u16; 6],
    pub(super) ldt: u16,
    /// The debug trap flag.
    pub(super) has_trap: bool,
}

impl TaskState {
    /// Reads the state out of a TSS of [`Format::bytes`].
    pub(super) fn parse(image: &[u8], format: Format) -> Self {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let dword = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
        match format {
            Format::Bits32 => Self {
                cr3: Some(dword(0x1c)),
                eip: dword(0x20),
                eflags: dword(0x24),
                registers: core::array::from_fn(|index| dword(0x28 + 4 * index)),
                selectors: core::array::from_fn(|index| word(0x48 + 4 * index)),
                ldt: word(0x60),
                has_trap: word(0x64) & 1 != 0,
            },
            Format::Bits16 => Self {
                cr3: None,
                eip: word(0x0e).into(),
                eflags: word(0x10).into(),
                registers: core::array::from_fn(|index| word(0x12 + 2 * index).into()),
                // FS and GS are not in it, and are loaded with null selectors.
                selectors: core::array::from_fn(|index| if index < 4 { word(0x22 + 2 * index) } else { 0 }),
                ldt: word(0x2a),
                has_trap: false,
            },
        }
    }

    /// Writes the state of the task that `vcpu` leaves into its TSS.
    #[expect(clippy::cast_possible_truncation, reason = "a TSS holds 32 or 16 bits of each")]
    pub(super) fn save<V: Vcpu + ?Sized>(
        vcpu: &V,
        source: TaskSwitchSource,
        image: &mut [u8],
        format: Format,
    ) {
        // What an instruction began goes on behind it; what came from outside, at it.
        let length = match source {
            TaskSwitchSource::Event { .. } => 0,
            _ => vcpu.instruction_length(),
        };
        let cleared = if source == TaskSwitchSource::Iret { Rflags::NT } else { Rflags::empty() };
        let mut registers = vcpu.registers().0;
        registers[STACK_POINTER] = vcpu.rsp();
        let general = registers[..8].iter().copied();
        let flags = vcpu.rflags().difference(cleared).bits();
        let fields = [vcpu.rip().wrapping_add(length), flags].into_iter().chain(general);
        let selectors = SEGMENTS.map(|register| vcpu.segment(register).selector);
        match format {
            Format::Bits32 => {
                let dwords = image[0x20..0x48].chunks_exact_mut(4);
                dwords.zip(fields).for_each(|(at, field)| at.copy_from_slice(&(field as u32).to_le_bytes()));
                let slots = image[0x48..0x60].chunks_exact_mut(4);
                slots.zip(selectors).for_each(|(at, field)| at[..2].copy_from_slice(&field.to_le_bytes()));
            }
            Format::Bits16 => {
                let fields = fields.map(|field| field as u16).chain(selectors);
                let words = image[0x0e..0x2a].chunks_exact_mut(2);
                words.zip(fields).for_each(|(at, field)| at.copy_from_slice(&field.to_le_bytes()));
            }
        }
    }

    /// Flags as they are loaded.
    pub(super) fn rflags(&self) -> Rflags {
        Rflags::from_bits_retain(u64::from(self.eflags & FLAGS)) | Rflags::RESERVED1
    }
}
