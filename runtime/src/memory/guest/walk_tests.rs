use super::*;
use crate::memory::guest::GuestView;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::fake::FakeVcpu;
use x86::cr::Cr3;

const READ: Access = Access { intent: Intent::Read, privilege: Privilege::User };
const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const PS: u64 = 0x80;
/// Linear addresses: of a page of 4 KiB, and in one of 2 MiB.
const SMALL: u64 = 0x1234_5000;
const LARGE: u64 = 0x1254_5000;

/// 4-level paging: tables from 0x1000 on, the last one at 0x4000.
fn long_mode() -> (FakeVcpu, FakeMemory) {
    let memory = FakeMemory::new(0x1_0000);
    memory.put_u64(0x1000, 0x2000 | P | W | U);
    memory.put_u64(0x2000, 0x3000 | P | W | U);
    memory.put_u64(0x3000 + 8 * (SMALL >> 21), 0x4000 | P | W | U);
    memory.put_u64(0x3000 + 8 * (LARGE >> 21), 0x7f_ffe0_1000 | P | W | U | PS);
    memory.put_u64(0x4000 + 8 * (SMALL >> 12 & 0x1ff), 0x55_6677_8000 | P | W | U | 1 << 63);
    (FakeVcpu::long_mode(), memory)
}

fn leaf(vcpu: &FakeVcpu, memory: &FakeMemory, address: u64) -> Option<Leaf> {
    GuestView::new(vcpu, memory).find(GuestLinearAddr::new(address), READ).unwrap().1
}

#[test]
fn an_entry_is_told_by_its_place_and_what_it_maps() {
    let (vcpu, memory) = long_mode();
    let small = leaf(&vcpu, &memory, SMALL | 0x123).unwrap();
    assert_eq!((small.at.get(), small.width), (0x4000 + 8 * (SMALL >> 12 & 0x1ff), 8));
    assert_eq!((small.value, small.base.get(), small.size), (0x55_6677_8001, 0x55_6677_8000, 0x1000));
    let large = leaf(&vcpu, &memory, LARGE).unwrap();
    assert_eq!((large.at.get(), large.width), (0x3000 + 8 * (LARGE >> 21), 8));
    // Bit 12 is the PAT's.
    assert_eq!((large.value, large.base.get(), large.size), (0x7f_ffe0_0001, 0x7f_ffe0_0000, 0x20_0000));
    // Rights, and accessed and dirty flags, are none of it.
    assert_eq!(small.mask & 0xfff, 1);
    assert_eq!(small.mask >> 52, 0);
    assert_eq!(leaf(&FakeVcpu::protected_mode(), &memory, SMALL), None);
}

#[test]
fn entries_of_32_bits_are_told_as_well() {
    let memory = FakeMemory::new(0x1_0000);
    let mut vcpu = FakeVcpu { cr3: 0x1000, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    vcpu.cr4 |= Cr4::PSE;
    memory.put(0x1000 + 4 * 0x48, &0x2007_u32.to_le_bytes());
    memory.put(0x2000 + 4 * 0x345, &0xabcd_e007_u32.to_le_bytes());
    let small = leaf(&vcpu, &memory, SMALL).unwrap();
    assert_eq!((small.at.get(), small.width), (0x2000 + 4 * 0x345, 4));
    assert_eq!((small.value, small.base.get(), small.size), (0xabcd_e001, 0xabcd_e000, 0x1000));
    memory.put(0x1000 + 4 * 0x48, &(0x1040_0087_u32 | 0x7a << 13).to_le_bytes());
    let large = leaf(&vcpu, &memory, SMALL).unwrap();
    assert_eq!((large.at.get(), large.width, large.size), (0x1000 + 4 * 0x48, 4, 0x40_0000));
    assert_eq!((large.value, large.base.get()), (0x104f_4001, 0x7a_1040_0000));
}

#[test]
fn an_address_that_is_named_in_a_register_has_no_tag() {
    let (mut vcpu, memory) = long_mode();
    // Linear-address masking is for operands of instructions; what a hypercall names is none.
    vcpu.cr3 |= (Cr3::LAM_U48 | Cr3::LAM_U57).bits();
    let read = |address| GuestView::new(&vcpu, &memory).probe(GuestLinearAddr::new(address), 1, READ);
    assert_eq!(read(SMALL), Ok(()));
    for bit in 48..63 {
        assert_eq!(read(SMALL | 1 << bit), Err(Event::GP0), "bit {bit}");
    }
}
