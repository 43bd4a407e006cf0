//! Whether a guest NMI may be lost: one that the processor merged with one that the hypervisor sent.
//!
//! A processor keeps one NMI, whoever sent it. Where one of ours was taken, the sources that can be read are looked at
//! as an operating system's handler does. Decision: where a source asks, the guest gets an NMI, even where its own may
//! still be on the way: one too many finds nothing to do, one too few is a machine check or a profile that nobody
//! sees. What only another CPU knows of, an NMI sent by an IPI, leaves no trace to look at.

use hw::{ApicRegisters, Msrs, PortWidth, Ports};
use x86::apic::LocalVector;
use x86::apic::offset::LVT_COUNTERS;
use x86::msr::Msr;

/// System control port B (ICH data sheets, "NMI Status and Control Register").
const SYSTEM_CONTROL_B: u16 = 0x61;
/// SERR# and IOCHK#, while they ask for an NMI.
const BUS_ERRORS: u32 = 3 << 6;
const IA32_PERF_GLOBAL_STATUS: Msr = Msr(0x38e);

/// Returns whether some source asks for an NMI that can be read.
pub fn asks(ports: &impl Ports, apic: &impl ApicRegisters, msrs: &impl Msrs) -> bool {
    ports.read(SYSTEM_CONTROL_B, PortWidth::Byte) & BUS_ERRORS != 0 || has_counter_overflowed(apic, msrs)
}

/// Returns whether a counter overflowed, and its NMI was raised (SDM, "Performance Monitoring Interrupt").
fn has_counter_overflowed(apic: &impl ApicRegisters, msrs: &impl Msrs) -> bool {
    let entry = LocalVector::from_bits_retain(apic.read(LVT_COUNTERS));
    entry.delivery_mode() == LocalVector::NMI
        // Set by the interrupt that a counter raises.
        && entry.contains(LocalVector::MASKED)
        && msrs.read(IA32_PERF_GLOBAL_STATUS).is_ok_and(|status| status != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimMsrs;

    const MASKED: u32 = 1 << 16;
    const NMI: u32 = 4 << 8;

    struct Fixture {
        port: u32,
        counters: u32,
    }

    impl Ports for Fixture {
        fn read(&self, port: u16, width: PortWidth) -> u32 {
            assert_eq!((port, width), (SYSTEM_CONTROL_B, PortWidth::Byte));
            self.port
        }
        fn write(&self, _: u16, _: PortWidth, _: u32) {
            panic!("looking changes nothing")
        }
    }

    impl ApicRegisters for Fixture {
        fn read(&self, offset: u16) -> u32 {
            assert_eq!(offset, 0x340);
            self.counters
        }
        fn write(&self, _: u16, _: u32) {
            panic!("looking changes nothing")
        }
    }

    fn asks_with(port: u32, counters: u32, status: Option<u64>) -> bool {
        let machine = Fixture { port, counters };
        asks(&machine, &machine, &SimMsrs::new(status.map(|value| (IA32_PERF_GLOBAL_STATUS, value))))
    }

    #[test]
    fn a_bus_error_asks() {
        let quiet = |port| asks_with(port, 0, None);
        assert!(quiet(1 << 7) && quiet(1 << 6) && !quiet(0x3f));
    }

    #[test]
    fn a_counter_asks_where_it_overflowed_and_its_nmi_was_raised() {
        assert!(asks_with(0, MASKED | NMI, Some(1)));
        assert!(asks_with(0, MASKED | NMI, Some(1 << 32)));
        assert!(!asks_with(0, MASKED | NMI, Some(0)));
        assert!(!asks_with(0, NMI, Some(1)), "it has raised none");
        assert!(!asks_with(0, MASKED | 0x31, Some(1)), "it raises an interrupt");
        assert!(!asks_with(0, MASKED | NMI, None), "there is no such register");
    }
}
