//! PCI configuration space by ports (PCI Local Bus Specification, "Software Generation of Configuration Transactions").

use super::kept_registers::{ConfigurationSpace, KeptRegisters};
use core::ops::RangeInclusive;
use hw::{PortWidth, Ports};

/// Which register the data ports show, by a write of 32 bits.
pub const ADDRESS: u16 = 0xcf8;
/// The register's four bytes.
pub const DATA: RangeInclusive<u16> = 0xcfc..=0xcff;
/// In what is written to [`ADDRESS`]: accesses of the data ports are such.
const ENABLE: u32 = 0x8000_0000;
/// The register's number in it.
const REGISTER: u32 = 0xfc;
/// Where in it bus, device and function are.
const FUNCTION_SHIFT: u32 = 8;

/// Configuration space by the ports of a machine that nobody else uses meanwhile.
#[derive(Debug)]
pub struct ByPorts<'a, P: Ports> {
    ports: &'a P,
    address: u32,
}

impl<'a, P: Ports> ByPorts<'a, P> {
    /// By these ports, which show the register that they showed when it is dropped.
    pub fn new(ports: &'a P) -> Self {
        Self { ports, address: ports.read(ADDRESS, PortWidth::Dword) }
    }
}

impl<P: Ports> ConfigurationSpace for ByPorts<'_, P> {
    fn read(&self, function: u16, register: u8) -> u32 {
        let address = ENABLE | u32::from(function) << FUNCTION_SHIFT | u32::from(register) & REGISTER;
        self.ports.write(ADDRESS, PortWidth::Dword, address);
        self.ports.read(*DATA.start(), PortWidth::Dword)
    }
}

impl<P: Ports> Drop for ByPorts<'_, P> {
    fn drop(&mut self) {
        self.ports.write(ADDRESS, PortWidth::Dword, self.address);
    }
}

/// Returns whether an access is one of configuration space, or chooses the register for one.
#[must_use]
pub fn touches(port: u16, width: PortWidth) -> bool {
    let last = port.wrapping_add(width as u16 - 1);
    port <= *DATA.end() && last >= ADDRESS
}

/// Returns whether a write to the data ports would change a register that is kept.
pub fn changes(port: u16, width: PortWidth, ports: &impl Ports, kept: &KeptRegisters) -> bool {
    let last = port.wrapping_add(width as u16 - 1);
    if kept.is_empty() || port > *DATA.end() || last < *DATA.start() {
        return false;
    }
    let address = ports.read(ADDRESS, PortWidth::Dword);
    let [register, function @ .., _] = address.to_le_bytes();
    let register = u16::from(register) & 0xfc;
    // Bits between bus and enable bit are reserved; a chipset that heeds them has other registers there.
    kept.touches(u16::from_le_bytes(function), register, 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortWidth::{Byte, Dword, Word};
    use std::cell::Cell;

    /// Ports that show each register's address as its value, but for the one at 0:1.3, register 40H.
    struct Device {
        address: Cell<u32>,
        base: u32,
    }

    impl Device {
        fn new(address: u32) -> Self {
            Self { address: Cell::new(address), base: 0x401 }
        }
    }

    impl Ports for Device {
        fn read(&self, port: u16, width: PortWidth) -> u32 {
            assert_eq!(width, Dword);
            match (port, self.address.get()) {
                (0xcf8, address) => address,
                (0xcfc, 0x8000_0b40) => self.base,
                (0xcfc, address) if address & 0xfc == 0 && address & 0x00ff_ff00 != 0x0b00 => u32::MAX,
                (0xcfc, address) => address,
                _ => panic!("{port:#x} is none of these ports"),
            }
        }
        fn write(&self, port: u16, width: PortWidth, value: u32) {
            assert_eq!((port, width), (0xcf8, Dword), "looking changes nothing");
            self.address.set(value);
        }
    }

    fn kept() -> KeptRegisters {
        let device = Device::new(0x8000_1234);
        let kept = KeptRegisters::find(&ByPorts::new(&device), |base| base == 0x400, &[]).unwrap();
        assert_eq!(device.address.get(), 0x8000_1234, "as it was found");
        kept
    }

    #[test]
    fn the_register_that_holds_the_base_keeps_it() {
        let found: Vec<_> = kept().iter().map(|kept| (kept.function, kept.register)).collect();
        assert_eq!(found, [(0x0b, 0x40)]);
        for address in [0x8000_0b40, 0x8000_0b43, 0x8f00_0b40, 0x0000_0b40] {
            for (port, width) in [(0xcfc, Dword), (0xcfd, Byte), (0xcfe, Word), (0xcff, Byte), (0xcfb, Word)]
            {
                assert!(changes(port, width, &Device::new(address), &kept()), "{address:#x} {port:#x}");
            }
        }
    }

    #[test]
    fn other_registers_and_ports_are_the_guests() {
        for address in [0x8000_0b44, 0x8000_0b3c, 0x8000_0a40, 0x8001_0b40, 0x8000_0bc0] {
            assert!(!changes(0xcfc, Dword, &Device::new(address), &kept()), "{address:#x}");
        }
        for (port, width) in [(0xcf8, Dword), (0xd00, Byte), (0xcfb, Byte), (0xffff, Dword)] {
            assert!(!changes(port, width, &Device::new(0x8000_0b40), &kept()), "{port:#x}");
        }
        assert!(!changes(0xcfc, Dword, &Device::new(0x8000_0b40), &KeptRegisters::default()));
    }

    #[test]
    fn address_and_data_are_held_together() {
        assert!(
            touches(0xcf8, Dword) && touches(0xcfc, Byte) && touches(0xcff, Dword) && touches(0xcf7, Word)
        );
        assert!(!touches(0xcf7, Byte) && !touches(0xd00, Dword) && !touches(0xffff, Dword));
    }
}
