//! The second level in Intel's format: words in memory, bit for bit.

use hw::PhysMemory;
use hw::sim::SimMemory;
use platform::handoff::PhysRange;
use platform::mtrr_map::Mtrrs;
use runtime::memory::policy::MemoryFacts;
use runtime::memory::{Flush, GuestRange, Resolution, SecondLevel, View};
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::mtrr::{MtrrCapabilities, MtrrDefaultType, VariableMtrr};
use x86::paging::{PageSize, Rights};
use x86::vmx::ept::EptFormat;

const POOL: u64 = 0x3000_0000;
const GIB: u64 = 1 << 30;

/// As SeaBIOS leaves them with 1 GiB of memory, the video memory uncacheable.
fn mtrrs() -> Mtrrs {
    let mut mtrrs = Mtrrs::disabled(40);
    mtrrs.capabilities = MtrrCapabilities(0x508);
    mtrrs.default_type = MtrrDefaultType(0xc06);
    mtrrs.fixed = [0x0606_0606_0606_0606; 11];
    mtrrs.fixed[2] = 0;
    mtrrs.variable[0] = VariableMtrr { base: 0xc000_0000, mask: 0xff_c000_0800 };
    mtrrs
}

fn started(memory: &SimMemory) -> SecondLevel<&SimMemory, EptFormat> {
    let mut second_level = SecondLevel::new(memory);
    assert_eq!(second_level.frames().add(HostPhysAddr::new(POOL), 100 << 12), Ok(()));
    let machine = MemoryFacts {
        region: PhysRange { base: POOL, length: 0x80_0000 },
        memory_map: &[],
        physical_address_bits: 40,
        largest_page: PageSize::Size1G,
        has_execute_only: true,
        mtrrs: mtrrs(),
    };
    assert_eq!(second_level.start(&machine), Ok(()));
    assert_eq!(second_level.fill_below(GuestPhysAddr::new(4 * GIB)), Ok(()));
    second_level
}

/// Entry `index` of the table that `entry` links.
fn next(memory: &SimMemory, entry: u64, index: u64) -> u64 {
    assert_eq!(entry & 0xfff, 7, "{entry:#x} links no table");
    memory.read_u64(HostPhysAddr::new((entry & !0xfff) + 8 * index))
}

#[test]
fn the_first_four_gibibytes_are_the_words_that_the_manual_wants() {
    let memory = SimMemory::new(0xff);
    let second_level = started(&memory);
    let root = second_level.root(View::SHARED).map_or(0, |root| root.table().get());
    let gibibytes = memory.read_u64(HostPhysAddr::new(root));
    assert_eq!(memory.read_u64(HostPhysAddr::new(root + 8)), 0);
    let gibibyte = |index| next(&memory, gibibytes, index);
    // Page, type, rights: write-back with all rights is 0xb7, uncacheable 0x87.
    assert_eq!([1, 2, 3, 4].map(gibibyte), [GIB + 0xb7, 2 * GIB + 0xb7, 3 * GIB + 0x87, 0]);
    let low = |index| next(&memory, gibibyte(0), index);
    assert_eq!((low(1), low(383)), (0x20_00b7, 0x2fe0_00b7));
    assert_eq!([384, 387, 388].map(low), [0, 0, 0x3080_00b7]);
    let page = |index| next(&memory, low(0), index);
    assert_eq!((page(0), page(0x9f)), (0x37, 0x9_f037));
    assert_eq!((page(0xa0), page(0xbf)), (0xa_0007, 0xb_f007));
    assert_eq!((page(0xc0), page(0x1ff)), (0xc_0037, 0x1f_f037));
}

#[test]
fn a_fetch_only_page_stops_reads_and_gives_fetches() {
    let memory = SimMemory::new(0xff);
    let mut second_level = started(&memory);
    let gpa = GuestPhysAddr::new(GIB + 0x5000);
    let flush = second_level.set_rights(View::SHARED, GuestRange::page(gpa), Rights::EXECUTE);
    assert!(flush.as_ref().is_ok_and(Flush::is_needed));
    let root = second_level.root(View::SHARED).map_or(0, |root| root.table().get());
    let gibibytes = memory.read_u64(HostPhysAddr::new(root));
    let first = next(&memory, next(&memory, gibibytes, 1), 0);
    assert_eq!((next(&memory, first, 4), next(&memory, first, 5)), (GIB | 0x4037, GIB | 0x5034));
    let read = second_level.violation(View::SHARED, gpa, Rights::READ);
    assert_eq!(read, Resolution::Protected(Rights::EXECUTE));
    assert_eq!(second_level.violation(View::SHARED, gpa, Rights::EXECUTE), Resolution::Filled);
}
