//! A driven unit against a made-up one.

use super::*;
use crate::descriptor::Descriptor;
use crate::entry::{ContextEntry, RootEntry, SecondLevelEntry};
use crate::sim::{Model, Sim, SimMemory};
use crate::{DomainId, SourceId};
use hw::PhysMemory;
use x86::paging::PageSize;

const ROOT: u64 = 0x1_0000;
const CONTEXTS: u64 = 0x1_1000;
/// Tables of a second level, the topmost first.
const TABLES: [u64; 5] = [0x1_2000, 0x1_3000, 0x1_4000, 0x1_5000, 0x1_6000];
const QUEUE: HostPhysAddr = HostPhysAddr::new(0x1_8000);
const STATUS: HostPhysAddr = HostPhysAddr::new(0x1_9008);
const DOMAIN: DomainId = DomainId(7);
const DEVICE: u16 = 0x0210;
pub(super) const PAGE: u64 = 0x12_3000;

pub(super) type SimUnit<'a> = Unit<&'a Sim, &'a SimMemory>;

fn unit(sim: &Sim) -> SimUnit<'_> {
    Unit::new(sim, &sim.memory).unwrap().with_patience(8)
}

fn levels(model: Model) -> u8 {
    (3..=5).find(|level| model.widths >> (level - 2) & 1 == 1).unwrap()
}

/// Writes a word as all that is written to tables is.
fn write(sim: &Sim, address: u64, value: u64) {
    (&sim.memory).write_u64(HostPhysAddr::new(address), value);
    (&sim.memory).write_back(HostPhysAddr::new(address), 8);
}

/// Makes tables by which every device of bus 2 reaches [`PAGE`] alone, and gives the address of its entry.
fn build(sim: &Sim) -> u64 {
    for page in [ROOT, CONTEXTS].into_iter().chain(TABLES) {
        (page..page + 0x1000).step_by(8).for_each(|address| write(sim, address, 0));
    }
    let RootEntry(root) = RootEntry::new(HostPhysAddr::new(CONTEXTS));
    write(sim, ROOT + 2 * 16, root[0]);
    let levels = levels(sim.model);
    let ContextEntry(context) = ContextEntry::new(HostPhysAddr::new(TABLES[0]), levels, DOMAIN);
    for device in 0..256 {
        write(sim, CONTEXTS + 16 * device, context[0]);
        write(sim, CONTEXTS + 16 * device + 8, context[1]);
    }
    let mut table = TABLES[0];
    for (level, next) in (2..=levels).rev().zip(&TABLES[1..]) {
        let at = table + 8 * x86::paging::index(PAGE, level) as u64;
        write(sim, at, SecondLevelEntry::table(HostPhysAddr::new(*next)).bits());
        table = *next;
    }
    let entry = table + 8 * x86::paging::index(PAGE, 1) as u64;
    write(sim, entry, SecondLevelEntry::page(HostPhysAddr::new(PAGE), PageSize::Size4K, false).bits());
    entry
}

/// A unit that translates by the tables of [`build`], with its queue where it has one.
pub(super) fn translating(sim: &Sim) -> (SimUnit<'_>, u64) {
    let entry = build(sim);
    let mut unit = unit(sim);
    unit.take_over().unwrap();
    if sim.model.has_queue {
        unit.enable_queue(QUEUE, STATUS).unwrap();
    }
    unit.set_root_table(HostPhysAddr::new(ROOT)).unwrap();
    unit.enable_translation().unwrap();
    (unit, entry)
}

#[test]
fn devices_reach_what_the_tables_open_and_nothing_else() {
    for model in Model::ALL {
        let sim = Sim::new(model);
        assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "nothing translates yet");
        let (unit, _) = translating(&sim);
        assert!(unit.is_translating());
        for is_write in [false, true] {
            assert_eq!(sim.dma(DEVICE, PAGE + 0x18, is_write), Ok(PAGE + 0x18), "{model:?}");
        }
        assert_eq!(sim.dma(DEVICE, PAGE + 0x1000, true), Err(5), "{model:?}");
        assert_eq!(sim.dma(DEVICE, PAGE - 1, false), Err(6), "{model:?}");
        assert_eq!(sim.dma(0x0310, PAGE, true), Err(1), "another bus");
        assert_eq!(sim.dma(DEVICE, 1 << 57, true), Err(4), "{model:?}");
    }
}

#[test]
fn what_is_closed_is_closed_once_the_tables_are_followed() {
    for model in Model::ALL {
        let page = Translations::Pages { domain: DOMAIN, address: PAGE, mask: 0 };
        for which in [Translations::All, Translations::Domain(DOMAIN), page] {
            let sim = Sim::new(model);
            let (mut unit, entry) = translating(&sim);
            assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE));
            write(&sim, entry, 0);
            assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "it keeps what it had");
            unit.follow_tables(which).unwrap();
            assert_eq!(sim.dma(DEVICE, PAGE, true), Err(5), "{which:?} of {model:?}");
            write(&sim, entry, PAGE | 3);
            unit.follow_tables(which).unwrap();
            assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "{which:?} of {model:?}: open again");
        }
    }
}

#[test]
fn a_device_follows_its_context_once_it_is_invalidated() {
    for model in Model::ALL {
        let device = Contexts::Device(DOMAIN, SourceId(DEVICE));
        for which in [Contexts::All, Contexts::Domain(DOMAIN), device] {
            let sim = Sim::new(model);
            let (mut unit, _) = translating(&sim);
            assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE));
            write(&sim, CONTEXTS + 16 * 0x10, 0);
            assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "it keeps what it had");
            unit.follow_contexts(which).unwrap();
            assert_eq!(sim.dma(DEVICE, PAGE, true), Err(2), "{which:?} of {model:?}");
        }
    }
}

#[test]
fn the_made_up_unit_does_not_see_what_is_not_written_back() {
    let sim = Sim::new(Model { is_coherent: false, ..Model::MODERN });
    let (mut unit, entry) = translating(&sim);
    (&sim.memory).write_u64(HostPhysAddr::new(entry), 0);
    unit.follow_tables(Translations::All).unwrap();
    assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "a line that nobody wrote back");
    (&sim.memory).write_back(HostPhysAddr::new(entry), 8);
    unit.follow_tables(Translations::All).unwrap();
    assert_eq!(sim.dma(DEVICE, PAGE, true), Err(5));
}

#[test]
fn the_made_up_unit_does_not_see_into_its_write_buffer() {
    let sim = Sim::new(Model { has_write_buffer: true, ..Model::MODERN });
    let (mut unit, entry) = translating(&sim);
    write(&sim, entry, 0);
    unit.invalidate_translations(Translations::All).unwrap();
    assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "a buffer that nobody flushed");
    unit.follow_tables(Translations::All).unwrap();
    assert_eq!(sim.dma(DEVICE, PAGE, true), Err(5));
}

#[test]
fn the_made_up_unit_keeps_what_was_not_there_in_caching_mode() {
    for (model, kept) in [(Model::EMULATED, Err(5)), (Model::MODERN, Ok(PAGE))] {
        let sim = Sim::new(model);
        let (mut unit, entry) = translating(&sim);
        write(&sim, entry, 0);
        unit.follow_tables(Translations::All).unwrap();
        assert_eq!(sim.dma(DEVICE, PAGE, true), Err(5));
        write(&sim, entry, PAGE | 3);
        assert_eq!(sim.dma(DEVICE, PAGE, true), kept);
    }
}

#[test]
fn a_new_root_table_holds_at_once_and_without_a_gap() {
    for model in Model::ALL {
        let sim = Sim::new(model);
        let (mut unit, _) = translating(&sim);
        assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE));
        // Its contexts have the domain of before, whose translations are kept, and tables that open nothing.
        let [root, contexts, tables, empty] = [0x2_0000, 0x2_1000, 0x2_2000, 0x2_3000];
        (root..empty + 0x1000).step_by(8).for_each(|address| write(&sim, address, 0));
        let RootEntry(entry) = RootEntry::new(HostPhysAddr::new(contexts));
        write(&sim, root + 2 * 16, entry[0]);
        let ContextEntry(entry) = ContextEntry::new(HostPhysAddr::new(tables), levels(model), DOMAIN);
        write(&sim, contexts + 16 * 0x10, entry[0]);
        write(&sim, contexts + 16 * 0x10 + 8, entry[1]);
        unit.set_root_table(HostPhysAddr::new(root)).unwrap();
        assert!(unit.is_translating());
        assert_eq!(sim.dma(DEVICE, PAGE, true), Err(5), "{model:?}");
        unit.set_root_table(HostPhysAddr::new(empty)).unwrap();
        assert_eq!(sim.dma(DEVICE, PAGE, true), Err(1), "{model:?}");
    }
}

#[test]
fn a_unit_that_walks_another_mode_s_tables_is_refused() {
    let sim = Sim::new(Model::MODERN);
    let (mut unit, _) = translating(&sim);
    // Scalable mode.
    (&sim).write_u64(offset::ROOT_TABLE, ROOT | 1 << 10);
    let refused = Err(UnitError::Unsupported("change of the tables' mode while it translates"));
    assert_eq!(unit.set_root_table(HostPhysAddr::new(ROOT)), refused);
    assert_eq!((&sim).read_u64(offset::ROOT_TABLE), ROOT | 1 << 10);
    unit.disable_translation().unwrap();
    unit.set_root_table(HostPhysAddr::new(ROOT)).unwrap();
}

#[test]
fn pages_go_with_the_domain_where_a_unit_knows_no_less() {
    let sim = Sim::new(Model::MODERN);
    let (mut unit, entry) = translating(&sim);
    assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE));
    write(&sim, entry, 0);
    // Its largest mask is 9.
    unit.follow_tables(Translations::Pages { domain: DOMAIN, address: 0, mask: 10 }).unwrap();
    assert_eq!(sim.dma(DEVICE, PAGE, true), Err(5));
    let other = DomainId(DOMAIN.0 + 1);
    write(&sim, entry, PAGE | 3);
    assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE));
    write(&sim, entry, 0);
    unit.follow_tables(Translations::Pages { domain: other, address: PAGE, mask: 0 }).unwrap();
    unit.follow_tables(Translations::Pages { domain: DOMAIN, address: PAGE + 0x1000, mask: 0 }).unwrap();
    assert_eq!(sim.dma(DEVICE, PAGE, true), Ok(PAGE), "neither was about this page");
}

#[test]
fn the_queue_goes_round() {
    let sim = Sim::new(Model { is_coherent: false, ..Model::MODERN });
    let (mut unit, _) = translating(&sim);
    let before = sim.state.borrow().invalidations[1];
    // Two descriptors each, of 256.
    for _ in 0..300 {
        unit.follow_tables(Translations::Domain(DOMAIN)).unwrap();
    }
    assert_eq!(sim.state.borrow().invalidations[1], before + 300);
}

#[test]
fn a_queue_that_stands_still_is_named() {
    let sim = Sim::new(Model::MODERN);
    let (mut unit, _) = translating(&sim);
    let nonsense = Descriptor([0xf, 0]);
    assert_eq!(unit.submit(nonsense), Err(UnitError::QueueStopped(FaultStatus::QUEUE_ERROR)));
    assert_eq!(unit.drain_faults(|_| ()), Err(UnitError::QueueStopped(FaultStatus::QUEUE_ERROR)));
}

#[test]
fn a_unit_that_does_not_answer_is_waited_for_so_long() {
    let queued = Model { delay: u32::MAX, ..Model::MODERN };
    let old = Model { delay: u32::MAX, ..Model::OLD };
    let silent = |wait| Err(UnitError::Silent(wait));
    let root = HostPhysAddr::new(ROOT);
    let sim = Sim::new(queued);
    assert_eq!(unit(&sim).set_root_table(root), silent(Wait::Status(Global::SET_ROOT_TABLE)));
    let sim = Sim::new(queued);
    assert_eq!(unit(&sim).enable_queue(QUEUE, STATUS), silent(Wait::Status(Global::QUEUED_INVALIDATION)));
    let sim = Sim::new(old);
    assert_eq!(unit(&sim).flush_write_buffer(), silent(Wait::Status(Global::WRITE_BUFFER_FLUSH)));
    assert_eq!(unit(&sim).invalidate_contexts(Contexts::All), silent(Wait::Contexts));
    assert_eq!(unit(&sim).invalidate_translations(Translations::All), silent(Wait::Iotlb));
    let mut sim = Sim::new(Model::MODERN);
    let _ = translating(&sim);
    sim.model.delay = u32::MAX;
    let mut still = unit(&sim);
    assert_eq!(still.disable_translation(), silent(Wait::Status(Global::TRANSLATION)));
    // It is read eight times, of which the last may be the one that counts.
    for (delay, answer) in [(7, Ok(())), (8, silent(Wait::Status(Global::SET_ROOT_TABLE)))] {
        let sim = Sim::new(Model { delay, sets_root_alone: true, ..Model::MODERN });
        assert_eq!(unit(&sim).set_root_table(root), answer, "{delay}");
    }
}

#[test]
fn translation_stays_on_when_it_is_turned_on_again() {
    let sim = Sim::new(Model::MODERN);
    let (mut unit, _) = translating(&sim);
    unit.enable_translation().unwrap();
    // The command is done behind some reads.
    assert!((0..8).all(|_| unit.is_translating()));
    assert_eq!(sim.dma(DEVICE, PAGE + 0x1000, true), Err(5));
}

#[test]
fn a_queue_that_nobody_works_off_is_waited_for_so_long() {
    let sim = Sim::new(Model::MODERN);
    let (mut unit, _) = translating(&sim);
    // Its queue, but a unit that never looks at it.
    let dead = Sim::new(Model { delay: u32::MAX, ..Model::MODERN });
    unit.registers = &dead;
    assert_eq!(unit.follow_tables(Translations::All), Err(UnitError::Silent(Wait::Queue)));
}

#[test]
fn no_unit_and_no_table_are_refused() {
    struct Nothing(u64);
    impl Registers for Nothing {
        fn read_u32(&self, _: u16) -> u32 {
            self.0 as u32
        }
        fn write_u32(&self, _: u16, _: u32) {}
        fn read_u64(&self, _: u16) -> u64 {
            self.0
        }
        fn write_u64(&self, _: u16, _: u64) {}
    }
    let sim = Sim::new(Model::MODERN);
    for value in [0, u64::MAX] {
        assert_eq!(Unit::new(Nothing(value), &sim.memory).err(), Some(UnitError::Absent));
    }
    let mut alone = unit(&sim);
    assert_eq!(alone.enable_translation(), Err(UnitError::NoRootTable));
    assert_eq!(alone.set_root_table(HostPhysAddr::new(0x1008)), Err(UnitError::Unaligned(4096)));
    assert_eq!(alone.enable_queue(HostPhysAddr::new(8), STATUS), Err(UnitError::Unaligned(4096)));
    assert_eq!(alone.enable_queue(QUEUE, HostPhysAddr::new(0x1004)), Err(UnitError::Unaligned(8)));
    let old = Sim::new(Model::OLD);
    assert_eq!(unit(&old).enable_queue(QUEUE, STATUS), Err(UnitError::Unsupported("queued invalidation")));
}

#[test]
fn protected_memory_is_closed_to_all_while_nothing_translates() {
    const MIB: u64 = 1 << 20;
    // What a reset leaves of high memory, and what somebody might.
    let left = [(0, 0), (1 << 32, 1 << 41)];
    for (model, (base, limit)) in Model::ALL.into_iter().flat_map(|model| left.map(|left| (model, left))) {
        let sim = Sim::new(model);
        let mut unit = unit(&sim);
        let range = |start, end| ProtectedRange { start, end };
        let both_between = range(MIB, 3 * MIB);
        for wrong in [range(MIB, 4 * MIB), range(4 * MIB, 5 * MIB), both_between, range(4 * MIB, 4 * MIB)] {
            assert_eq!(unit.protect_low_memory(wrong), Err(UnitError::Unaligned(2 * MIB)));
        }
        let beyond = range(4 * MIB, (1 << 32) + 2 * MIB);
        assert_eq!(unit.protect_low_memory(beyond), Err(UnitError::Unsupported("protected low memory")));
        (&sim).write_u64(offset::PROTECTED_HIGH_BASE, base);
        (&sim).write_u64(offset::PROTECTED_HIGH_LIMIT, limit);
        unit.protect_low_memory(range(4 * MIB, 8 * MIB)).unwrap();
        assert!(unit.is_protecting());
        for (address, is_open) in [
            (0, true),
            (4 * MIB - 1, true),
            (4 * MIB, false),
            (8 * MIB - 1, false),
            (8 * MIB, true),
            (1 << 40, true),
        ] {
            assert_eq!(sim.dma(DEVICE, address, true).is_ok(), is_open, "{address:#x} of {model:?}");
        }
        unit.release_protected_memory().unwrap();
        assert_eq!(sim.dma(DEVICE, 4 * MIB, true), Ok(4 * MIB));
        unit.protect_low_memory(range(4 * MIB, 1 << 32)).unwrap();
        let at = [4 * MIB - 1, 4 * MIB, (1 << 32) - 1, 1 << 32];
        let reached = at.map(|address| sim.dma(DEVICE, address, true).is_ok());
        assert_eq!(reached, [true, false, false, true], "up to the end of low memory");
    }
}

#[test]
fn taking_over_leaves_translation_on_and_all_else_off() {
    for model in Model::ALL {
        let sim = Sim::new(model);
        let (first, _) = translating(&sim);
        first.set(Global::ADVANCED_FAULT_LOGGING).unwrap();
        let mut unit = unit(&sim);
        unit.take_over().unwrap();
        assert!(unit.is_translating());
        let off = Global::QUEUED_INVALIDATION | Global::INTERRUPT_REMAPPING | Global::ADVANCED_FAULT_LOGGING;
        assert!(!unit.status().intersects(off));
        let control = FaultControl::from_bits_retain((&sim).read_u32(offset::FAULT_CONTROL));
        assert!(control.contains(FaultControl::MASK));
        // By registers now: with the queue on the made-up unit would stop the test.
        unit.follow_tables(Translations::All).unwrap();
    }
}

#[test]
fn interrupts_are_remapped_behind_a_queue_alone() {
    let sim = Sim::new(Model::MODERN);
    let table = HostPhysAddr::new(0x3_0000);
    let mut without = unit(&sim);
    assert_eq!(without.remap_interrupts(table, 8, true), Err(UnitError::NoQueue));
    let (mut queued, _) = translating(&sim);
    assert_eq!(queued.remap_interrupts(HostPhysAddr::new(8), 8, true), Err(UnitError::Unaligned(4096)));
    for size in [0, 17] {
        let refused = Err(UnitError::Unsupported("interrupt remapping"));
        assert_eq!(queued.remap_interrupts(table, size, true), refused);
    }
    queued.remap_interrupts(table, 8, true).unwrap();
    assert_eq!((&sim).read_u64(offset::INTERRUPT_TABLE), 0x3_0000 | 1 << 11 | 7);
    assert_eq!(sim.state.borrow().invalidations[2], 1);
    let status = queued.status();
    assert!(status.contains(Global::INTERRUPT_REMAPPING | Global::TRANSLATION));
    assert!(!status.contains(Global::COMPATIBILITY_INTERRUPTS));
    let old = Sim::new(Model::OLD);
    let refused = Err(UnitError::Unsupported("interrupt remapping"));
    assert_eq!(unit(&old).remap_interrupts(table, 8, false), refused);
}
