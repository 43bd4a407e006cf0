//! Areas in fake memory, MSRs in a map.

use super::{AreaMsrs, MsrArea, Unusable};
use crate::memory::guest::fake::FakeMemory;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::entry::checks::fixture::hardware;
use crate::vmx::nested::vmcs12::Vmcs12;
use hw::sim::SimMsrs;
use proptest::prelude::*;
use std::collections::BTreeMap;
use x86::msr::Msr;
use x86::vmx::vmcs;

const AREA: u64 = 0x1ff0;

#[derive(Debug, Default)]
struct FakeMsrs {
    values: BTreeMap<u32, u64>,
    log: Vec<(u32, u64)>,
}

impl FakeMsrs {
    fn new(values: &[(u32, u64)]) -> Self {
        Self { values: values.iter().copied().collect(), log: Vec::new() }
    }
}

impl AreaMsrs for FakeMsrs {
    fn read(&mut self, msr: Msr) -> Option<u64> {
        self.values.get(&msr.0).copied()
    }

    fn write(&mut self, msr: Msr, value: u64) -> bool {
        let Some(place) = self.values.get_mut(&msr.0) else { return false };
        *place = value;
        self.log.push((msr.0, value));
        true
    }
}

fn area(memory: &FakeMemory, entries: &[(u64, u64)]) -> MsrArea {
    for (at, &(number, value)) in (AREA..).step_by(16).zip(entries) {
        memory.put_u64(at, number);
        memory.put_u64(at + 8, value);
    }
    MsrArea { address: AREA, count: u32::try_from(entries.len()).unwrap(), limit: 512 }
}

fn loaded(number: u64) -> Result<(), Unusable> {
    let memory = FakeMemory::new(0x4000);
    let mut msrs = FakeMsrs::new(&[(0xc000_0081, 0), (u32::try_from(number & 0xffff_ffff).unwrap(), 0)]);
    area(&memory, &[(0xc000_0081, 1), (number, 2), (0xc000_0081, 3)]).load_on_entry(&memory, &mut msrs)
}

#[test]
fn each_area_is_where_vmcs12_says_and_of_a_limited_length() {
    let mut vmcs12 = Vmcs12::new();
    let fields = [
        (vmcs::ENTRY_MSR_LOAD_ADDRESS, vmcs::ENTRY_MSR_LOAD_COUNT),
        (vmcs::EXIT_MSR_STORE_ADDRESS, vmcs::EXIT_MSR_STORE_COUNT),
        (vmcs::EXIT_MSR_LOAD_ADDRESS, vmcs::EXIT_MSR_LOAD_COUNT),
    ];
    for ((address, count), number) in fields.into_iter().zip(1..) {
        vmcs12.write(address, u64::from(number) << 12);
        vmcs12.write(count, number);
    }
    // Bits 27:25 of IA32_VMX_MISC: the recommended length is 512 times one more.
    for (misc, limit) in [(0, 512), (0x7004_c1e7, 512), (3 << 25, 2048), (7 << 25, 4096)] {
        let msrs = SimMsrs::new(hardware());
        msrs.set(Msr::IA32_VMX_MISC, misc);
        let capability = Capability::of(&msrs, 39).unwrap();
        let areas = [MsrArea::of_entry, MsrArea::of_exit_store, MsrArea::of_exit_load];
        for (area, number) in areas.into_iter().zip(1..) {
            let expected = MsrArea { address: u64::from(number) << 12, count: number, limit };
            assert_eq!(area(&vmcs12, &capability), expected);
        }
    }
}

#[test]
fn entries_are_loaded_in_their_order_across_pages() {
    let memory = FakeMemory::new(0x4000);
    let mut msrs = FakeMsrs::new(&[(0x10, 0), (0xc000_0102, 0)]);
    let area = area(&memory, &[(0x10, 5), (0xc000_0102, 6), (0x10, 7)]);
    assert_eq!(area.load_on_entry(&memory, &mut msrs), Ok(()));
    assert_eq!(msrs.log, [(0x10, 5), (0xc000_0102, 6), (0x10, 7)]);
}

#[test]
fn registers_that_no_area_loads_fail_with_their_entry_s_number() {
    let refused = [0xc000_0100, 0xc000_0101, 0x800, 0x808, 0x8ff, 0x9b, 0x79, 0x8b, 0x1_0000_0010, 1 << 63];
    for number in refused {
        assert_eq!(loaded(number), Err(Unusable { entry: 2 }), "{number:#x}");
    }
    for number in [0x7ff, 0x900, 0x10, 0xc000_0102, 0xc000_0080] {
        assert_eq!(loaded(number), Ok(()), "{number:#x}");
    }
}

#[test]
fn a_value_that_wrmsr_refuses_ends_the_loading() {
    let memory = FakeMemory::new(0x4000);
    let mut msrs = FakeMsrs::new(&[(0x10, 0)]);
    let area = area(&memory, &[(0x10, 5), (0x11, 6), (0x10, 7)]);
    assert_eq!(area.load_on_exit(&memory, &mut msrs), Err(Unusable { entry: 2 }));
    assert_eq!(msrs.log, [(0x10, 5)]);
}

#[test]
fn values_are_stored_behind_their_numbers() {
    let memory = FakeMemory::new(0x4000);
    let mut msrs = FakeMsrs::new(&[(0x10, 0x1234), (0xc000_0100, 0x5678)]);
    let area = area(&memory, &[(0x10, 0), (0xc000_0100, 0)]);
    assert_eq!(area.store_on_exit(&memory, &mut msrs), Ok(()));
    assert_eq!((memory.get_u64(AREA + 8), memory.get_u64(AREA + 24)), (0x1234, 0x5678));
    assert_eq!((memory.get_u64(AREA), memory.get_u64(AREA + 16)), (0x10, 0xc000_0100));
}

#[test]
fn registers_that_no_area_stores_abort() {
    for number in [0x800, 0x83f, 0x9e, 0x11, 1 << 32 | 0x10] {
        let memory = FakeMemory::new(0x4000);
        let mut msrs = FakeMsrs::new(&[(0x10, 1), (0x800, 1), (0x83f, 1), (0x9e, 1)]);
        let area = area(&memory, &[(0x10, 0), (number, 0)]);
        assert_eq!(area.store_on_exit(&memory, &mut msrs), Err(Unusable { entry: 2 }), "{number:#x}");
    }
}

#[test]
fn an_area_outside_the_memory_or_too_long_fails_where_it_is() {
    let memory = FakeMemory::new(0x4000);
    let mut msrs = FakeMsrs::new(&[(0x10, 0)]);
    let area = area(&memory, &[(0x10, 5), (0x10, 6), (0x10, 7)]);
    let outside = MsrArea { address: 0x3ff0, count: 2, ..area };
    memory.put_u64(0x3ff0, 0x10);
    assert_eq!(outside.load_on_entry(&memory, &mut msrs), Err(Unusable { entry: 2 }));
    let long = MsrArea { limit: 2, ..area };
    assert_eq!(long.load_on_entry(&memory, &mut msrs), Err(Unusable { entry: 3 }));
    let far = MsrArea { address: (1 << 52) - 16, count: u32::MAX, limit: u32::MAX };
    assert_eq!(far.load_on_exit(&memory, &mut msrs), Err(Unusable { entry: 1 }));
}

#[test]
fn a_page_that_l1_may_not_write_takes_no_value() {
    let mut memory = FakeMemory::new(0x4000);
    let area = area(&memory, &[(0x10, 3), (0x10, 4)]);
    memory.read_only = 0x1000..0x2000;
    let mut msrs = FakeMsrs::new(&[(0x10, 9)]);
    assert_eq!(area.store_on_exit(&memory, &mut msrs), Ok(()));
    assert_eq!((memory.get_u64(AREA + 8), memory.get_u64(AREA + 24)), (3, 9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Hostile bytes end somewhere, with the number of an entry, and load nothing that must not be.
    #[test]
    fn any_bytes_load_what_may_be_loaded(bytes in prop::collection::vec(any::<u8>(), 64), count in 0_u32..8) {
        let memory = FakeMemory::new(0x4000);
        memory.put(AREA, &bytes);
        let mut msrs = FakeMsrs::new(&[(0, 0), (0x10, 0)]);
        let result = MsrArea { address: AREA, count, limit: 512 }.load_on_entry(&memory, &mut msrs);
        let done = u32::try_from(msrs.log.len()).unwrap();
        prop_assert_eq!(result, if done == count { Ok(()) } else { Err(Unusable { entry: done + 1 }) });
    }
}
