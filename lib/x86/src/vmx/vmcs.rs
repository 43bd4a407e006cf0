//! The fields of a virtual-machine control structure (SDM, appendix "Field Encoding in VMCS").
//!
//! One table declares every field; typed constants, the dump and, for nesting, what becomes of each field derive
//! from it. Width and access of a field are checked against its encoding at compile time.

#[macro_use]
mod table;

use super::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use core::marker::PhantomData;

/// Of the first word of a VMCS region: it is a shadow VMCS (SDM, "Format of the VMCS Region").
pub const SHADOW_INDICATOR: u32 = 1 << 31;

/// A field whose value is a `T`: `u16`, `u32`, or `u64` for 64-bit and natural-width fields.
///
/// A field that `IS_TRUSTED` is one by which the processor acts on its hypervisor: host state, controls that can let a
/// guest out, and addresses that the processor reads or writes outside the guest's translation. Of any other field no
/// value can do more than change what the guest sees, or have the entry fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<T, const IS_TRUSTED: bool = false> {
    encoding: u32,
    value: PhantomData<T>,
}

/// A field by which the processor acts on its hypervisor (see [`Field`]).
pub type TrustedField<T> = Field<T, true>;

/// A type that a VMCS field can have.
pub trait FieldValue: Copy {
    /// Width bits of an encoding that this type serves (SDM, "Structure of VMCS Component Encoding").
    const WIDTHS: &'static [u32];
    /// Widens to what VMWRITE takes.
    fn to_u64(self) -> u64;
    /// Narrows what VMREAD gives; upper bits are zero by the architecture.
    fn from_u64(value: u64) -> Self;
}

macro_rules! field_value {
    ($type:ty, $widths:expr) => {
        impl FieldValue for $type {
            const WIDTHS: &'static [u32] = &$widths;
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[expect(clippy::cast_possible_truncation, reason = "VMREAD zero-extends a narrow field")]
            fn from_u64(value: u64) -> Self {
                value as Self
            }
        }
    };
}

field_value!(u16, [0]);
field_value!(u32, [2]);

impl FieldValue for u64 {
    const WIDTHS: &'static [u32] = &[1, 3];
    fn to_u64(self) -> u64 {
        self
    }
    fn from_u64(value: u64) -> Self {
        value
    }
}

/// Whether the processor acts on its hypervisor by the field: all of host state, and of controls and guest state whatever
/// is not known to be the guest's own matter.
const fn is_trusted(encoding: u32) -> bool {
    match group(encoding) {
        Group::Host => true,
        Group::ExitInformation => false,
        // The link pointer names memory, and a trace may.
        Group::Guest => matches!(encoding, 0x2800 | 0x2814),
        Group::Control => !matches!(
            encoding,
            // VPID, notification vector
            0x0000 | 0x0002
            // TSC offset and multiplier, EOI-exit bitmaps
            | 0x2010 | 0x2032 | 0x201c..=0x2022
            // XSS-, ENCLS- and ENCLV-exiting bitmaps
            | 0x202c | 0x202e | 0x2036
            // Exceptions and page faults that exit, CR3 targets
            | 0x4004..=0x400a | 0x6008..=0x600e
            // The event that an entry injects, TPR threshold, pause loops
            | 0x4016..=0x401c | 0x4020 | 0x4022
            // Masks and read shadows of CR0 and CR4
            | 0x6000..=0x6006
        ),
    }
}

const fn group(encoding: u32) -> Group {
    match encoding >> 10 & 3 {
        0 => Group::Control,
        1 => Group::ExitInformation,
        2 => Group::Guest,
        _ => Group::Host,
    }
}

impl<T: FieldValue, const IS_TRUSTED: bool> Field<T, IS_TRUSTED> {
    const fn new(encoding: u32) -> Self {
        assert!(IS_TRUSTED == is_trusted(encoding), "the type of a VMCS field says wrongly whose it is");
        let mut index = 0;
        while index < T::WIDTHS.len() {
            if encoding >> 13 & 3 == T::WIDTHS[index] {
                return Self { encoding, value: PhantomData };
            }
            index += 1;
        }
        panic!("the type of a VMCS field does not fit its encoding")
    }

    /// Returns the number that VMREAD and VMWRITE take.
    #[must_use]
    pub const fn encoding(self) -> u32 {
        self.encoding
    }

    /// The field among others that are trusted.
    #[must_use]
    pub const fn trusted(self) -> TrustedField<T> {
        Field { encoding: self.encoding, value: PhantomData }
    }
}

/// Type of a field (SDM, "Structure of VMCS Component Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Control.
    Control,
    /// VM-exit information, read-only.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// Width of a field (SDM, "Structure of VMCS Component Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits on every processor.
    Bits64,
    /// 32 bits.
    Bits32,
    /// As wide as the processor's registers.
    Natural,
}

/// What nesting makes of a field of L1's VMCS (VMCS12) in the VMCS under which L2 runs, and of that one's after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Guest state that every entry and exit copies.
    Hot,
    /// Guest state that an entry copies where L1 wrote to it, and that is brought back where L1 asks.
    Cold,
    /// A control that is merged with what the hypervisor needs.
    Control,
    /// A control or guest field whose part is done in software: MSR areas and what they switch, VMCS shadowing.
    ByValue,
    /// Loaded into L1's processor at an exit.
    Host,
    /// What an exit tells.
    Exit,
    /// Kept for L1, without effect.
    Ignored,
    /// No control that is offered uses it.
    Absent,
}

/// How the shadow VMCS, from which L1 reads and writes without an exit, has a field (SDM, "VMCS Shadowing").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// Not at all: VMREAD and VMWRITE exit.
    None,
    /// An exit tells it; L1's writes exit.
    Told,
    /// State: an exit tells it, and L1 writes it.
    State,
    /// A control, which L1 alone writes.
    Control,
    /// The index of the page-modification log: state, where the processor has the field.
    Log,
}

/// The processors that have a field: those on which a control may be 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exists {
    /// All.
    Always,
    /// By a pin-based control.
    PinBased(PinBasedControls),
    /// By a primary processor-based control.
    Primary(PrimaryControls),
    /// By a secondary processor-based control.
    Secondary(SecondaryControls),
    /// By a VM-entry control.
    Entry(EntryControls),
    /// By a VM-exit control.
    Exit(ExitControls),
    /// By a VM-entry or a VM-exit control.
    EntryOrExit(EntryControls, ExitControls),
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// The number that VMREAD and VMWRITE take.
    pub encoding: u32,
    /// The SDM's name.
    pub name: &'static str,
    /// What nesting does with it.
    pub treatment: Treatment,
    /// How a shadow VMCS has it.
    pub shadow: Shadow,
    /// The processors that have it.
    pub exists: Exists,
}

impl FieldInfo {
    /// Returns the type of the field.
    #[must_use]
    pub const fn group(self) -> Group {
        group(self.encoding)
    }

    /// Width of the field.
    #[must_use]
    pub const fn width(self) -> Width {
        match self.encoding >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }
}

macro_rules! declare {
    (()
        $($encoding:literal $type:ident $name:ident $text:literal $treatment:ident $shadow:tt [$($exists:tt)*];)*
    ) => {
        $(
            #[doc = concat!($text, ".")]
            pub const $name: Field<$type, { is_trusted($encoding) }> = Field::new($encoding);
        )*

        /// Every field, in the order of encodings within a width and group.
        pub const FIELDS: &[FieldInfo] = &[$(FieldInfo {
            encoding: $encoding,
            name: $text,
            treatment: Treatment::$treatment,
            shadow: shadow!($shadow),
            exists: exists!($($exists)*),
        },)*];
    };
}

macro_rules! shadow {
    (-) => {
        Shadow::None
    };
    (told) => {
        Shadow::Told
    };
    (state) => {
        Shadow::State
    };
    (control) => {
        Shadow::Control
    };
    (log) => {
        Shadow::Log
    };
}

macro_rules! exists {
    () => {
        Exists::Always
    };
    (pin_based $control:ident) => {
        Exists::PinBased(PinBasedControls::$control)
    };
    (primary $control:ident) => {
        Exists::Primary(PrimaryControls::$control)
    };
    (secondary $control:ident) => {
        Exists::Secondary(SecondaryControls::$control)
    };
    (entry $control:ident) => {
        Exists::Entry(EntryControls::$control)
    };
    (exit $control:ident) => {
        Exists::Exit(ExitControls::$control)
    };
    (entry $entry:ident, exit $exit:ident) => {
        Exists::EntryOrExit(EntryControls::$entry, ExitControls::$exit)
    };
}

vmcs_fields!(declare!());

#[cfg(test)]
mod tests {
    use super::{FIELDS, GUEST_RIP, Group, Width};

    #[test]
    fn encodings_are_unique_and_of_full_access() {
        for (index, field) in FIELDS.iter().enumerate() {
            assert_eq!(field.encoding & 1, 0, "{}", field.name);
            assert!(
                FIELDS[..index].iter().all(|earlier| earlier.encoding != field.encoding),
                "{}",
                field.name
            );
        }
    }

    #[test]
    fn names_agree_with_the_group_in_the_encoding() {
        for field in FIELDS {
            assert_eq!(field.name.starts_with("Host "), field.group() == Group::Host, "{}", field.name);
            if field.name.starts_with("Guest ") && field.group() != Group::ExitInformation {
                assert_eq!(field.group(), Group::Guest, "{}", field.name);
            }
        }
    }

    #[test]
    fn guest_rip_is_a_natural_width_guest_field() {
        let row = FIELDS.iter().find(|f| f.encoding == GUEST_RIP.encoding()).copied();
        assert_eq!(row.map(|f| (f.group(), f.width())), Some((Group::Guest, Width::Natural)));
    }

    #[test]
    fn type_and_width_are_the_manual_s_bits() {
        use super::FieldInfo;
        for encoding in 0..0x8000 {
            let field = FieldInfo { encoding, ..FIELDS[0] };
            // SDM, "Structure of VMCS Component Encoding".
            let groups = [Group::Control, Group::ExitInformation, Group::Guest, Group::Host];
            let widths = [Width::Bits16, Width::Bits64, Width::Bits32, Width::Natural];
            assert_eq!(field.group(), groups[(encoding as usize >> 10) % 4], "{encoding:#x}");
            assert_eq!(field.width(), widths[(encoding as usize >> 13) % 4], "{encoding:#x}");
        }
    }

    #[test]
    fn values_pass_whole() {
        use super::FieldValue;
        assert_eq!((u16::MAX.to_u64(), u32::MAX.to_u64(), u64::MAX.to_u64()), (0xffff, 0xffff_ffff, !0));
        assert_eq!((u16::from_u64(0x1234), u32::from_u64(0x1234_5678)), (0x1234, 0x1234_5678));
        assert_eq!(u64::from_u64(0x1234_5678_9abc_def0), 0x1234_5678_9abc_def0);
        assert_eq!(GUEST_RIP.encoding(), 0x681e);
    }
}
