//! Ports by which a guest resets the machine or cuts its power.
//!
//! Known are the keyboard controller's pulse of its reset line, the fast reset of port 92H, the reset control
//! register at CF9H, the FADT's reset register, and SLP_EN in the PM1 control registers. The keyboard
//! controller's other way, command D1H and then a data byte, is not: its data port would have to exit.
//!
//! A sleep from which the firmware wakes the machine would hand it to the guest without us. Where the types of
//! \_S4 and \_S5 are known, SLP_EN with any other type is left out of the write, and WAK_STS reads as set until
//! the guest clears it: a sleep that ended at once, after which an operating system resumes as from any other.
//! Where they are not known, every SLP_EN ends the guest first, as what cuts the power does.

use core::sync::atomic::{AtomicBool, Ordering};
use hw::PortWidth;
use platform::handoff::PowerPorts;

/// Keyboard controller command port.
const KEYBOARD_COMMAND: u16 = 0x64;
/// System control port A.
const SYSTEM_CONTROL_A: u16 = 0x92;
/// PCI configuration address; one 32-bit write, of which the upper bytes lie over the reset control register.
const PCI_ADDRESS: u16 = 0xcf8;
/// Reset control register.
const RESET_CONTROL: u16 = 0xcf9;
/// SLP_EN in the high byte of a PM1 control register (ACPI, "PM1 Control Grouping").
const SLEEP_ENABLE: u8 = 1 << 5;
/// WAK_STS in the high byte of a PM1 status register (ACPI, "PM1 Event Grouping").
const WAKE_STATUS: u8 = 1 << 7;

/// The machine's power control.
#[derive(Debug, Default)]
pub struct PowerControl {
    ports: PowerPorts,
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
        Self { ports, has_woken: AtomicBool::new(false) }
    }

    /// The ports that must exit, for the I/O bitmap.
    pub fn intercepted(&self) -> impl Iterator<Item = u16> {
        let optional = [Some(self.ports.reset_port).filter(|&port| port != 0), self.wake_port()];
        [KEYBOARD_COMMAND, SYSTEM_CONTROL_A, RESET_CONTROL]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .chain(self.sleep_ports().into_iter().flatten())
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
        if touched().any(|(port, byte)| self.wake_port() == Some(port) && byte & WAKE_STATUS != 0) {
            self.has_woken.store(false, Ordering::Relaxed);
        }
        let Some(index) = touched().position(|(port, byte)| self.sleeps(port, byte)) else {
            return Write::Performed(value);
        };
        let (off, sleep_type) = (self.ports.power_off_types, bytes[index] >> 2 & 7);
        if off == 0 || off >> sleep_type & 1 != 0 {
            return Write::Ends;
        }
        self.has_woken.store(true, Ordering::Relaxed);
        Write::Performed(value & !(u32::from(SLEEP_ENABLE) << (8 * index)))
    }

    /// Whether a write that ends the guest cuts the power, or may, where others reset the machine.
    pub fn cuts_power(&self, port: u16, width: PortWidth, value: u32) -> bool {
        let bytes = value.to_le_bytes();
        touched(port, width).any(|(index, port)| self.sleeps(port, bytes[usize::from(index)]))
    }

    /// What the guest reads at `port`, where the hardware has `value`.
    pub fn read(&self, port: u16, width: PortWidth, value: u32) -> u32 {
        let mut wakes = touched(port, width).filter(|&(_, port)| self.wake_port() == Some(port));
        match wakes.next() {
            Some((index, _)) if self.has_woken.load(Ordering::Relaxed) => {
                value | u32::from(WAKE_STATUS) << (8 * index)
            }
            _ => value,
        }
    }

    fn resets(&self, port: u16, byte: u8) -> bool {
        let is_firmwares = port != 0 && port == self.ports.reset_port && byte == self.ports.reset_value;
        is_firmwares
            || match port {
                // Commands F0H to FFH pulse the output lines whose bit is 0; line 0 is the reset.
                KEYBOARD_COMMAND => byte & 0xf1 == 0xf0,
                SYSTEM_CONTROL_A => byte & 1 != 0,
                RESET_CONTROL => byte & 4 != 0,
                _ => false,
            }
    }

    fn sleeps(&self, port: u16, byte: u8) -> bool {
        byte & SLEEP_ENABLE != 0 && self.sleep_ports().contains(&Some(port))
    }

    /// High bytes of the PM1 control registers.
    fn sleep_ports(&self) -> [Option<u16>; 2] {
        [self.ports.pm1a_control, self.ports.pm1b_control]
            .map(|port| if port == 0 { None } else { port.checked_add(1) })
    }

    /// High byte of the PM1a status register, where a sleep can be left out.
    fn wake_port(&self) -> Option<u16> {
        let is_known = self.ports.power_off_types != 0 && self.ports.pm1a_status != 0;
        if is_known { self.ports.pm1a_status.checked_add(1) } else { None }
    }
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
            pm1a_control: 0xb004,
            pm1a_status: 0xb000,
            power_off_types,
            ..PowerPorts::default()
        })
    }

    /// Whether a write ends the guest; else it is performed as it is.
    fn ends(port: u16, width: PortWidth, value: u32) -> bool {
        let done = control(0).write(port, width, value);
        assert!(matches!(done, Write::Ends) || done == Write::Performed(value));
        done == Write::Ends
    }

    #[test]
    fn keyboard_controller_pulses_of_line_0_reset() {
        let resetting = (0..=255).filter(|&value| ends(0x64, Byte, value));
        assert_eq!(resetting.collect::<Vec<_>>(), [0xf0, 0xf2, 0xf4, 0xf6, 0xf8, 0xfa, 0xfc, 0xfe]);
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

    #[test]
    fn another_sleep_is_left_out_of_the_write() {
        let known = control(1);
        assert_eq!(known.write(0xb004, Word, 0x2401), Write::Performed(0x0401));
        assert_eq!(known.write(0xb005, Byte, 0x24), Write::Performed(0x04));
        assert_eq!(known.write(0xb004, Dword, 0x2401), Write::Performed(0x0401));
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
                let has_effect = known.read(port, Byte, 0) != 0
                    || values().any(|value| known.write(port, Byte, value) != Write::Performed(value));
                assert_eq!(has_effect, ports.contains(&port), "port {port:#x}");
            }
        }
    }
}
