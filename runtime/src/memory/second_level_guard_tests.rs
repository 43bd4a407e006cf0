//! Guarded pages: no view, protection or pointer gets around them.

use super::*;
use platform::handoff::{MemoryRange, RESERVED, USABLE};

const PAGE: u64 = 0x8_0000_b000;

fn guarded() -> Memory {
    let mut memory = started(PageSize::Size1G, 512);
    assert_eq!(memory.guard(GuestPhysAddr::new(PAGE)), Ok(()));
    memory
}

#[test]
fn stores_exit_and_all_else_goes_through() {
    let mut memory = guarded();
    let page = GuestPhysAddr::new(PAGE + 0x40);
    for access in [Rights::READ, Rights::EXECUTE] {
        assert_eq!(memory.violation(CPU, page, access), Resolution::Filled);
    }
    for access in [Rights::WRITE, Rights::READ | Rights::WRITE] {
        assert_eq!(memory.violation(CPU, page, access), Resolution::Guarded);
    }
    let (_, size, attributes) = memory.mapped(CPU, page).unwrap();
    assert_eq!((size, attributes.rights), (PageSize::Size4K, Rights::READ | Rights::EXECUTE));
    let allowance = memory.policy().allowance_at(CPU, page.get());
    assert_eq!(allowance, Some((Rights::READ | Rights::EXECUTE, false)));
    for beside in [PAGE - 1, PAGE + PAGE_SIZE] {
        assert_eq!(memory.violation(CPU, GuestPhysAddr::new(beside), Rights::WRITE), Resolution::Filled);
    }
}

#[test]
fn a_watch_ends_and_the_guard_stays() {
    let mut memory = guarded();
    let page = GuestPhysAddr::new(PAGE);
    let (_, flush) = memory.watch(page).unwrap();
    memory.flushed(flush);
    assert!(matches!(memory.violation(CPU, page, Rights::WRITE), Resolution::Noticed(_)));
    for _ in 0..2 {
        assert_eq!(memory.violation(CPU, page, Rights::WRITE), Resolution::Guarded);
    }
    let flush = memory.drop_tables();
    memory.flushed(flush);
    assert_eq!(memory.violation(CPU, page, Rights::WRITE), Resolution::Guarded);
}

#[test]
fn nobody_protects_or_lends_a_guarded_page() {
    let mut memory = guarded();
    let around = pages(PAGE - PAGE_SIZE, 3 * PAGE_SIZE);
    assert_eq!(memory.set_rights(CPU, around, Rights::READ).err(), Some(ProtectError::Guarded));
    assert_eq!(memory.cover(around, Some(Protection::Decoy)).err(), Some(ProtectError::Guarded));
    assert_eq!(memory.lend(around), Err(ProtectError::Guarded));
    assert!(memory.set_rights(CPU, pages(PAGE - PAGE_SIZE, PAGE_SIZE), Rights::READ).is_ok());
    // To take back what was never said changes nothing.
    assert!(memory.reset_rights(CPU, around).is_ok());
    assert_eq!(memory.violation(CPU, GuestPhysAddr::new(PAGE), Rights::WRITE), Resolution::Guarded);
    let view = View::of_cpu(1);
    assert!(memory.open_view(view).is_ok());
    assert_eq!(memory.violation(view, GuestPhysAddr::new(PAGE), Rights::WRITE), Resolution::Guarded);
}

#[test]
fn memory_is_never_guarded() {
    const MAP: [MemoryRange; 2] = [
        MemoryRange { base: 0, length: 32 * MIB, kind: USABLE, attributes: 1 },
        MemoryRange { base: 32 * MIB, length: 16 * MIB, kind: RESERVED, attributes: 1 },
    ];
    let mut memory = Memory::new(SimMemory::new(0xff));
    assert_eq!(memory.frames().add(HostPhysAddr::new(REGION.base), 128 * PAGE_SIZE), Ok(()));
    assert_eq!(memory.start(&MemoryFacts { memory_map: &MAP, ..machine(PageSize::Size2M) }), Ok(()));
    for (address, result) in [
        (0xb000, Err(ProtectError::Lent)),
        (32 * MIB - PAGE_SIZE, Err(ProtectError::Lent)),
        (32 * MIB, Ok(())),
        (REGION.base, Err(ProtectError::HypervisorMemory)),
        (REGION.base + REGION.length - PAGE_SIZE, Err(ProtectError::HypervisorMemory)),
        (1 << 39, Err(ProtectError::OutOfReach)),
        ((1 << 52) - PAGE_SIZE, Err(ProtectError::OutOfReach)),
    ] {
        assert_eq!(memory.guard(GuestPhysAddr::new(address)), result, "{address:#x}");
    }
    let is_guarded = |address| memory.policy().is_guarded(GuestRange::page(GuestPhysAddr::new(address)));
    assert_eq!([0xb000, 32 * MIB, REGION.base].map(is_guarded), [false, true, false]);
}
