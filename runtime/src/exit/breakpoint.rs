//! I/O and data breakpoints on what is carried out in the guest's place (SDM, "Debug Control Register (DR7)";
//! "Data Memory and I/O Breakpoint Exception Conditions").
//!
//! A processor finds these breakpoints while an instruction executes; an instruction that exits never did.

use crate::memory::guest::Intent;
use crate::vcpu::Vcpu;
use x86::address::GuestLinearAddr;
use x86::cr::Cr4;

/// Kind of a breakpoint in DR7: data writes.
const WRITES: u64 = 1;
/// I/O, where CR4.DE is set.
const PORTS: u64 = 2;
/// Data reads and writes.
const ACCESSES: u64 = 3;

/// The breakpoints that a guest's processor has set.
#[derive(Clone, Copy, Debug)]
pub struct Breakpoints {
    dr7: u64,
    /// DR0 to DR3.
    addresses: [u64; 4],
    has_ports: bool,
}

impl Breakpoints {
    /// Returns the breakpoints of `vcpu`.
    pub fn of<V: Vcpu + ?Sized>(vcpu: &V) -> Self {
        let dr7 = vcpu.dr7();
        let is_any_enabled = dr7 & 0xff != 0;
        let addresses = if is_any_enabled { vcpu.breakpoint_addresses() } else { [0; 4] };
        Self { dr7, addresses, has_ports: vcpu.cr4().contains(Cr4::DE) }
    }

    /// Breakpoints that an access to `length` ports from `port` meets, as bits 0 to 3 of DR6 have them.
    #[must_use]
    pub fn on_ports(&self, port: u16, length: u64) -> u64 {
        let is_met = |kind| kind == PORTS && self.has_ports;
        self.met(u64::from(port), length, is_met)
    }

    /// Breakpoints that an access to `length` bytes at `address` meets, as bits 0 to 3 of DR6 have them.
    #[must_use]
    pub fn on_data(&self, address: GuestLinearAddr, length: u64, intent: Intent) -> u64 {
        let is_met = |kind| kind == ACCESSES || kind == WRITES && intent == Intent::Write;
        self.met(address.get(), length, is_met)
    }

    fn met(&self, start: u64, length: u64, is_met: impl Fn(u64) -> bool) -> u64 {
        let is_struck = |index: &usize| {
            let is_enabled = self.dr7 >> (2 * index) & 3 != 0;
            let control = self.dr7 >> (16 + 4 * index);
            let covered = covered(control >> 2 & 3);
            // The length's bits of the address do not count.
            let first = self.addresses[*index] & !(covered - 1);
            let overlaps = start.wrapping_sub(first) < covered || first.wrapping_sub(start) < length;
            is_enabled && is_met(control & 3) && overlaps
        };
        (0..self.addresses.len()).filter(is_struck).fold(0, |bits, index| bits | 1 << index)
    }
}

/// Returns the number of bytes that a length field of DR7 says.
const fn covered(length: u64) -> u64 {
    match length {
        0 => 1,
        1 => 2,
        2 => 8,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::fake::FakeVcpu;

    /// Those met by `probe`, with breakpoints of `controls` (RW in bits 1:0, LEN in bits 3:2) at `addresses`.
    fn met(controls: [u64; 4], addresses: [u64; 4], probe: impl FnOnce(Breakpoints) -> u64) -> u64 {
        let dr7 = (0..4).fold(0x4aa, |dr7, index| dr7 | controls[index] << (16 + 4 * index));
        let vcpu = FakeVcpu { dr7, breakpoints: addresses, cr4: Cr4::DE, ..FakeVcpu::long_mode() };
        probe(Breakpoints::of(&vcpu))
    }

    fn linear(address: u64) -> GuestLinearAddr {
        GuestLinearAddr::new(address)
    }

    /// SDM, "Breakpoint Field Recognition": the table of examples.
    #[test]
    fn the_manuals_examples() {
        let controls = [0b0011, 0b0001, 0b0111, 0b1101];
        let addresses = [0xa_0001, 0xa_0002, 0xb_0002, 0xc_0000];
        let traps = |intent, (address, length)| {
            met(controls, addresses, |all| all.on_data(linear(address), length, intent)) != 0
        };
        let both = [(0xa_0001, 1), (0xa_0001, 2), (0xb_0001, 4), (0xb_0002, 1), (0xb_0002, 2)];
        assert!(both.into_iter().all(|access| traps(Intent::Read, access) && traps(Intent::Write, access)));
        let writes = [(0xa_0002, 1), (0xa_0002, 2), (0xc_0000, 4), (0xc_0001, 2), (0xc_0003, 1)];
        assert!(writes.into_iter().all(|access| traps(Intent::Write, access)));
        let neither = [(0xa_0000, 1), (0xa_0003, 4), (0xb_0000, 2), (0xc_0004, 4)];
        assert!(
            !neither.into_iter().any(|access| traps(Intent::Read, access) || traps(Intent::Write, access))
        );
        assert!(![(0xa_0002, 1), (0xc_0000, 2)].into_iter().any(|access| traps(Intent::Read, access)));
    }

    #[test]
    fn each_breakpoint_has_its_bit_and_its_kind() {
        let controls = [0b0010, 0b0011, 0b0001, 0b0000];
        let on_data = |intent| met(controls, [0x80; 4], |all| all.on_data(linear(0x80), 1, intent));
        assert_eq!((on_data(Intent::Read), on_data(Intent::Write)), (0b0010, 0b0110));
        assert_eq!(met(controls, [0x80; 4], |all| all.on_ports(0x80, 1)), 0b0001);
    }

    #[test]
    fn port_breakpoints_cover_their_length() {
        let on_ports =
            |port, length| met([0b1110, 0, 0, 0], [0x64, 0, 0, 0], |all| all.on_ports(port, length));
        assert_eq!(
            (on_ports(0x67, 1), on_ports(0x62, 4), on_ports(0x68, 1), on_ports(0x62, 2)),
            (1, 1, 0, 0)
        );
        let high = met([0b0010, 0, 0, 0], [0x1_0064, 0, 0, 0], |all| all.on_ports(0x64, 1));
        assert_eq!(high, 0, "an address beyond the ports");
    }

    #[test]
    fn each_length_covers_an_aligned_block() {
        for (length, bytes) in [(0, 1), (1, 2), (2, 8), (3, 4)] {
            // Within the block, so that the address's low bits do not count.
            let address = 0x1007;
            let first = address & !(bytes - 1);
            let strikes = |at| {
                let controls = [length << 2 | ACCESSES, 0, 0, 0];
                met(controls, [address, 0, 0, 0], |all| all.on_data(linear(at), 1, Intent::Read)) == 1
            };
            let struck = [first - 1, first, first + bytes - 1, first + bytes].map(strikes);
            assert_eq!(struck, [false, true, true, false], "{length}");
        }
    }

    #[test]
    fn breakpoints_that_are_not_enabled_do_not_count() {
        let all = FakeVcpu { dr7: 0x000f_0400, breakpoints: [0x80; 4], ..FakeVcpu::long_mode() };
        assert_eq!(Breakpoints::of(&all).on_data(linear(0x80), 1, Intent::Write), 0);
        let without_de = FakeVcpu { dr7: 0x0002_0402, ..all.clone() };
        assert_eq!(Breakpoints::of(&without_de).on_ports(0x80, 1), 0);
        // All four watch accesses, and one of them is enabled, locally or globally.
        for enabled in 0..8 {
            let one = FakeVcpu { dr7: 0x3333_0400 | 1 << enabled, ..all.clone() };
            let met = Breakpoints::of(&one).on_data(linear(0x80), 1, Intent::Read);
            assert_eq!(met, 1 << (enabled / 2), "{enabled}");
        }
    }
}
