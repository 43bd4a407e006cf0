//! Where PCI configuration space lies in memory, as the bootloader hands it on.

/// Configuration space of some buses in memory, by one entry of the MCFG, of the buses that ports reach too: those of
/// segment group 0 (PCI Firmware Specification, "MCFG Table Description").
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcamRange {
    /// Physical address where bus 0 would be, whether or not it is among the buses; 0 where there is no range.
    pub base: u64,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
    /// Reserved, zero.
    pub reserved: [u8; 6],
}

/// Most ranges: a machine has one, and more where buses are left out.
pub const ECAM_CAPACITY: usize = 16;

/// That of a machine without.
pub const NO_ECAM: EcamRange = EcamRange { base: 0, first_bus: 0, last_bus: 0, reserved: [0; 6] };

/// Bits of an address in which the function stands: bus, device, function (PCI Express Base Specification, "PCI Express
/// Enhanced Configuration Access Mechanism (ECAM)").
const FUNCTION_SHIFT: u32 = 12;

impl EcamRange {
    /// Returns the physical address of the page of `function`, in the order of the address: bus, device, function. `None` where
    /// its bus is not among the range's.
    #[must_use]
    pub fn page_of(self, function: u16) -> Option<u64> {
        let [_, bus] = function.to_le_bytes();
        let is_in_reach = self.base != 0 && (self.first_bus..=self.last_bus).contains(&bus);
        self.base.checked_add(u64::from(function) << FUNCTION_SHIFT).filter(|_| is_in_reach)
    }

    /// Returns the function whose page holds `address`.
    #[must_use]
    pub fn function_at(self, address: u64) -> Option<u16> {
        let function = u16::try_from(address.checked_sub(self.base)? >> FUNCTION_SHIFT).ok()?;
        self.page_of(function).map(|_| function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: EcamRange = EcamRange { base: 0xe000_0000, first_bus: 2, last_bus: 3, reserved: [0; 6] };

    #[test]
    fn a_function_has_a_page_where_its_bus_is_in_reach() {
        for (function, page) in [
            (0x01ff, None),
            (0x0200, Some(0xe020_0000)),
            (0x03ff, Some(0xe03f_f000)),
            (0x0400, None),
            (0x02fb, Some(0xe02f_b000)),
        ] {
            assert_eq!(RANGE.page_of(function), page, "{function:#x}");
            assert_eq!(page.and_then(|page| RANGE.function_at(page + 0xfff)), page.map(|_| function));
        }
        assert_eq!(NO_ECAM.page_of(0), None);
        assert_eq!(EcamRange { base: !0xfffff, ..RANGE }.page_of(0x0200), None, "it wraps");
    }

    #[test]
    fn addresses_beside_the_buses_have_no_function() {
        for address in [0, 0xdfff_ffff, 0xe01f_ffff, 0xe040_0000, 0x1_e020_0000, u64::MAX] {
            assert_eq!(RANGE.function_at(address), None, "{address:#x}");
        }
    }
}
