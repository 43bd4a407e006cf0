use super::*;
use crate::reset::kept_registers::ConfigurationSpace;
use PortWidth::{Byte, Dword, Word};
use platform::handoff::SleepPorts;

fn by(table: PowerPorts) -> PowerControl {
    PowerControl::new(&[table])
}

fn control(power_off_types: u8) -> PowerControl {
    by(PowerPorts {
        reset_port: 0x610,
        reset_value: 0x0e,
        pm1: [Pm1Ports { a_control: 0xb004, a_status: 0xb000, ..Pm1Ports::default() }, Pm1Ports::default()],
        power_off_types,
        ..NO_POWER_PORTS
    })
}

/// Whether a write ends the guest; else it is performed as it is.
fn ends(port: u16, width: PortWidth, value: u32) -> bool {
    let done = control(0).write(port, width, value);
    assert!(matches!(done, Write::Ends) || done == Write::Performed(value));
    done == Write::Ends
}

#[test]
fn both_ways_of_the_keyboard_controller_reset_at_any_width() {
    assert!(ends(0x64, Byte, 0xfe) && ends(0x63, Word, 0xfe00) && ends(0x61, Dword, 0xfe00_0000));
    for (port, width, value) in [(0x60, Byte, 0xfe), (0x5f, Word, 0xfe00), (0x60, Dword, 0xfe)] {
        let control = control(0);
        assert_eq!(control.write(port, width, value), Write::Performed(value));
        assert_eq!(control.write(0x64, Byte, 0xd1), Write::Performed(0xd1));
        assert_eq!(control.write(port, width, value), Write::Ends, "{port:#x}");
    }
}

#[test]
fn fast_reset_and_reset_control_need_their_bit() {
    assert!(ends(0x92, Byte, 3));
    assert!(!ends(0x92, Byte, 2));
    assert!(ends(0xcf9, Byte, 6));
    assert!(!ends(0xcf9, Byte, 2));
    assert!(ends(0xcf8, Word, 0x0600));
    assert!(ends(0xcf9, Dword, 0xe));
}

#[test]
fn a_pci_configuration_address_never_resets() {
    assert!(!ends(0xcf8, Dword, 0x8000_ff04));
}

#[test]
fn the_firmwares_reset_register_wants_its_value() {
    assert!(ends(0x610, Byte, 0x0e));
    assert!(!ends(0x610, Byte, 0x0f));
    assert_eq!(PowerControl::default().write(0, Byte, 0), Write::Performed(0));
}

#[test]
fn sleeping_ends_the_guest_when_it_cuts_the_power_or_may() {
    assert!(ends(0xb004, Word, 0x3401));
    assert!(ends(0xb005, Byte, 0x20));
    assert!(!ends(0xb004, Word, 0x1401));
    let known = control(1 << 5 | 1 << 6);
    assert_eq!(known.write(0xb004, Word, 0x3401), Write::Ends);
    assert_eq!(known.write(0xb005, Byte, 0x38), Write::Ends);
}

#[test]
fn cutting_the_power_is_no_reset() {
    for power_off_types in [0, 1 << 5] {
        let known = control(power_off_types);
        assert!(known.cuts_power(0xb004, Word, 0x3401) && known.cuts_power(0xb005, Byte, 0x34));
        assert!(!known.cuts_power(0x610, Byte, 0x0e) && !known.cuts_power(0xcf9, Byte, 6));
    }
}

/// A machine with two PM1 blocks by each kind of field, which agree on the first.
fn disagreeing() -> PowerControl {
    let pm1 = |b_control, a_status| Pm1Ports { a_control: 0x404, b_control, a_status };
    by(PowerPorts {
        power_off_types: 1 << 5,
        pm1: [pm1(0x504, 0x400), pm1(0x604, 0x420)],
        ..PowerPorts::default()
    })
}

#[test]
fn either_kind_of_field_may_say_where_a_register_is() {
    for register in [0x404, 0x504, 0x604] {
        assert_eq!(disagreeing().write(register, Word, 0x3400), Write::Ends, "{register:#x}");
    }
    let control = disagreeing();
    assert_eq!(control.write(0x604, Word, 0x2400), Write::Performed(0x0400));
    assert_eq!([0x400, 0x420].map(|status| control.read(status, Word, 0)), [0x8000; 2]);
}

#[test]
fn what_cuts_the_power_is_completed_in_the_other_block() {
    let completing = |port, width, value| disagreeing().completing(port, width, value).collect::<Vec<_>>();
    assert_eq!(completing(0x404, Word, 0x3401), [(0x504, 0x34), (0x604, 0x34)]);
    assert_eq!(completing(0x405, Byte, 0xf4), [(0x504, 0x34), (0x604, 0x34)]);
    assert_eq!(completing(0x504, Word, 0x3401), [(0x404, 0x34)]);
    assert_eq!(completing(0x604, Word, 0x3401), [(0x404, 0x34)]);
    assert_eq!(completing(0x404, Word, 0x1401), [], "no sleep");
    assert_eq!(completing(0xcf9, Byte, 6), []);
    assert_eq!(control(0).completing(0xb004, Word, 0x3401).count(), 0, "one block");
}

#[test]
fn another_sleep_is_left_out_of_the_write() {
    let known = control(1);
    assert_eq!(known.write(0xb004, Word, 0x2401), Write::Performed(0x0401));
    assert_eq!(known.write(0xb005, Byte, 0x24), Write::Performed(0x04));
    assert_eq!(known.write(0xb004, Dword, 0x2401), Write::Performed(0x0401));
}

/// A block whose registers follow each other, or tables of which one is wrong by a word.
#[test]
fn every_sleep_of_a_wide_write_is_looked_at() {
    let pm1 = Pm1Ports { a_control: 0x404, b_control: 0x406, ..Pm1Ports::default() };
    let control = by(PowerPorts { power_off_types: 1 << 5, pm1: [pm1; 2], ..PowerPorts::default() });
    assert_eq!(control.write(0x404, Dword, 0x2401_2401), Write::Performed(0x0401_0401));
    assert_eq!(control.write(0x405, Dword, 0x24_0124), Write::Performed(0x04_0104));
    assert_eq!(control.write(0x404, Dword, 0x3401_2401), Write::Ends, "the second cuts the power");
    assert_eq!(control.write(0x404, Dword, 0x1401_2401), Write::Performed(0x1401_0401));
}

#[test]
fn a_sleep_that_is_left_out_ends_at_once_for_the_guest() {
    let known = control(1);
    let status = |width, port| known.read(port, width, 1);
    assert_eq!(status(Word, 0xb000), 1);
    known.write(0xb004, Word, 0x0401);
    assert_eq!(status(Word, 0xb000), 1, "without SLP_EN");
    known.write(0xb004, Word, 0x2401);
    assert_eq!((status(Word, 0xb000), status(Dword, 0xb000), status(Byte, 0xb001)), (0x8001, 0x8001, 0x81));
    assert_eq!((status(Byte, 0xb000), status(Word, 0xb002)), (1, 1));
    assert_eq!(known.write(0xb000, Word, 0x0100), Write::Performed(0x0100));
    assert_eq!(status(Word, 0xb000), 0x8001, "another bit was cleared");
    assert_eq!(known.write(0xb000, Word, 0x8000), Write::Performed(0x8000));
    assert_eq!(status(Word, 0xb000), 1);
}

#[test]
fn sleep_registers_of_hardware_reduced_machines_are_watched() {
    let sleep = SleepPorts { control: 0x605, status: 0x606 };
    for (power_off_types, s3, s5) in
        [(0, Write::Ends, Write::Ends), (1 << 5, Write::Performed(0x0c), Write::Ends)]
    {
        let control = by(PowerPorts { power_off_types, sleep, ..NO_POWER_PORTS });
        assert!(control.intercepted().any(|port| port == 0x605));
        assert_eq!(control.write(0x605, Byte, 0x2c), s3, "{power_off_types:#x}");
        assert_eq!(control.write(0x605, Byte, 0x34), s5, "{power_off_types:#x}");
        assert!(control.cuts_power(0x605, Byte, 0x34) && control.completing(0x605, Byte, 0x34).count() == 0);
        let woken = if power_off_types == 0 { 0 } else { 0x80 };
        assert_eq!(control.read(0x606, Byte, 0), woken, "{power_off_types:#x}");
    }
}

#[test]
fn what_either_of_two_tables_says_is_watched() {
    let table = |reset_port, a_control, power_off_types| PowerPorts {
        reset_port,
        reset_value: 6,
        power_off_types,
        pm1: [Pm1Ports { a_control, ..Pm1Ports::default() }; 2],
        ..NO_POWER_PORTS
    };
    let both = PowerControl::new(&[table(0x610, 0x404, 1 << 5), table(0x710, 0x504, 1 << 5)]);
    for port in [0x610, 0x710, 0x405, 0x505] {
        assert!(both.intercepted().any(|watched| watched == port), "{port:#x}");
    }
    assert_eq!([0x610, 0x710].map(|port| both.write(port, Byte, 6)), [Write::Ends; 2]);
    for register in [0x404, 0x504] {
        assert_eq!(both.write(register, Word, 0x3400), Write::Ends);
        assert_eq!(both.write(register, Word, 0x2400), Write::Performed(0x0400));
    }
    // Nobody knows which table's types hold: any sleep may cut the power.
    for other in [0, 1 << 6] {
        let differing = PowerControl::new(&[table(0x610, 0x404, 1 << 5), table(0x610, 0x404, other)]);
        assert_eq!(differing.write(0x404, Word, 0x2400), Write::Ends, "{other:#x}");
    }
}

/// PCI configuration space whose functions all hold this in all their registers, of which the ports show one.
struct Configuration(u32);

impl Ports for Configuration {
    fn read(&self, port: u16, _: PortWidth) -> u32 {
        if port == 0xcf8 { 0x8000_0b40 } else { self.0 }
    }
    fn write(&self, _: u16, _: PortWidth, _: u32) {}
}

/// One function, which holds this in its register 40H.
struct Function(u32);

impl ConfigurationSpace for Function {
    fn read(&self, function: u16, register: u8) -> u32 {
        match (function, register) {
            (0x0b, 0x40) => self.0,
            (0x0b, _) => 0,
            _ => u32::MAX,
        }
    }
}

/// `control` of a chipset whose register holds `base`.
fn found(control: PowerControl, base: u32) -> PowerControl {
    let kept = KeptRegisters::find(&Function(base), |port| control.is_base(port), &[]);
    control.keeping(kept.unwrap())
}

#[test]
fn registers_that_are_watched_stay_where_they_are() {
    let moved = |control: fn() -> PowerControl| {
        let ports = 0..0x800_u16;
        let moves = |&base: &u16| found(control(), base.into()).moves(0xcfc, Dword, &Configuration(0));
        ports.filter(moves).collect::<Vec<_>>()
    };
    // Flags are no part of a base.
    let around = |bases: &[u16]| bases.iter().flat_map(|&base| base..base + 4).collect::<Vec<_>>();
    assert_eq!(moved(disagreeing), around(&[0x400, 0x404, 0x420, 0x504, 0x604]));
    assert_eq!(moved(PowerControl::default), []);
    assert!(!disagreeing().intercepted().any(|port| port == 0xcfc), "nothing can be moved");
    assert!(!found(disagreeing(), 0x401).moves(0xcf8, Dword, &Configuration(0)));
}

#[test]
fn every_port_with_an_effect_is_intercepted() {
    for power_off_types in [0, 1] {
        let known = found(control(power_off_types), 0xb001);
        let ports: Vec<_> = known.intercepted().collect();
        known.write(0xb004, Word, 0x2401);
        // Every bit for itself, the keyboard controller's commands, and what the reset register wants.
        let values = || (0..=255_u32).filter(|&v| v.count_ones() < 2 || v >= 0xf0 || v == 0x0e);
        for port in 1..=u16::MAX {
            let changes = |value| {
                // The controller's data port has an effect behind a command.
                known.write(0x64, Byte, 0xd1);
                known.write(port, Byte, value) != Write::Performed(value)
            };
            let moves = known.moves(port, Byte, &Configuration(0xb001));
            let has_effect = known.read(port, Byte, 0) != 0 || values().any(changes) || moves;
            assert_eq!(has_effect, ports.contains(&port), "port {port:#x}");
        }
    }
}
