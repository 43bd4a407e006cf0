//! The keyboard controller's ways to the reset line (IBM PC AT Technical Reference, "Keyboard Controller").
//!
//! Commands F0H to FFH pulse the output lines whose bit is 0; command D1H has the next data byte set the lines, and
//! holds the reset line for as long as its bit is 0. So each data byte exits. That costs one exit a key or a piece
//! of a mouse's movement, beside the one by which the guest reads the status first.

use core::sync::atomic::{AtomicBool, Ordering};
use hw::PortWidth;
use spin::{Mutex, MutexGuard};

/// Data port.
pub const DATA: u16 = 0x60;
/// Command and status port.
pub const COMMAND: u16 = 0x64;
/// The command whose data byte sets the output lines.
const WRITE_OUTPUT_PORT: u8 = 0xd1;
/// Line 0 of the output port: 0 resets the processor.
pub const RESET_LINE: u8 = 1;

/// What the controller waits for.
#[derive(Debug, Default)]
pub struct KeyboardController {
    is_output_awaited: AtomicBool,
    order: Mutex<()>,
}

impl KeyboardController {
    /// Makes a controller that waits for nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_output_awaited: AtomicBool::new(false), order: Mutex::new(()) }
    }

    /// Keeps other CPUs from the controller until a write that touches it has reached the hardware: a command and a
    /// data byte of two CPUs are looked at in the order in which the controller gets them.
    #[must_use]
    pub fn hold(&self, port: u16, width: PortWidth) -> Option<MutexGuard<'_, ()>> {
        let last = port.wrapping_add(width as u16 - 1);
        (port <= COMMAND && last >= DATA).then(|| self.order.lock())
    }

    /// Takes note of a byte on its way to the controller; returns whether it resets the processor.
    ///
    /// Behind command D1H another command without a data byte leaves some controllers waiting for the one of D1H (QEMU's
    /// does), and one that comes while the controller is busy may get lost. So only a data byte ends the wait: systems
    /// send it right behind the command.
    pub fn write(&self, port: u16, byte: u8) -> bool {
        match port {
            COMMAND => {
                self.is_output_awaited.fetch_or(byte == WRITE_OUTPUT_PORT, Ordering::Relaxed);
                byte & 0xf0 == 0xf0 && byte & RESET_LINE == 0
            }
            DATA => self.is_output_awaited.swap(false, Ordering::Relaxed) && byte & RESET_LINE == 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortWidth::{Byte, Dword, Word};

    #[test]
    fn pulses_of_line_0_reset() {
        let controller = KeyboardController::new();
        let resetting = (0..=255).filter(|&value| controller.write(COMMAND, value));
        assert_eq!(resetting.collect::<Vec<_>>(), [0xf0, 0xf2, 0xf4, 0xf6, 0xf8, 0xfa, 0xfc, 0xfe]);
    }

    #[test]
    fn a_data_byte_resets_behind_its_command_alone() {
        let controller = KeyboardController::new();
        assert!(!controller.write(DATA, 0xfe), "no command");
        for (command, byte, resets) in [(0xd1, 0xfe, true), (0xd1, 0xdf, false), (0xd2, 0xfe, false)] {
            assert!(!controller.write(COMMAND, command));
            assert_eq!(controller.write(DATA, byte), resets, "{command:#x} {byte:#x}");
            assert!(!controller.write(DATA, 0xfe), "a second byte behind {command:#x}");
        }
    }

    #[test]
    fn another_command_does_not_end_the_wait_for_a_data_byte() {
        let controller = KeyboardController::new();
        for between in [0xad, 0xae, 0x20, 0x60, 0xd4] {
            controller.write(COMMAND, 0xd1);
            controller.write(COMMAND, between);
            assert!(controller.write(DATA, 0xfe), "{between:#x} came between");
            assert!(!controller.write(DATA, 0xfe), "a second byte behind {between:#x}");
        }
    }

    #[test]
    fn every_access_that_touches_a_port_is_held() {
        let controller = KeyboardController::new();
        let held = |port, width| controller.hold(port, width).is_some();
        assert!(
            held(0x60, Byte)
                && held(0x64, Byte)
                && held(0x5f, Word)
                && held(0x5d, Dword)
                && held(0x61, Dword)
        );
        assert!(!held(0x5f, Byte) && !held(0x65, Byte) && !held(0x5c, Dword) && !held(0x65, Dword));
        assert!(!held(0xffff, Byte));
    }
}
