//! Records of a made-up unit, drained.

use core::cell::Cell;

use super::super::tests::{PAGE, translating};
use super::*;
use crate::SourceId;
use crate::fault::Access;
use crate::sim::{Model, Sim};

#[test]
fn faults_are_told_with_who_did_it_until_all_are_free() {
    let sim = Sim::new(Model::MODERN);
    let (unit, _) = translating(&sim);
    let drain = || {
        let mut told = Vec::new();
        let drained =
            unit.drain_faults(|fault| told.push((fault.source.0, fault.address, fault.access))).unwrap();
        assert_eq!(usize::from(drained.told), told.len());
        (told, drained.is_more)
    };
    assert_eq!(drain(), (vec![], false));
    // Three times more than are taken at once, so that the records go round.
    for round in 0..4_u16 {
        for device in [0x0201, 0x0202, 0x0203] {
            assert!(sim.dma(device + round, 0x5123, device == 0x0202).is_err());
        }
        let access = |device| if device == 0x0202 { Access::Write } else { Access::Read };
        let expected = [0x0201, 0x0202, 0x0203].map(|device| (device + round, 0x5000, access(device)));
        assert_eq!(drain(), (expected.to_vec(), false), "round {round}");
    }
    for device in 0x0210..0x0219 {
        assert!(sim.dma(device, 0x6000, true).is_err());
    }
    let (told, is_more) = drain();
    let sources: Vec<_> = told.iter().map(|fault| fault.0).collect();
    assert_eq!((sources, is_more), (vec![0x0210, 0x0211, 0x0212, 0x0213], true));
    assert_eq!(drain(), (vec![], false), "the overflow is taken back");
    assert!(sim.dma(0x0220, 0x7000, true).is_err());
    assert_eq!(drain(), (vec![(0x0220, 0x7000, Access::Write)], false), "and it records again");
}

/// A unit that records another fault behind the read of one register.
struct Racing<'a>(&'a Sim, Cell<Option<u16>>);

impl Registers for Racing<'_> {
    fn read_u32(&self, offset: u16) -> u32 {
        self.0.read_u32(offset)
    }
    fn write_u32(&self, offset: u16, value: u32) {
        self.0.write_u32(offset, value);
    }
    fn read_u64(&self, offset: u16) -> u64 {
        let value = self.0.read_u64(offset);
        if self.1.get() == Some(offset) {
            self.1.set(None);
            assert!(self.0.dma(0x0222, 0x9000, true).is_err());
        }
        value
    }
    fn write_u64(&self, offset: u16, value: u64) {
        self.0.write_u64(offset, value);
    }
}

#[test]
fn a_record_that_is_written_meanwhile_is_told_whole() {
    for half in [0x210, 0x218] {
        let sim = Sim::new(Model::MODERN);
        let (_, _) = translating(&sim);
        assert!(sim.dma(0x0211, 0x8000, true).is_err());
        let racing = Unit::new(Racing(&sim, Cell::new(Some(half))), &sim.memory).unwrap();
        let mut told = Vec::new();
        for _ in 0..2 {
            racing.drain_faults(|fault| told.push((fault.source.0, fault.address))).unwrap();
        }
        assert_eq!(told, [(0x0211, 0x8000), (0x0222, 0x9000)], "behind {half:#x}");
    }
}

#[test]
fn a_fault_has_its_reason() {
    let sim = Sim::new(Model::MODERN);
    let (unit, _) = translating(&sim);
    assert_eq!(sim.dma(0x0300, PAGE, true), Err(1));
    let mut told = Vec::new();
    unit.drain_faults(|fault| told.push(fault)).unwrap();
    let source = SourceId(0x0300);
    assert_eq!(told, [Fault { source, access: Access::Write, address: PAGE, reason: 1 }]);
}
