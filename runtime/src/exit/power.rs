//! Ports by which a guest resets the machine or cuts its power.
//!
//! Known are the keyboard controller's pulse of its reset line, the fast reset of port 92H, the reset control
//! register at CF9H, the FADT's reset register, and SLP_EN in the PM1 control registers. The keyboard
//! controller's other way, command D1H and then a data byte, is not: its data port would have to exit.
//!
//! A sleep from which the firmware wakes the machine would hand it to the guest without us. Where the type
//! of soft-off is known, SLP_EN with any other type is left out of the write, and the guest waits for a
//! wake-up that does not come; where it is not known, every SLP_EN ends the guest first.

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

/// What is known of the machine's power control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerControl {
    /// Ports that the FADT names.
    pub ports: PowerPorts,
    /// SLP_TYP of soft-off, from the \_S5 object; `None` where that was not read.
    pub soft_off_type: Option<u8>,
}

/// What a port write would do to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing of note.
    None,
    /// It resets the machine or cuts its power.
    Ends,
    /// It begins a sleep that must not be; this value instead does the rest of what the write does.
    Sleep {
        /// The value without SLP_EN.
        instead: u32,
    },
}

impl PowerControl {
    /// The ports that must exit, for the I/O bitmap.
    pub fn intercepted(&self) -> impl Iterator<Item = u16> {
        let sleep = self.sleep_ports();
        [KEYBOARD_COMMAND, SYSTEM_CONTROL_A, RESET_CONTROL]
            .into_iter()
            .chain(Some(self.ports.reset_port).filter(|&port| port != 0))
            .chain(sleep.into_iter().flatten())
    }

    /// What writing `value` to `port` does, each of its bytes taken for itself.
    #[must_use]
    pub fn effect(&self, port: u16, width: PortWidth, value: u32) -> Effect {
        if port == PCI_ADDRESS && width == PortWidth::Dword {
            return Effect::None;
        }
        let bytes = value.to_le_bytes();
        let touched = || (0..width as u16).map(|index| (port.wrapping_add(index), bytes[usize::from(index)]));
        if touched().any(|(port, byte)| self.resets(port, byte)) {
            return Effect::Ends;
        }
        let Some(index) = touched().position(|(port, byte)| self.sleeps(port, byte)) else {
            return Effect::None;
        };
        let sleep_type = bytes[index] >> 2 & 7;
        if self.soft_off_type.is_none_or(|soft_off| soft_off == sleep_type) {
            Effect::Ends
        } else {
            Effect::Sleep { instead: value & !(u32::from(SLEEP_ENABLE) << (8 * index)) }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortWidth::{Byte, Dword, Word};

    fn control(soft_off_type: Option<u8>) -> PowerControl {
        let ports = PowerPorts {
            reset_port: 0x610,
            reset_value: 0x0e,
            pm1a_control: 0xb004,
            pm1b_control: 0,
            reserved: 0,
        };
        PowerControl { ports, soft_off_type }
    }

    fn effect(port: u16, width: PortWidth, value: u32) -> Effect {
        control(None).effect(port, width, value)
    }

    #[test]
    fn keyboard_controller_pulses_of_line_0_reset() {
        let resetting = (0..=255).filter(|&value| effect(0x64, Byte, value) == Effect::Ends);
        assert_eq!(resetting.collect::<Vec<_>>(), [0xf0, 0xf2, 0xf4, 0xf6, 0xf8, 0xfa, 0xfc, 0xfe]);
    }

    #[test]
    fn fast_reset_and_reset_control_need_their_bit() {
        assert_eq!(effect(0x92, Byte, 3), Effect::Ends);
        assert_eq!(effect(0x92, Byte, 2), Effect::None);
        assert_eq!(effect(0xcf9, Byte, 6), Effect::Ends);
        assert_eq!(effect(0xcf9, Byte, 2), Effect::None);
        assert_eq!(effect(0xcf8, Word, 0x0600), Effect::Ends);
        assert_eq!(effect(0xcf9, Dword, 0xe), Effect::Ends);
    }

    #[test]
    fn a_pci_configuration_address_never_resets() {
        assert_eq!(effect(0xcf8, Dword, 0x8000_ff04), Effect::None);
    }

    #[test]
    fn the_firmwares_reset_register_wants_its_value() {
        assert_eq!(effect(0x610, Byte, 0x0e), Effect::Ends);
        assert_eq!(effect(0x610, Byte, 0x0f), Effect::None);
        assert_eq!(PowerControl::default().effect(0, Byte, 0), Effect::None);
    }

    #[test]
    fn sleeping_ends_the_guest_when_it_is_soft_off_or_unknown() {
        assert_eq!(effect(0xb004, Word, 0x3401), Effect::Ends);
        assert_eq!(effect(0xb005, Byte, 0x20), Effect::Ends);
        assert_eq!(effect(0xb004, Word, 0x1401), Effect::None);
        assert_eq!(control(Some(5)).effect(0xb004, Word, 0x3401), Effect::Ends);
    }

    #[test]
    fn another_sleep_is_left_out_of_the_write() {
        let known = control(Some(0));
        assert_eq!(known.effect(0xb004, Word, 0x2401), Effect::Sleep { instead: 0x0401 });
        assert_eq!(known.effect(0xb005, Byte, 0x24), Effect::Sleep { instead: 0x04 });
        assert_eq!(known.effect(0xb004, Dword, 0x2401), Effect::Sleep { instead: 0x0401 });
    }

    #[test]
    fn every_port_with_an_effect_is_intercepted() {
        let known = control(None);
        let ports: Vec<_> = known.intercepted().collect();
        for port in 1..=u16::MAX {
            let has_effect = (0..=255).any(|value| known.effect(port, Byte, value) != Effect::None);
            assert_eq!(has_effect, ports.contains(&port), "port {port:#x}");
        }
    }
}
