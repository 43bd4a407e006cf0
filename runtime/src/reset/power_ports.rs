//! Ports by which a guest resets the machine or cuts its power.
//!
//! Known are the keyboard controller's two ways to its reset line ([`super::keyboard_controller`]), the fast reset of
//! port 92H, the reset control register at CF9H, the FADT's reset register, and SLP_EN in the PM1 control registers,
//! wherever either kind of the FADT's fields says that they are; where ACPI is hardware-reduced, the same bits of
//! SLEEP_CONTROL_REG. Where the root tables name several FADTs, what any says counts.
//!
//! A sleep from which the firmware wakes the machine would hand it to the guest without us. Where the types of
//! \_S4 and \_S5 are known, SLP_EN with any other type is left out of the write, and WAK_STS reads as set until
//! the guest clears it: a sleep that ended at once, after which an operating system resumes as from any other.
//! Where they are not known, every SLP_EN ends the guest first, as what cuts the power does.
//!
//! The guest could move the registers to ports that nobody watches: [`super::kept_registers`] are those that it cannot
//! write.

use super::kept_registers::KeptRegisters;
use super::keyboard_controller::{self, KeyboardController};
use super::pci_configuration;
use core::sync::atomic::{AtomicBool, Ordering};
use hw::{PortWidth, Ports};
use platform::handoff::{NO_POWER_PORTS, POWER_TABLE_CAPACITY, Pm1Ports, PowerPorts};
use spin::{Mutex, MutexGuard};

/// System control port A.
pub const SYSTEM_CONTROL_A: u16 = 0x92;
/// PCI configuration address; one 32-bit write, of which the upper bytes lie over the reset control register.
const PCI_ADDRESS: u16 = pci_configuration::ADDRESS;
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
    tables: [PowerPorts; POWER_TABLE_CAPACITY],
    /// SLP_TYPs that cut the power, where every table knows them and they agree; else 0.
    power_off_types: u8,
    keyboard: KeyboardController,
    /// Registers that say where those of the tables are.
    kept: KeptRegisters,
    /// Held while PCI configuration space is accessed: an access is two of ports.
    pci: Mutex<()>,
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
    /// Makes the power control by the `tables` that there are, at most [`POWER_TABLE_CAPACITY`].
    #[must_use]
    pub fn new(tables: &[PowerPorts]) -> Self {
        let mut types =
            tables.iter().filter(|&table| *table != NO_POWER_PORTS).map(|table| table.power_off_types);
        let first = types.next().unwrap_or(0);
        Self {
            tables: core::array::from_fn(|index| tables.get(index).copied().unwrap_or(NO_POWER_PORTS)),
            power_off_types: if types.all(|other| other == first) { first } else { 0 },
            keyboard: KeyboardController::new(),
            kept: KeptRegisters::default(),
            pci: Mutex::new(()),
            has_woken: AtomicBool::new(false),
        }
    }

    /// Returns the same power control, where these registers in PCI configuration space say where it is.
    #[must_use]
    pub fn keeping(self, kept: KeptRegisters) -> Self {
        Self { kept, ..self }
    }

    /// Returns the registers in PCI configuration space that say where it is, and keep their value.
    pub const fn kept(&self) -> &KeptRegisters {
        &self.kept
    }

    /// Returns the ports that must exit, for the I/O bitmap.
    pub fn intercepted(&self) -> impl Iterator<Item = u16> {
        let reset = self.tables.iter().map(|table| table.reset_port).filter(|&port| port != 0);
        [keyboard_controller::DATA, keyboard_controller::COMMAND, SYSTEM_CONTROL_A, RESET_CONTROL]
            .into_iter()
            .chain(reset)
            .chain(self.wake_ports())
            .chain(self.sleep_ports())
            .chain(pci_configuration::DATA.filter(|_| !self.kept.is_empty()))
    }

    /// To be held from [`Self::write`] until the write was performed.
    #[must_use]
    pub fn hold(&self, port: u16, width: PortWidth) -> Option<MutexGuard<'_, ()>> {
        if pci_configuration::touches(port, width) {
            return Some(self.pci.lock());
        }
        self.keyboard.hold(port, width)
    }

    /// Returns whether a write would change a register that is kept: it is not performed, as when the firmware has locked the
    /// register.
    pub fn moves(&self, port: u16, width: PortWidth, ports: &impl Ports) -> bool {
        pci_configuration::changes(port, width, ports, &self.kept)
    }

    /// Returns what becomes of the guest's write of `value` to `port`, each of its bytes taken for itself.
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
        let off = self.power_off_types;
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

    /// Returns whether a write that ends the guest cuts the power, or may, where others reset the machine.
    pub fn cuts_power(&self, port: u16, width: PortWidth, value: u32) -> bool {
        let bytes = value.to_le_bytes();
        touched(port, width).any(|(index, port)| self.sleeps(port, bytes[usize::from(index)]))
    }

    /// Returns what has to be written besides, where `value` at `port` cuts the power: PM1 control registers, each by
    /// its port and the high byte without its other bits. ACPI has both blocks take SLP_TYP and SLP_EN, one after the
    /// other ("PM1 Control Grouping"), and the guest's second write will not come.
    pub fn completing(&self, port: u16, width: PortWidth, value: u32) -> impl Iterator<Item = (u16, u8)> {
        let bytes = value.to_le_bytes();
        let sleeping =
            touched(port, width).find(|&(index, port)| self.sleeps(port, bytes[usize::from(index)]));
        let written = sleeping.map_or(0, |(_, port)| port.wrapping_sub(1));
        let byte = sleeping.map_or(0, |(index, _)| bytes[usize::from(index)]);
        let byte = byte & (SLEEP_ENABLE | 7 << SLEEP_TYPE_SHIFT);
        let others: [u16; 2 * POWER_TABLE_CAPACITY] =
            core::array::from_fn(|index| match self.tables[index / 2].pm1[index % 2] {
                Pm1Ports { a_control, b_control, .. } if a_control == written => b_control,
                Pm1Ports { a_control, b_control, .. } if b_control == written => a_control,
                _ => 0,
            });
        let is_new = move |&(index, other): &(usize, u16)| {
            other != 0 && written != 0 && !others[..index].contains(&other)
        };
        others.into_iter().enumerate().filter(is_new).map(move |(_, other)| (other, byte))
    }

    /// Returns what the guest reads at `port`, where the hardware has `value`.
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
        let is_firmwares = port != 0
            && self.tables.iter().any(|table| port == table.reset_port && byte == table.reset_value);
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

    /// High bytes of the PM1 control registers, and registers that are like one.
    fn sleep_ports(&self) -> impl Iterator<Item = u16> {
        let blocks = self.blocks().flat_map(|ports| [ports.a_control, ports.b_control]);
        let alone = self.tables.iter().map(|table| table.sleep.control).filter(|&port| port != 0);
        blocks.filter_map(high_byte).chain(alone)
    }

    fn blocks(&self) -> impl Iterator<Item = Pm1Ports> {
        self.tables.iter().flat_map(|table| table.pm1)
    }

    /// Returns whether a block of PM1 registers begins at `port`.
    pub fn is_base(&self, port: u16) -> bool {
        let mut registers =
            self.blocks().flat_map(|ports| [ports.a_status, ports.a_control, ports.b_control]);
        port != 0 && registers.any(|register| register == port)
    }

    fn is_wake_port(&self, port: u16) -> bool {
        self.wake_ports().any(|wake| wake == port)
    }

    /// High bytes of the PM1a status register, and registers that are like one, where a sleep can be left out.
    fn wake_ports(&self) -> impl Iterator<Item = u16> {
        let is_known = self.power_off_types != 0;
        let blocks = self.blocks().filter_map(|ports| high_byte(ports.a_status));
        let alone = self.tables.iter().map(|table| table.sleep.status).filter(|&port| port != 0);
        blocks.chain(alone).filter(move |_| is_known)
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
#[path = "power_ports_tests.rs"]
mod tests;
