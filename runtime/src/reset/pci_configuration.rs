//! PCI configuration space by ports, as far as a register there says where the power-management registers are (PCI Local
//! Bus Specification, "Software Generation of Configuration Transactions").
//!
//! A chipset has that register, PMBASE by name, in its bridge to the old buses or in a function of its own, and a guest
//! that wrote another port there could put the machine to sleep unseen: the firmware would wake it without the
//! hypervisor. No chipset is known here: whatever register holds the base of registers that are watched keeps it. Reading
//! configuration space changes nothing, so it is asked what the register holds before each write.

use core::ops::RangeInclusive;
use hw::{PortWidth, Ports};

/// Which register the data ports show, by a write of 32 bits.
pub const ADDRESS: u16 = 0xcf8;
/// The register's four bytes.
pub const DATA: RangeInclusive<u16> = 0xcfc..=0xcff;
/// Registers that every function has alike come before: a command register holds what may look like a base.
const FIRST_OWN_REGISTER: u32 = 0x10;
/// The register's number in what was written to [`ADDRESS`].
const REGISTER: u32 = 0xfc;
/// What else than the base the register has: that it is one of ports, and that it is in force.
const FLAGS: u32 = 3;

/// Returns whether an access is one of configuration space, or chooses the register for one.
#[must_use]
pub fn touches(port: u16, width: PortWidth) -> bool {
    let last = port.wrapping_add(width as u16 - 1);
    port <= *DATA.end() && last >= ADDRESS
}

/// Returns whether a write to the data ports would change a register that holds a base for which `is_kept` says so.
pub fn moves(port: u16, width: PortWidth, ports: &impl Ports, is_kept: impl Fn(u16) -> bool) -> bool {
    let last = port.wrapping_add(width as u16 - 1);
    if port > *DATA.end() || last < *DATA.start() {
        return false;
    }
    if ports.read(ADDRESS, PortWidth::Dword) & REGISTER < FIRST_OWN_REGISTER {
        return false;
    }
    let held = ports.read(*DATA.start(), PortWidth::Dword) & !FLAGS;
    u16::try_from(held).is_ok_and(is_kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortWidth::{Byte, Dword, Word};

    /// Configuration space whose present register has this number and holds this.
    struct Register(u32, u32);

    impl Ports for Register {
        fn read(&self, port: u16, width: PortWidth) -> u32 {
            assert_eq!(width, Dword);
            match port {
                0xcf8 => 0x8000_0b00 | self.0,
                0xcfc => self.1,
                _ => panic!("{port:#x} is none of these ports"),
            }
        }
        fn write(&self, _: u16, _: PortWidth, _: u32) {
            panic!("looking changes nothing")
        }
    }

    fn moves_from(held: u32, port: u16, width: PortWidth) -> bool {
        moves(port, width, &Register(0x40, held), |base| base == 0x400)
    }

    #[test]
    fn the_register_that_holds_the_base_keeps_it() {
        for held in [0x400, 0x401, 0x403] {
            for (port, width) in [(0xcfc, Dword), (0xcfd, Byte), (0xcfe, Word), (0xcff, Byte), (0xcfb, Word)]
            {
                assert!(moves_from(held, port, width), "{held:#x} {port:#x}");
            }
        }
    }

    #[test]
    fn other_registers_and_ports_are_the_guests() {
        for held in [0, 0x404, 0x1_0400, 0x8000_0400, u32::MAX] {
            assert!(!moves_from(held, 0xcfc, Dword), "{held:#x}");
        }
        for (port, width) in [(0xcf8, Dword), (0xd00, Byte), (0xcfb, Byte), (0xffff, Dword)] {
            assert!(!moves_from(0x401, port, width), "{port:#x}");
        }
    }

    #[test]
    fn what_every_function_has_is_no_base() {
        // A command register with interrupts disabled, of a function without status.
        for (register, is_kept) in [(4, false), (0xc, false), (0x10, true), (0xfc, true)] {
            let held = Register(register, 0x403);
            assert_eq!(moves(0xcfc, Word, &held, |base| base == 0x400), is_kept, "{register:#x}");
        }
    }

    #[test]
    fn address_and_data_are_held_together() {
        assert!(
            touches(0xcf8, Dword) && touches(0xcfc, Byte) && touches(0xcff, Dword) && touches(0xcf7, Word)
        );
        assert!(!touches(0xcf7, Byte) && !touches(0xd00, Dword) && !touches(0xffff, Dword));
    }
}
