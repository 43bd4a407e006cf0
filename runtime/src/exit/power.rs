//! Ports by which a guest resets the machine or cuts its power.
//!
//! Known are the keyboard controller's two ways to its reset line ([`super::keyboard_controller`]), the fast reset of
//! port 92H, the reset control register at CF9H, the FADT's reset register, and SLP_EN in the PM1 control registers,
//! wherever either kind of the FADT's fields says that they are.
//!
//! A sleep from which the firmware wakes the machine would hand it to the guest without us. Where the types of
//! \_S4 and \_S5 are known, SLP_EN with any other type is left out of the write, and WAK_STS reads as set until
//! the guest clears it: a sleep that ended at once, after which an operating system resumes as from any other.
//! Where they are not known, every SLP_EN ends the guest first, as what cuts the power does.

use super::keyboard_controller::{self, KeyboardController};
use core::sync::atomic::{AtomicBool, Ordering};
use hw::PortWidth;
use platform::handoff::{Pm1Ports, PowerPorts};
use spin::MutexGuard;

/// System control port A.
pub const SYSTEM_CONTROL_A: u16 = 0x92;
/// PCI configuration address; one 32-bit write, of which the upper bytes lie over the reset control register.
const PCI_ADDRESS: u16 = 0xcf8;
/// Reset control register.
const RESET_CONTROL: u16 = 0xcf9;
/// SLP_EN in the high byte of a PM1 control register (ACPI, "PM1 Control Grouping").
const SLEEP_ENABLE: u8 = 1 << 5;
/// Where SLP_TYP is in that byte.
const SLEEP_TYPE_SHIFT: u32 = 2;
/// WAK_STS in the high byte of a PM1 status register (ACPI, "PM1 Event Grouping").
const WAKE_STATUS: u8 = 1 << 7;

/// The machine's power control.
#[derive(Debug, Default)]
pub struct PowerControl {
    ports: PowerPorts,
    keyboard: KeyboardController,
    /// A sleep was left out, and the guest has not cleared WAK_STS since.
    has_woken: AtomicBool,
}

/// What becomes of a port write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is performed, with this value.
    Performed(u32),
    /// It resets the machine or cuts its power: the guest ends first.
    Ends,
}

impl PowerControl {
    /// The power control by `ports`.
    #[must_use]
    pub const fn new(ports: PowerPorts) -> Self {
        Self { ports, keyboard: KeyboardController::new(), has_woken: AtomicBool::new(false) }
    }

    /// The ports that must exit, for the I/O bitmap.
    pub fn intercepted(&self) -> impl Iterator<Item = u16> {
        let reset = Some(self.ports.reset_port).filter(|&port| port != 0);
        [keyboard_controller::DATA, keyboard_controller::COMMAND, SYSTEM_CONTROL_A, RESET_CONTROL]
            .into_iter()
            .chain(reset)
            .chain(self.wake_ports())
            .chain(self.sleep_ports())
    }

    /// To be held from [`Self::write`] until the write was performed.
    #[must_use]
    pub fn hold(&self, port: u16, width: PortWidth) -> Option<MutexGuard<'_, ()>> {
        self.keyboard.hold(port, width)
    }

    /// What becomes of the guest's write of `value` to `port`, each of its bytes taken for itself.
    pub fn write(&self, port: u16, width: PortWidth, value: u32) -> Write {
        if port == PCI_ADDRESS && width == PortWidth::Dword {
            return Write::Performed(value);
        }
        let bytes = value.to_le_bytes();
        let touched = || touched(port, width).map(|(index, port)| (port, bytes[usize::from(index)]));
        if touched().any(|(port, byte)| self.resets(port, byte)) {
            return Write::Ends;
        }
        if touched().any(|(port, byte)| self.is_wake_port(port) && byte & WAKE_STATUS != 0) {
            self.has_woken.store(false, Ordering::Relaxed);
        }
        let sleeps = || (0_u32..).zip(touched()).filter(|&(_, (port, byte))| self.sleeps(port, byte));
        let off = self.ports.power_off_types;
        if sleeps().any(|(_, (_, byte))| off == 0 || off >> (byte >> SLEEP_TYPE_SHIFT & 7) & 1 != 0) {
            return Write::Ends;
        }
        // One access can reach the registers of both blocks.
        let left_out = sleeps().fold(0, |bits, (index, _)| bits | u32::from(SLEEP_ENABLE) << (8 * index));
        if left_out != 0 {
            self.has_woken.store(true, Ordering::Relaxed);
        }
        Write::Performed(value & !left_out)
    }

    /// Whether a write that ends the guest cuts the power, or may, where others reset the machine.
    pub fn cuts_power(&self, port: u16, width: PortWidth, value: u32) -> bool {
        let bytes = value.to_le_bytes();
        touched(port, width).any(|(index, port)| self.sleeps(port, bytes[usize::from(index)]))
    }

    /// What has to be written besides, where `value` at `port` cuts the power: PM1 control registers, each by its port
    /// and the high byte without its other bits. ACPI has both blocks take SLP_TYP and SLP_EN, one after the other
    /// ("PM1 Control Grouping"), and the guest's second write will not come.
    pub fn completing(&self, port: u16, width: PortWidth, value: u32) -> impl Iterator<Item = (u16, u8)> {
        let bytes = value.to_le_bytes();
        let sleeping =
            touched(port, width).find(|&(index, port)| self.sleeps(port, bytes[usize::from(index)]));
        let written = sleeping.map_or(0, |(_, port)| port.wrapping_sub(1));
        let byte = sleeping.map_or(0, |(index, _)| bytes[usize::from(index)]);
        let byte = byte & (SLEEP_ENABLE | 7 << SLEEP_TYPE_SHIFT);
        let [first, second] = self.ports.pm1.map(|ports| match ports {
            Pm1Ports { a_control, b_control, .. } if a_control == written => b_control,
            Pm1Ports { a_control, b_control, .. } if b_control == written => a_control,
            _ => 0,
        });
        let second = if second == first { 0 } else { second };
        [first, second]
            .into_iter()
            .filter(move |&other| other != 0 && written != 0)
            .map(move |other| (other, byte))
    }

    /// What the guest reads at `port`, where the hardware has `value`.
    pub fn read(&self, port: u16, width: PortWidth, value: u32) -> u32 {
        let mut wakes = touched(port, width).filter(|&(_, port)| self.is_wake_port(port));
        match wakes.next() {
            Some((index, _)) if self.has_woken.load(Ordering::Relaxed) => {
                value | u32::from(WAKE_STATUS) << (8 * index)
            }
            _ => value,
        }
    }

    fn resets(&self, port: u16, byte: u8) -> bool {
        let is_firmwares = port != 0 && port == self.ports.reset_port && byte == self.ports.reset_value;
        // The controller's part comes first: it takes note of the byte.
        self.keyboard.write(port, byte)
            || is_firmwares
            || match port {
                SYSTEM_CONTROL_A => byte & 1 != 0,
                RESET_CONTROL => byte & 4 != 0,
                _ => false,
            }
    }

    fn sleeps(&self, port: u16, byte: u8) -> bool {
        byte & SLEEP_ENABLE != 0 && self.sleep_ports().any(|sleep| sleep == port)
    }

    /// High bytes of the PM1 control registers.
    fn sleep_ports(&self) -> impl Iterator<Item = u16> {
        let blocks = self.ports.pm1.into_iter().flat_map(|ports| [ports.a_control, ports.b_control]);
        blocks.filter_map(high_byte)
    }

    fn is_wake_port(&self, port: u16) -> bool {
        self.wake_ports().any(|wake| wake == port)
    }

    /// High bytes of the PM1a status register, where a sleep can be left out.
    fn wake_ports(&self) -> impl Iterator<Item = u16> {
        let is_known = self.ports.power_off_types != 0;
        self.ports.pm1.into_iter().filter(move |_| is_known).filter_map(|ports| high_byte(ports.a_status))
    }
}

/// Port of a register's high byte; `None` where there is no register.
fn high_byte(register: u16) -> Option<u16> {
    if register == 0 { None } else { register.checked_add(1) }
}

/// Ports of an access, each with its place in it.
fn touched(port: u16, width: PortWidth) -> impl Iterator<Item = (u16, u16)> {
    (0..width as u16).map(move |index| (index, port.wrapping_add(index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortWidth::{Byte, Dword, Word};

    fn control(power_off_types: u8) -> PowerControl {
        PowerControl::new(PowerPorts {
            reset_port: 0x610,
            reset_value: 0x0e,
            pm1: [
                Pm1Ports { a_control: 0xb004, a_status: 0xb000, ..Pm1Ports::default() },
                Pm1Ports::default(),
            ],
            power_off_types,
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
        PowerControl::new(PowerPorts {
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
        let completing =
            |port, width, value| disagreeing().completing(port, width, value).collect::<Vec<_>>();
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
        let control =
            PowerControl::new(PowerPorts { power_off_types: 1 << 5, pm1: [pm1; 2], ..PowerPorts::default() });
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
        assert_eq!(
            (status(Word, 0xb000), status(Dword, 0xb000), status(Byte, 0xb001)),
            (0x8001, 0x8001, 0x81)
        );
        assert_eq!((status(Byte, 0xb000), status(Word, 0xb002)), (1, 1));
        assert_eq!(known.write(0xb000, Word, 0x0100), Write::Performed(0x0100));
        assert_eq!(status(Word, 0xb000), 0x8001, "another bit was cleared");
        assert_eq!(known.write(0xb000, Word, 0x8000), Write::Performed(0x8000));
        assert_eq!(status(Word, 0xb000), 1);
    }

    #[test]
    fn every_port_with_an_effect_is_intercepted() {
        for power_off_types in [0, 1] {
            let known = control(power_off_types);
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
                let has_effect = known.read(port, Byte, 0) != 0 || values().any(changes);
                assert_eq!(has_effect, ports.contains(&port), "port {port:#x}");
            }
        }
    }
}
