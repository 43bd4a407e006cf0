//! The VMCS fields as VMREAD and VMWRITE of L1 find them: rows of [`FIELDS`], by their encodings.

use x86::vmx::vmcs::{FIELDS, FieldInfo, Treatment, Width};

/// Number of fields.
pub(crate) const COUNT: usize = FIELDS.len();
/// No field has this encoding.
const NONE: u8 = u8::MAX;
const KEYS: usize = 512;

/// Place of each field in [`FIELDS`] by the bits of its encoding that tell fields apart.
static INDEX: [u8; KEYS] = index_table();

/// Place of the field with this encoding in [`FIELDS`].
#[inline(always)]
pub(crate) const fn index(encoding: u32) -> Option<usize> {
    if encoding & !0x6c3e != 0 {
        return None;
    }
    match INDEX[key(encoding)] {
        NONE => None,
        index => Some(index as usize),
    }
}

/// Width, type and the lowest five bits of the number.
#[inline(always)]
const fn key(encoding: u32) -> usize {
    ((encoding >> 13 & 3) << 7 | (encoding >> 10 & 3) << 5 | encoding >> 1 & 0x1f) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "there are fewer fields than a byte can count")]
const fn index_table() -> [u8; KEYS] {
    assert!(COUNT < NONE as usize);
    let mut table = [NONE; KEYS];
    let mut index = 0;
    while index < COUNT {
        let encoding = FIELDS[index].encoding;
        assert!(encoding & !0x6c3e == 0 && table[key(encoding)] == NONE);
        table[key(encoding)] = index as u8;
        index += 1;
    }
    table
}

/// Returns what becomes of the field in this place of [`FIELDS`].
pub(crate) const fn treatment(index: usize) -> Treatment {
    FIELDS[index].treatment
}

/// Width of the field in this place of [`FIELDS`].
pub(crate) const fn width(index: usize) -> Width {
    FIELDS[index].width()
}

/// A field as VMREAD and VMWRITE name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Its place in [`FIELDS`].
    pub(crate) index: usize,
    /// The upper half of a 64-bit field alone.
    pub(crate) is_high: bool,
}

impl Access {
    /// Returns the field.
    pub(crate) const fn info(self) -> FieldInfo {
        FIELDS[self.index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::nested::capability::Capability;
    use crate::vmx::nested::entry::checks::fixture::hardware;
    use hw::Msrs;
    use hw::sim::SimMsrs;
    use x86::msr::Msr;
    use x86::vmx::vmcs::{self, Group};

    const PIN_BASED: Msr = Msr::IA32_VMX_TRUE_PINBASED_CTLS;
    const PRIMARY: Msr = Msr::IA32_VMX_TRUE_PROCBASED_CTLS;
    const SECONDARY: Msr = Msr::IA32_VMX_PROCBASED_CTLS2;
    const EXIT: Msr = Msr::IA32_VMX_TRUE_EXIT_CTLS;
    const ENTRY: Msr = Msr::IA32_VMX_TRUE_ENTRY_CTLS;

    /// A control by the register that offers it and its number.
    type Control = (Msr, u32);

    /// The fields that L1 does not have on a processor with everything but these controls, by number.
    fn missing(without: &[Control]) -> Vec<u32> {
        let msrs = SimMsrs::new(hardware());
        for &(msr, control) in without {
            msrs.set(msr, msrs.read(msr).unwrap() & !(1 << (32 + control)));
        }
        let capability = Capability::of(&msrs, 39).unwrap();
        let missing = FIELDS.iter().filter(|field| !capability.has_field(**field));
        missing.map(|field| field.encoding).collect()
    }

    #[test]
    fn every_field_is_found_by_its_encoding_and_nothing_else_is() {
        for (place, field) in FIELDS.iter().enumerate() {
            assert_eq!(index(field.encoding), Some(place), "{}", field.name);
        }
        let found = (0..=0xffff_u32).filter(|&encoding| index(encoding).is_some()).count();
        assert_eq!(found, COUNT);
        assert_eq!(index_table().iter().filter(|&&place| place != NONE).count(), COUNT);
        assert_eq!(index(vmcs::GUEST_RIP.encoding() | 1 << 16), None);
    }

    #[test]
    fn treatments_agree_with_groups() {
        for (place, field) in FIELDS.iter().enumerate() {
            let expected = match treatment(place) {
                Treatment::Hot | Treatment::Cold => Group::Guest,
                Treatment::Control => Group::Control,
                Treatment::Host => Group::Host,
                Treatment::Exit => Group::ExitInformation,
                Treatment::ByValue | Treatment::Ignored | Treatment::Absent => continue,
            };
            assert_eq!(field.group(), expected, "{}", field.name);
        }
    }

    #[test]
    fn what_no_offered_control_uses_is_absent() {
        // ENCLV alone is dealt with and not offered.
        let absent = |place: &usize| treatment(*place) == Treatment::Absent;
        let mut expected: Vec<_> = (0..COUNT).filter(absent).map(|place| FIELDS[place].encoding).collect();
        expected.push(0x2036);
        expected.sort_unstable();
        let mut found = missing(&[]);
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_field_that_one_control_uses_comes_and_goes_with_it() {
        let everything = missing(&[]);
        let fields: [(&[Control], &[u32]); 22] = [
            (&[(PIN_BASED, 6)], &[0x482e]),
            (&[(PIN_BASED, 7)], &[0x0002, 0x2016]),
            (&[(PRIMARY, 21)], &[0x2012, 0x401c]),
            (&[(PRIMARY, 28)], &[0x2004]),
            (&[(SECONDARY, 0)], &[0x2014]),
            (&[(SECONDARY, 5)], &[0x0000]),
            (&[(SECONDARY, 9)], &[0x0810, 0x201c, 0x201e, 0x2020, 0x2022]),
            (&[(SECONDARY, 10)], &[0x4020, 0x4022]),
            (&[(SECONDARY, 14)], &[0x2026, 0x2028]),
            (&[(SECONDARY, 15)], &[0x202e]),
            (&[(SECONDARY, 17)], &[0x0812, 0x200e]),
            (&[(SECONDARY, 20)], &[0x202c]),
            (&[(SECONDARY, 25)], &[0x2032]),
            (&[(ENTRY, 13)], &[0x2808]),
            (&[(EXIT, 12)], &[0x2c04]),
            (&[(EXIT, 19)], &[0x2c00]),
            (&[(EXIT, 21)], &[0x2c02]),
            (&[(ENTRY, 20)], &[0x6828, 0x682a, 0x682c]),
            (&[(EXIT, 28)], &[0x6c18, 0x6c1a, 0x6c1c]),
            // A guest field is there for loading or for saving.
            (&[(ENTRY, 14)], &[]),
            (&[(ENTRY, 14), (EXIT, 18)], &[0x2804]),
            (&[(ENTRY, 15), (EXIT, 20)], &[0x2806]),
        ];
        for (controls, gone) in fields {
            let found = missing(controls);
            let found: Vec<_> = found.into_iter().filter(|field| !everything.contains(field)).collect();
            assert_eq!(found, gone, "{controls:?}");
        }
    }
}
