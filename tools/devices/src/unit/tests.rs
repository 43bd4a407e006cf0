//! The unit as software and devices see it: what the specification says goes through, is blocked, recorded and kept.

use super::fixture::{CONTEXTS, DEVICE, DOMAIN, Machine, OTHER, QUEUE, REMAPPING, ROOT, SECRET, TABLES};
use super::{Access, Blocked};
use crate::bus::{Bus, Message, SourceId};

#[test]
fn off_it_lets_everything_through() {
    let mut machine = Machine::new();
    assert!(machine.writes(SECRET) && machine.reads(SECRET) && machine.fault().is_none());
    assert_eq!((machine.get(0), machine.get64(0x10) & 0xb), (0x10, 0xb));
}

#[test]
fn protected_regions_block_without_a_record() {
    const ELSEWHERE: u64 = 0x8000_0000;
    for (low, high) in [(SECRET, ELSEWHERE), (ELSEWHERE, SECRET)] {
        let mut machine = Machine::new();
        machine.put64(0x68, low << 32 | low);
        machine.put64(0x70, high);
        machine.put64(0x78, high);
        assert!(machine.writes(SECRET), "not enabled yet");
        machine.put(0x64, 1 << 31);
        assert_eq!(machine.get(0x64), 1 << 31 | 1);
        // Regions are of whole 2 MiB.
        for inside in [SECRET, 0, 0x1f_fff8] {
            assert!(!machine.writes(inside) && !machine.reads(inside), "{low:#x} {high:#x}");
        }
        assert!(machine.writes(0x20_0000));
        assert_eq!(machine.fault(), None);
        machine.put(0x64, 0);
        assert!(machine.writes(SECRET));
    }
}

#[test]
fn absent_tables_block_with_reason_address_and_source() {
    let mut machine = Machine::new();
    machine.put64(0x20, ROOT);
    machine.command(30, true);
    machine.command(31, true);
    assert!(!machine.writes(SECRET));
    assert_eq!(machine.fault(), Some((1, SECRET, 0x28, false)));
    assert!(!machine.reads(SECRET + 0x123));
    assert_eq!(machine.fault(), Some((1, SECRET, 0x28, true)));
    machine.bus.put64(ROOT, CONTEXTS | 1);
    assert!(!machine.writes(SECRET));
    assert_eq!(machine.fault(), Some((2, SECRET, 0x28, false)));
    assert_eq!(machine.fault(), None);
}

#[test]
fn a_page_that_is_not_mapped_is_out_of_reach() {
    for levels in [3, 4] {
        let mut machine = Machine::new();
        machine.translate(levels);
        assert!(!machine.writes(SECRET));
        assert_eq!(machine.fault(), Some((5, SECRET, 0x28, false)));
        assert!(!machine.reads(SECRET));
        assert_eq!(machine.fault(), Some((6, SECRET, 0x28, true)));
        assert!(machine.writes(OTHER) && machine.reads(OTHER));
        machine.map(OTHER, SECRET | 3);
        machine.forget_all();
        let _ = machine.unit.access(&mut machine.bus, DEVICE, OTHER, Access::Write(&[1; 8]));
        assert_eq!(machine.bus.read64(SECRET), u64::from_le_bytes([1; 8]), "moved");
        assert_eq!(machine.fault(), None);
    }
}

#[test]
fn of_an_access_over_an_edge_only_what_is_mapped_is_done() {
    let mut machine = Machine::new();
    machine.translate(4);
    machine.bus.put64(SECRET, 0x5ec2);
    let outcome = machine.unit.access(&mut machine.bus, DEVICE, SECRET - 4, Access::Write(&[9; 8]));
    assert_eq!(outcome, Err(Blocked));
    assert_eq!((machine.bus.read64(SECRET - 4) as u32, machine.bus.read64(SECRET)), (0x0909_0909, 0x5ec2));
}

#[test]
fn a_read_only_page_is_read_only() {
    let mut machine = Machine::new();
    machine.translate(3);
    machine.map(SECRET, SECRET | 1);
    assert!(!machine.writes(SECRET) && machine.reads(SECRET));
    assert_eq!(machine.fault().map(|fault| fault.0), Some(5));
    machine.map(OTHER, OTHER | 2);
    assert!(machine.writes(OTHER + 8));
    assert!(!machine.reads(OTHER));
    assert_eq!(machine.fault().map(|fault| fault.0), Some(6));
}

#[test]
fn large_leaves_map_all_of_them() {
    for (level, size) in [(1, 1u64 << 21), (2, 1 << 30)] {
        let mut machine = Machine::new();
        machine.translate(4);
        machine.bus.put64(TABLES[level], size | 0x83);
        machine.forget_all();
        let _ = machine.unit.access(&mut machine.bus, DEVICE, size - 8, Access::Write(&[3; 8]));
        assert_eq!(machine.bus.read64(2 * size - 8), u64::from_le_bytes([3; 8]), "{size:#x}");
        machine.bus.put64(TABLES[level], size | 0x1083);
        machine.forget_all();
        assert!(!machine.writes(OTHER));
        assert_eq!(machine.fault().map(|fault| fault.0), Some(12), "not aligned");
    }
}

#[test]
fn a_translation_is_kept_until_it_is_invalidated() {
    let mut machine = Machine::new();
    machine.translate(4);
    machine.map(SECRET, SECRET | 3);
    assert!(machine.writes(SECRET));
    machine.map(SECRET, 0);
    for (granularity, domain, address, is_kept) in [
        (3, DOMAIN, OTHER, true),
        (3, DOMAIN + 1, SECRET, true),
        (2, DOMAIN + 1, 0, true),
        (3, DOMAIN, SECRET, false),
        (3, DOMAIN, (SECRET - 0x1000) | 1, false),
        (3, DOMAIN, 9, false),
        (2, DOMAIN, 0, false),
        (1, 0, 0, false),
    ] {
        machine.forget_pages(granularity, domain, address);
        assert_eq!(machine.writes(SECRET), is_kept, "{granularity} {domain} {address:#x}");
        machine.map(SECRET, SECRET | 3);
        assert!(machine.writes(SECRET));
        machine.map(SECRET, 0);
    }
}

#[test]
fn a_context_is_kept_until_it_is_invalidated() {
    let mut machine = Machine::new();
    machine.translate(4);
    assert!(machine.writes(OTHER));
    machine.bus.put64(CONTEXTS + u64::from(DEVICE.0) * 16, 0);
    for (command, is_kept) in [
        (3 << 61 | 0x30 << 16 | DOMAIN, true),
        ((2 << 61) | (DOMAIN + 1), true),
        (3 << 61 | u64::from(DEVICE.0) << 16 | DOMAIN, false),
    ] {
        machine.put64(0x28, 1 << 63 | command);
        assert_eq!(machine.writes(OTHER), is_kept, "{command:#x}");
    }
    assert_eq!(machine.fault().map(|fault| fault.0), Some(2));
    assert!(machine.write_by(SourceId(0x30), OTHER), "another function has its own");
    assert!(!machine.write_by(SourceId(0x128), OTHER), "and another bus none");
    assert_eq!(machine.fault(), Some((1, OTHER, 0x128, false)));
}

#[test]
fn wrong_entries_block_with_a_reason_of_their_own() {
    let context = CONTEXTS + u64::from(DEVICE.0) * 16;
    for (at, value, reason) in [
        (ROOT, CONTEXTS | 0x11, 10),
        (ROOT + 8, 1, 10),
        (context, TABLES[3] | 0x11, 11),
        (context + 8, DOMAIN << 8 | 1 << 24, 11),
        (context + 8, DOMAIN << 8, 3),
        (context + 8, DOMAIN << 8 | 7, 3),
        (context, TABLES[3] | 3 << 2 | 1, 3),
        (TABLES[3], TABLES[2] | 1 << 50 | 3, 12),
        (TABLES[3], TABLES[2] | 0x83, 12),
    ] {
        let mut machine = Machine::new();
        machine.translate(4);
        machine.bus.put64(at, value);
        assert!(!machine.writes(OTHER), "{at:#x} {value:#x}");
        assert_eq!(machine.fault().map(|fault| fault.0), Some(reason), "{at:#x} {value:#x}");
    }
    let mut machine = Machine::new();
    machine.translate(3);
    assert!(!machine.writes(1 << 39));
    assert_eq!(machine.fault().map(|fault| fault.0), Some(4));
}

#[test]
fn pass_through_is_for_all_but_protected_regions() {
    let mut machine = Machine::new();
    machine.translate(4);
    machine.bus.put64(CONTEXTS + u64::from(DEVICE.0) * 16, TABLES[3] | 2 << 2 | 1);
    assert!(machine.writes(SECRET));
    machine.put64(0x68, 0);
    machine.put(0x64, 1 << 31);
    assert!(!machine.writes(SECRET));
    assert_eq!(machine.fault(), None);
}

#[test]
fn more_faults_than_records_are_told_as_an_overflow() {
    let mut machine = Machine::new();
    machine.translate(4);
    (0..6).for_each(|_| assert!(!machine.writes(SECRET)));
    assert_eq!(machine.get(0x34) & 1, 1);
    assert_eq!(std::iter::from_fn(|| machine.fault()).count(), 4);
    machine.put(0x34, 1);
    assert_eq!(machine.get(0x34), 0);
    assert!(!machine.writes(SECRET));
    assert!(machine.fault().is_some());
}

#[test]
fn a_fault_interrupts_unless_it_is_masked() {
    let mut machine = Machine::new();
    machine.translate(4);
    machine.put(0x3c, 0x41);
    machine.put(0x40, 0xfee0_1000);
    assert!(!machine.writes(SECRET));
    assert_eq!((machine.bus.messages.len(), machine.get(0x38)), (0, 3 << 30));
    machine.put(0x38, 0);
    assert_eq!(machine.bus.messages, [Message { address: 0xfee0_1000, data: 0x41 }]);
    assert!(!machine.writes(SECRET));
    assert_eq!((machine.bus.messages.len(), machine.get(0x38)), (2, 0));
}

#[test]
fn the_queue_invalidates_and_the_registers_then_do_not() {
    let mut machine = Machine::new();
    machine.translate(4);
    machine.map(SECRET, SECRET | 3);
    assert!(machine.writes(SECRET));
    machine.map(SECRET, 0);
    machine.put64(0x90, QUEUE);
    machine.command(26, true);
    machine.put64(0x100, 0);
    machine.put64(0x108, 1 << 63 | 1 << 60);
    assert!(machine.writes(SECRET), "by register, without effect");
    for (slot, low, high) in [
        (0, 2 | 3 << 4 | DOMAIN << 16, SECRET),
        (1, 5 | 0x20 | 7 << 32, 0x5_0000),
        (2, 1 | 3 << 4 | DOMAIN << 16 | u64::from(DEVICE.0) << 32, 0),
        (3, 5 | 0x10, 0),
    ] {
        machine.bus.put64(QUEUE + slot * 16, low);
        machine.bus.put64(QUEUE + slot * 16 + 8, high);
    }
    machine.put(0x88, 32);
    assert_eq!((machine.bus.read64(0x5_0000), machine.get(0x80)), (7, 32));
    assert!(!machine.writes(SECRET));
    assert!(machine.writes(OTHER));
    machine.bus.put64(CONTEXTS + u64::from(DEVICE.0) * 16, 0);
    machine.put(0x88, 64);
    assert!(!machine.writes(OTHER));
    assert_eq!((machine.get(0x9c), machine.get(0x34) & 0x10), (1, 0));
}

#[test]
fn a_bad_descriptor_stops_the_queue_with_an_error() {
    let mut machine = Machine::new();
    machine.put64(0x90, QUEUE);
    machine.command(26, true);
    machine.bus.put64(QUEUE, 0xf);
    machine.put(0x88, 16);
    assert_eq!((machine.get(0x80), machine.get(0x34)), (0, 0x10));
    // A tail beyond the end.
    let mut machine = Machine::new();
    machine.put64(0x90, QUEUE);
    machine.command(26, true);
    (0..512).for_each(|slot| machine.bus.put64(QUEUE + slot * 16, 4));
    machine.put(0x88, 0x1010);
    assert_ne!(machine.get(0x34) & 0x10, 0);
}

#[test]
fn interrupts_go_as_they_are_asked_for_until_they_are_remapped() {
    let mut machine = Machine::new();
    let init = Message { address: 0xfee0_1000, data: 0x4500 };
    assert_eq!(machine.message(init.address, init.data), Some(init));
    machine.put64(0xb8, REMAPPING | 3);
    machine.command(24, true);
    machine.command(25, true);
    assert_eq!(machine.message(init.address, init.data), None);
    assert_eq!(machine.fault().map(|fault| (fault.0, fault.2)), Some((0x25, 0x28)));
    machine.command(23, true);
    assert_eq!(machine.message(init.address, init.data), Some(init));
}

#[test]
fn a_remapped_interrupt_is_what_its_entry_says() {
    let mut machine = Machine::new();
    machine.put64(0xb8, REMAPPING | 3);
    machine.command(24, true);
    machine.command(25, true);
    // Entry 5: vector 41H, fixed, to APIC 2; for this device.
    let entry = REMAPPING + 5 * 16;
    machine.bus.put64(entry, 0x0200 << 32 | 0x41 << 16 | 1);
    machine.bus.put64(entry + 8, 1 << 18 | 0x28);
    let expected = Some(Message { address: 0xfee0_2000, data: 0x41 });
    assert_eq!(machine.message(0xfee0_0010 | 5 << 5, 0), expected);
    assert_eq!(machine.message(0xfee0_0018 | 3 << 5, 2), expected, "by a subhandle");
    assert_eq!(machine.message(0xfee0_0010 | 4 << 5, 0), None);
    assert_eq!(machine.fault().map(|fault| (fault.0, fault.1)), Some((0x22, 4 << 48)));
    assert_eq!(machine.message(0xfee0_0010 | 16 << 5, 0), None);
    assert_eq!(machine.fault().map(|fault| fault.0), Some(0x21));
    assert_eq!(machine.message(0xfee0_0010 | 5 << 5, 1), None);
    assert_eq!(machine.fault().map(|fault| fault.0), Some(0x20));
    for (high, reason) in [
        (1 << 18 | 0x29, Some(0x26)),
        (1 << 18 | 2 << 16 | 0x2e, None),
        (1 << 18 | 1 << 16 | 0x2e, Some(0x26)),
        (2 << 18 | 0x0001, None),
        (2 << 18 | 0x0102, Some(0x26)),
        (3 << 18, Some(0x26)),
        (1 << 20, Some(0x24)),
        (0x1234, None),
    ] {
        machine.bus.put64(entry + 8, high);
        assert_eq!(machine.message(0xfee0_0010 | 5 << 5, 0).is_none(), reason.is_some(), "{high:#x}");
        assert_eq!(machine.fault().map(|fault| fault.0), reason, "{high:#x}");
    }
}

#[test]
fn a_reset_switches_it_off() {
    let mut machine = Machine::new();
    machine.translate(4);
    assert!(!machine.writes(SECRET));
    machine.unit.reset();
    assert!(machine.writes(SECRET));
    assert_eq!((machine.fault(), machine.get(0x1c), machine.unit.blocked), (None, 0, 1));
}
