use super::*;
use std::collections::BTreeMap;

/// Configuration space whose functions have these registers, and read as 0 elsewhere.
#[derive(Default)]
struct Space(BTreeMap<u16, BTreeMap<u8, u32>>);

impl Space {
    fn new(registers: &[(u16, u8, u32)]) -> Self {
        let mut space = Self::default();
        for &(function, register, value) in registers {
            let function = space.0.entry(function).or_insert_with(|| BTreeMap::from([(0, 0x1234_8086)]));
            function.insert(register, value);
        }
        space
    }

    fn kept(&self, ecam: &[EcamRange]) -> Vec<(u16, u8)> {
        let kept = KeptRegisters::find(self, |base| [0x400, 0x404].contains(&base), ecam).unwrap();
        kept.iter().map(|kept| (kept.function, kept.register)).collect()
    }
}

impl ConfigurationSpace for Space {
    fn read(&self, function: u16, register: u8) -> u32 {
        assert!(register.is_multiple_of(4));
        let registers = self.0.get(&function);
        registers.map_or(u32::MAX, |registers| registers.get(&register).copied().unwrap_or(0))
    }
}

fn ecam(base: u64) -> EcamRange {
    EcamRange { base, first_bus: 0, last_bus: 0xff, reserved: [0; 6] }
}

#[test]
fn a_register_that_holds_a_base_of_ports_is_kept() {
    let bridge = 0xf8;
    let held = [(bridge, 0x40, 0x401), (bridge, 0x44, 0x404), (bridge, 0x48, 0x403), (bridge, 0xfc, 0x400)];
    assert_eq!(Space::new(&held).kept(&[]), held.map(|(function, register, _)| (function, register)));
    for other in [0, 0x408, 0x1_0400, 0x8000_0400, u32::MAX] {
        assert_eq!(Space::new(&[(bridge, 0x40, other)]).kept(&[]), [], "{other:#x}");
    }
}

#[test]
fn what_every_function_has_is_no_base() {
    // A command register with interrupts disabled, of a function without status.
    let held = [(0xf8, 4, 0x403), (0xf8, 0xc, 0x401), (0xf8, 0x10, 0x401)];
    assert_eq!(Space::new(&held).kept(&[ecam(0xe000_0000)]), [(0xf8, 0x10)]);
}

#[test]
fn both_halves_of_a_base_of_configuration_space_are_kept() {
    let below = [ecam(0xe000_0000)];
    assert_eq!(Space::new(&[(0, 0x60, 0xe000_0001)]).kept(&below), [(0, 0x60), (0, 0x64)]);
    assert_eq!(Space::new(&[(0, 0x48, 0xe000_0005), (0, 0x4c, 0xfed1_8001)]).kept(&below), [(0, 0x48)]);
    assert_eq!(Space::new(&[(0, 0xfc, 0xe000_0001)]).kept(&below), [(0, 0xfc)]);
    for (lower, upper) in [(0xe000_0011, 0), (0xe400_0001, 0), (0, 0xe000_0000)] {
        let space = Space::new(&[(0, 0x60, lower), (0, 0x64, upper)]);
        assert_eq!(space.kept(&[ecam(0xe001_0000)]), [], "{lower:#x}");
    }
    let above = [ecam(0x40_0000_0000)];
    assert_eq!(Space::new(&[(0, 0x90, 1), (0, 0x94, 0x40)]).kept(&above), [(0, 0x90), (0, 0x94)]);
    assert_eq!(Space::new(&[(0, 0x90, 1), (0, 0x94, 0x41)]).kept(&above), []);
    assert_eq!(Space::new(&[(0, 0x90, 0)]).kept(&[EcamRange::default()]), [], "no range");
}

#[test]
fn the_last_register_has_no_upper_half() {
    let base = [ecam(0xe000_0000)];
    assert_eq!(Space::new(&[(0, 0xf8, 0xe000_0001)]).kept(&base), [(0, 0xf8), (0, 0xfc)]);
    assert_eq!(Space::new(&[(0, 0xfc, 1)]).kept(&[ecam(0x5_0000_0000)]), []);
}

#[test]
fn functions_of_every_bus_are_looked_through() {
    let held = [(0x0b, 0x401), (0xff, 0x401), (0x7f10, 0x401), (0x7f17, 0x401), (0xffff, 0x401)]
        .map(|(function, value)| (function, 0x40, value));
    let found = Space::new(&held).kept(&[]);
    // The last one's device has no function 0, on a bus that is not the first.
    assert_eq!(found, [(0x0b, 0x40), (0xff, 0x40), (0x7f10, 0x40), (0x7f17, 0x40)]);
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let held: Vec<_> = (0..KEPT_REGISTERS as u16 + 1).map(|function| (function, 0x40, 0x401)).collect();
    let find = |space| KeptRegisters::find(&space, |base| base == 0x400, &[]);
    assert_eq!(find(Space::new(&held[1..])).map(|kept| kept.iter().count()), Ok(KEPT_REGISTERS));
    assert_eq!(find(Space::new(&held)).err(), Some(TooMany));
}

#[test]
fn any_byte_of_a_register_is_kept_and_none_beside_it() {
    let kept = KeptRegisters::find(&Space::new(&[(0x0b, 0x40, 0x401)]), |base| base == 0x400, &[]).unwrap();
    for (offset, width) in [(0x40, 1), (0x43, 1), (0x42, 2), (0x40, 4), (0x40, 8), (0x38, 16), (0x3f, 2)] {
        assert!(kept.touches(0x0b, offset, width), "{offset:#x} {width}");
    }
    for (offset, width) in [(0x3f, 1), (0x44, 8), (0x38, 8), (0x140, 4), (0x3c, 4), (0xffff, 1)] {
        assert!(!kept.touches(0x0b, offset, width), "{offset:#x} {width}");
    }
    assert!(!kept.touches(0x0a, 0x40, 4) && !kept.is_empty() && KeptRegisters::default().is_empty());
}
