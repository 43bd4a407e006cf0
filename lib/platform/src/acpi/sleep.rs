//! The sleep types that cut the machine's power (ACPI, "\_Sx (System States)").
//!
//! They lie in the DSDT, as byte code for an interpreter. Decision: the code is not run but searched for the
//! one way in which firmware writes such an object, a name and a package of constants; what is written
//! otherwise, or twice with different values, counts as not known.

use super::sdt::HEADER_SIZE;
use super::{AcpiError, Table};
use crate::physical::ReadPhysical;

/// Offsets in the FADT of the DSDT's address, in bytes.
const DSDT: u64 = 40;
const X_DSDT: u64 = 140;

/// Opcodes (ACPI, "AML Encoding of Names and Data").
const NAME: u8 = 0x08;
const ROOT: u8 = b'\\';
const PACKAGE: u8 = 0x12;
const BYTE: u8 = 0x0a;
const WORD: u8 = 0x0b;
const DWORD: u8 = 0x0c;

/// Bytes that are read at once.
const CHUNK: usize = 256;
const NAME_SIZE: usize = 4;
/// Most bytes from a package's opcode to the end of its second element.
const MOST_OF_PACKAGE: usize = 16;

/// Returns the values of SLP_TYP in the PM1 control registers that cut the power, those of \_S4 and \_S5: bit n stands
/// for value n. 0 where they are not known.
///
/// # Errors
///
/// [`AcpiError`] where the DSDT is absent or damaged.
pub(super) fn power_off_types(memory: &impl ReadPhysical, fadt: &Table) -> Result<u8, AcpiError> {
    let dsdt = dsdt(memory, fadt)?;
    let end = dsdt.address + dsdt.length;
    let mut states = [State::Absent; 6];
    let mut at = dsdt.address + HEADER_SIZE;
    let mut chunk = [0; CHUNK];
    while at + NAME_SIZE as u64 <= end {
        let count = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        memory.read(at, &mut chunk[..count])?;
        for (offset, name) in chunk[..count].windows(NAME_SIZE).enumerate() {
            if let &[b'_', b'S', digit @ b'1'..=b'5', b'_'] = name {
                let found = object(memory, at + offset as u64, end)?;
                let state = &mut states[usize::from(digit - b'0')];
                *state = state.and(found);
            }
        }
        // The last bytes may begin a name.
        at += (count - NAME_SIZE + 1) as u64;
    }
    Ok(off_types(&states))
}

/// What is known of a sleep state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no such object.
    Absent,
    /// Its SLP_TYP, the same for both PM1 control registers.
    Type(u8),
    /// Objects of this name differ, or one is not understood.
    Unclear,
}

impl State {
    fn and(self, found: Self) -> Self {
        match (self, found) {
            (known, Self::Absent) | (Self::Absent, known) => known,
            (known, same) if known == same => known,
            _ => Self::Unclear,
        }
    }

    fn bit(self) -> u8 {
        if let Self::Type(value) = self { 1 << value } else { 0 }
    }
}

/// Types of \_S4 and \_S5, unless they could also mean a sleep that keeps memory.
fn off_types(states: &[State; 6]) -> u8 {
    let [_, s1, s2, s3, s4, s5] = states;
    let sleeps = s1.bit() | s2.bit() | s3.bit();
    let off = s4.bit() | s5.bit();
    let is_clear = !states.contains(&State::Unclear) && *s5 != State::Absent && sleeps & off == 0;
    if is_clear { off } else { 0 }
}

fn dsdt(memory: &impl ReadPhysical, fadt: &Table) -> Result<Table, AcpiError> {
    let field = |offset, size| fadt.length >= offset + size;
    let wide = if field(X_DSDT, 8) { memory.read_u64(fadt.address + X_DSDT)? } else { 0 };
    let address = match wide {
        0 if field(DSDT, 4) => u64::from(memory.read_u32(fadt.address + DSDT)?),
        _ => wide,
    };
    if address == 0 {
        return Err(AcpiError::Absent);
    }
    let table = Table::read(memory, address)?;
    table.warn_of_sum();
    if &table.signature == b"DSDT" { Ok(table) } else { Err(AcpiError::Malformed) }
}

/// Returns the object whose name lies at `name`, in code that ends at `end`.
fn object(memory: &impl ReadPhysical, name: u64, end: u64) -> Result<State, AcpiError> {
    let before: [u8; 2] = memory.read_array(name - 2)?;
    if !matches!(before, [_, NAME] | [NAME, ROOT]) {
        // The name is only used here.
        return Ok(State::Absent);
    }
    let start = name + NAME_SIZE as u64;
    let mut package = [0; MOST_OF_PACKAGE];
    let count = usize::try_from(end - start).map_or(MOST_OF_PACKAGE, |left| left.min(MOST_OF_PACKAGE));
    memory.read(start, &mut package[..count])?;
    Ok(sleep_type(&package[..count]).map_or(State::Unclear, State::Type))
}

/// Returns the first element of a package, where the second is the same or there is none.
fn sleep_type(package: &[u8]) -> Option<u8> {
    let (&opcode, rest) = package.split_first()?;
    let following = usize::from(rest.first()? >> 6);
    let (&elements, rest) = rest.get(1 + following..)?.split_first()?;
    let (first, rest) = constant(rest)?;
    let is_same = elements < 2 || constant(rest).is_some_and(|(second, _)| second == first);
    (opcode == PACKAGE && elements > 0 && is_same && first < 8).then_some(first)
}

/// Returns a constant, and what follows.
fn constant(code: &[u8]) -> Option<(u8, &[u8])> {
    let (&opcode, rest) = code.split_first()?;
    let size = match opcode {
        0 | 1 => return Some((opcode, rest)),
        BYTE => 1,
        WORD => 2,
        DWORD => 4,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    let is_byte = value[1..].iter().all(|&byte| byte == 0);
    is_byte.then_some((value[0], rest))
}

#[cfg(test)]
mod tests {
    use super::super::sdt::tests::put_table;
    use super::*;
    use crate::physical::TestMemory;

    const FADT: usize = 0x1000;
    const CODE: usize = 0x2000;

    /// Puts a FADT that names the DSDT at [`CODE`].
    fn put_fadt(memory: &mut TestMemory) {
        let mut fadt = [0; 80];
        fadt[4..8].copy_from_slice(&(CODE as u32).to_le_bytes());
        put_table(memory, FADT, b"FACP", &fadt);
    }

    /// What is known of a machine whose DSDT holds `code`.
    fn types(code: &[u8]) -> Result<u8, AcpiError> {
        let mut memory = TestMemory::new();
        put_fadt(&mut memory);
        put_table(&mut memory, CODE, b"DSDT", code);
        power_off_types(&memory, &Table::read(&memory, FADT as u64).unwrap())
    }

    fn state(number: u8, package: &[u8]) -> Vec<u8> {
        [&[NAME, b'_', b'S', b'0' + number, b'_'], package].concat()
    }

    /// As QEMU's and Bochs's firmware has them.
    const ZEROS: [u8; 7] = [PACKAGE, 6, 4, 0, 0, 0, 0];
    const ONES: [u8; 7] = [PACKAGE, 6, 4, 1, 1, 0, 0];

    #[test]
    fn off_and_hibernation_are_told_from_sleep() {
        let code = [state(3, &ONES), state(4, &[PACKAGE, 8, 4, BYTE, 6, BYTE, 6, 0, 0]), state(5, &ZEROS)];
        assert_eq!(types(&code.concat()), Ok(1 << 6 | 1 << 0));
        assert_eq!(types(&code[2]), Ok(1));
        assert_eq!(types(&code[..2].concat()), Ok(0), "without soft-off");
    }

    #[test]
    fn constants_of_every_width_and_names_from_the_root() {
        let package = [PACKAGE, 0x40, 1, 2, WORD, 5, 0, DWORD, 5, 0, 0, 0];
        let mut code = state(5, &package);
        code.insert(1, ROOT);
        assert_eq!(types(&code), Ok(1 << 5));
        assert_eq!(types(&state(5, &[PACKAGE, 3, 1, BYTE, 7])), Ok(1 << 7));
    }

    #[test]
    fn what_is_not_understood_is_not_known() {
        for package in [
            &[PACKAGE, 6, 4, 5][..],
            &[PACKAGE, 8, 4, BYTE, 8, BYTE, 8, 0, 0],
            &[PACKAGE, 6, 0, 0, 0, 0, 0],
            &[PACKAGE, 6, 4, 0, 1, 0, 0],
            &[PACKAGE, 4, 2, 0, 1],
            &[PACKAGE, 8, 4, WORD, 5, 1, WORD, 5, 1],
            &[0x13, 6, 4, 0, 0, 0, 0],
            &[PACKAGE, 6, 4, b'F', b'O', b'O', b'_'],
            &[PACKAGE],
            &[],
        ] {
            assert_eq!(types(&state(5, package)), Ok(0), "{package:x?}");
        }
    }

    #[test]
    fn two_objects_of_a_name_have_to_agree() {
        let other = state(5, &[PACKAGE, 8, 4, BYTE, 5, BYTE, 5, 0, 0]);
        assert_eq!(types(&[state(5, &ZEROS), state(5, &ZEROS)].concat()), Ok(1));
        assert_eq!(types(&[state(5, &ZEROS), other].concat()), Ok(0));
        assert_eq!(types(&[state(3, &ZEROS), state(5, &ZEROS)].concat()), Ok(0), "sleep has the type of off");
    }

    #[test]
    fn a_use_of_the_name_is_no_object() {
        let code = [&[0xa4, b'_', b'S', b'5', b'_', PACKAGE][..], &state(5, &ONES)].concat();
        assert_eq!(types(&code), Ok(1 << 1));
    }

    #[test]
    fn objects_are_found_wherever_they_lie() {
        for before in 0..2 * CHUNK {
            let code = [vec![0xa3; before], state(5, &ZEROS)].concat();
            assert_eq!(types(&code), Ok(1), "behind {before} bytes");
        }
    }

    #[test]
    fn only_types_that_are_no_sleep_s_cut_the_power() {
        use State::{Absent, Type, Unclear};
        for (s1, s2, s3, s4, s5, off) in [
            (Absent, Absent, Absent, Absent, Type(7), 1 << 7),
            (Type(1), Type(2), Type(3), Type(6), Type(7), 1 << 6 | 1 << 7),
            (Absent, Absent, Absent, Type(5), Type(5), 1 << 5),
            (Type(5), Absent, Absent, Absent, Type(5), 0),
            (Absent, Type(5), Absent, Absent, Type(5), 0),
            (Absent, Absent, Type(5), Type(5), Type(7), 0),
            (Type(5), Type(5), Absent, Absent, Type(5), 0),
            (Absent, Type(5), Type(5), Absent, Type(5), 0),
            (Type(5), Absent, Type(5), Absent, Type(5), 0),
            (Unclear, Absent, Absent, Absent, Type(5), 0),
            (Absent, Absent, Absent, Type(6), Absent, 0),
        ] {
            assert_eq!(off_types(&[Absent, s1, s2, s3, s4, s5]), off, "{s1:?} {s2:?} {s3:?} {s4:?} {s5:?}");
        }
    }

    #[test]
    fn what_lies_around_the_code_is_none_of_it() {
        let object = state(5, &[PACKAGE, 6, 2, BYTE, 5, BYTE, 5]);
        let types = |shown: usize| {
            let mut memory = TestMemory::new();
            put_fadt(&mut memory);
            put_table(&mut memory, CODE, b"DSDT", &object[..shown]);
            memory.put(CODE + 36 + shown, &object[shown..]);
            memory.put(CODE - object.len(), &object);
            // A second one, another, far behind.
            memory.put(CODE + 0x80, &state(5, &ONES));
            power_off_types(&memory, &Table::read(&memory, FADT as u64).unwrap())
        };
        assert_eq!(types(object.len()), Ok(1 << 5));
        for shown in 0..object.len() {
            assert_eq!(types(shown), Ok(0), "{shown} bytes");
        }
    }

    #[test]
    fn a_damaged_dsdt_is_told() {
        let fadt = |dsdt: &[u8]| {
            let mut memory = TestMemory::new();
            let mut body = [0; 120];
            body[104..112].copy_from_slice(&0x3000_u64.to_le_bytes());
            put_table(&mut memory, FADT, b"FACP", &body);
            memory.put(0x3000, dsdt);
            power_off_types(&memory, &Table::read(&memory, FADT as u64).unwrap())
        };
        assert_eq!(fadt(b"DSDT\xff\xff\xff\xff"), Err(AcpiError::Malformed));
        let mut empty = [0; 36];
        empty[..8].copy_from_slice(b"SSDT\x24\0\0\0");
        empty[9] = empty.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte));
        assert_eq!(fadt(&empty), Err(AcpiError::Malformed));
        empty[0] = b'D';
        empty[9] = empty[9].wrapping_add(b'S' - b'D');
        assert_eq!(fadt(&empty), Ok(0));
    }
}
