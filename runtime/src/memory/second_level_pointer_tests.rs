//! Memory that the processor reaches past the tables, or by a second name.

use super::*;
use crate::features::Features;
use hw::sim::{SimCpuid, SimMsrs};
use platform::handoff::{MemoryRange, RESERVED, USABLE};
use x86::cpuid::CpuidResult;
use x86::msr::Msr;

#[test]
fn what_the_processor_writes_is_never_protected_nor_vice_versa() {
    let mut memory = started(PageSize::Size2M, 128);
    assert_eq!(memory.fill_below(gpa(4 * GIB)), Ok(()));
    assert!(memory.open_view(CPU_VIEWS[1]).is_ok());
    let table = pages(2 * GIB, 4 * PAGE_SIZE);
    assert_eq!(memory.lend(table), Ok(()));
    for page in 0..4 {
        let page = pages(table.start() + page * PAGE_SIZE, PAGE_SIZE);
        assert_eq!(memory.cover(page, Some(Protection::Decoy)), Err(ProtectError::Lent));
        assert_eq!(memory.set_rights(CPU_VIEWS[1], page, Rights::READ), Err(ProtectError::Lent));
        assert_eq!(memory.watch(gpa(page.start())).err(), Some(ProtectError::Lent));
        assert!(memory.reset_rights(CPU, page).is_ok());
    }
    let beside = pages(table.end(), PAGE_SIZE);
    assert!(memory.cover(beside, Some(Protection::Decoy)).is_ok());
    assert!(memory.set_rights(CPU_VIEWS[1], pages(beside.end(), PAGE_SIZE), Rights::READ).is_ok());
    for refused in
        [pages(beside.start() - PAGE_SIZE, 2 * PAGE_SIZE), beside, pages(beside.end(), 8 * PAGE_SIZE)]
    {
        assert_eq!(memory.lend(refused), Err(ProtectError::Lent), "{refused:?}");
    }
    assert_eq!(
        memory.lend(pages(REGION.base - PAGE_SIZE, 2 * PAGE_SIZE)),
        Err(ProtectError::HypervisorMemory)
    );
    assert_eq!(memory.lend(pages(1 << 39, PAGE_SIZE)), Err(ProtectError::OutOfReach));
    // The last page is within reach, the one behind it is not.
    let last = (1 << 39) - PAGE_SIZE;
    assert_eq!(memory.lend(pages(last, PAGE_SIZE)), Ok(()));
    assert!(memory.watch(gpa(last - PAGE_SIZE)).is_ok());
    // A page that is watched is no longer, for its writes are not noticed.
    let watched = pages(3 * GIB - 8 * PAGE_SIZE, PAGE_SIZE);
    assert!(memory.watch(gpa(watched.start())).is_ok());
    assert_eq!(memory.lend(watched), Ok(()));
    assert_eq!(memory.watch_of(gpa(watched.start())), None);
}

/// A memory map with memory in one half of a GiB, and the hypervisor's region, which it calls reserved.
#[test]
fn memory_is_what_the_map_calls_usable_and_the_hypervisors() {
    const MAP: [MemoryRange; 3] = [
        MemoryRange { base: 0, length: 0x9_fc00, kind: USABLE, attributes: 1 },
        MemoryRange { base: 0x9_fc00, length: 0x6_0400, kind: RESERVED, attributes: 1 },
        MemoryRange { base: MIB, length: GIB / 2, kind: USABLE, attributes: 1 },
    ];
    let mut memory = Memory::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), 128 * PAGE_SIZE), Ok(()));
    assert_eq!(memory.start(&MemoryFacts { memory_map: &MAP, ..machine(PageSize::Size2M) }), Ok(()));
    let is_memory = |address| memory.policy().touches_memory(GuestRange::page(gpa(address)));
    for address in
        [0, 0x9_f000, MIB, MIB + GIB / 2 - PAGE_SIZE, REGION.base, REGION.base + REGION.length - PAGE_SIZE]
    {
        assert!(is_memory(address), "{address:#x}");
    }
    for address in [0xa_0000, 0xf_f000, MIB + GIB / 2, REGION.base - PAGE_SIZE, 0xfee0_0000, 1 << 40] {
        assert!(!is_memory(address), "{address:#x}");
    }
}

/// A processor of 46 address bits of which 6 choose encryption keys: each page has 64 names, and one is the page's.
#[test]
fn the_hypervisors_memory_has_no_second_name() {
    let mut memory = Memory::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), 128 * PAGE_SIZE), Ok(()));
    let leaf = |eax, ecx| CpuidResult { eax, ecx, ..CpuidResult::default() };
    let cpuid = SimCpuid::default().with(0, 0, leaf(7, 0)).with(7, 0, leaf(0, 1 << 13)).with(
        0x8000_0008,
        0,
        leaf(0x302e, 0),
    );
    let msrs = SimMsrs::new([(Msr::IA32_TME_ACTIVATE, 6 << 32 | 3)]);
    let physical_address_bits = Features::of(&cpuid, &msrs).physical_address_bits;
    let mtrrs = Mtrrs { physical_address_bits, ..mtrrs() };
    let facts = MemoryFacts { physical_address_bits, mtrrs, ..machine(PageSize::Size2M) };
    assert_eq!(memory.start(&facts), Ok(()));
    for key in 1..64_u64 {
        let alias = gpa(REGION.base | key << 40);
        let seen = memory.violation(CPU, alias, Rights::READ | Rights::WRITE);
        assert_eq!(seen, Resolution::Hidden, "key {key}: mapped to {:x?}", memory.mapped(CPU, alias));
    }
}

#[test]
fn the_last_page_within_reach_is_watched_and_guarded() {
    let last = (1 << 39) - PAGE_SIZE;
    for (page, done) in [(last, Ok(())), (last + PAGE_SIZE, Err(ProtectError::OutOfReach))] {
        assert_eq!(started(PageSize::Size2M, 128).watch(gpa(page)).map(drop), done, "{page:#x}");
        assert_eq!(started(PageSize::Size2M, 128).guard(gpa(page)), done, "{page:#x}");
    }
}

/// What an MSR of the guest's may name, as the tables of the machine answer it.
#[test]
fn pointers_of_the_guest_s_are_answered_by_the_tables() {
    use crate::exit::pointer::Physical;
    let mut memory = started(PageSize::Size2M, 128);
    let device = 3 * GIB;
    assert_eq!(memory.guard(gpa(device)), Ok(()));
    let memory = spin::Mutex::new(memory);
    let page = |address| pages(address, PAGE_SIZE);
    assert!(memory.touches_memory(page(REGION.base)), "the hypervisor's");
    assert!(memory.touches_memory(page(device)), "one that is guarded");
    assert!(!memory.touches_memory(page(device + PAGE_SIZE)));
    assert!(memory.lend(page(2 * GIB)) && !memory.lend(page(REGION.base)));
    assert_eq!(memory.lock().cover(page(2 * GIB), Some(Protection::Decoy)), Err(ProtectError::Lent));
}
