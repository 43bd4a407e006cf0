//! The VMCS fields as nesting sees them: one row a field of [`vmcs::FIELDS`], with what becomes of it.

use x86::vmx::vmcs::FIELDS;

/// Number of fields.
pub(super) const COUNT: usize = FIELDS.len();
/// No field has this encoding.
const NONE: u8 = u8::MAX;
const KEYS: usize = 512;

/// Place of each field in [`FIELDS`] by the bits of its encoding that tell fields apart.
static INDEX: [u8; KEYS] = index_table();

/// Place of the field with this encoding in [`FIELDS`].
#[inline(always)]
pub(super) const fn index(encoding: u32) -> Option<usize> {
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
