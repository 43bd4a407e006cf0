use super::fake::FakeMemory;
use super::{Access, GuestView, Intent, Privilege, canonical, segmentation};
use crate::vcpu::RegisterState;
use crate::vcpu::fake::{FakeVcpu, flat};
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::event::{Event, Vector};
use x86::segment::{Segment, SegmentRegister};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const XD: u64 = 1 << 63;

const READ: Access = Access { intent: Intent::Read, privilege: Privilege::Supervisor };
const WRITE: Access = Access { intent: Intent::Write, privilege: Privilege::Supervisor };
const FETCH: Access = Access { intent: Intent::Fetch, privilege: Privilege::Supervisor };
const USER_READ: Access = Access { privilege: Privilege::User, ..READ };
const USER_WRITE: Access = Access { privilege: Privilege::User, ..WRITE };
const USER_FETCH: Access = Access { privilege: Privilege::User, ..FETCH };
const IMPLICIT_READ: Access = Access { privilege: Privilege::Implicit, ..READ };

fn translate(vcpu: &FakeVcpu, memory: &FakeMemory, address: u64, access: Access) -> Result<u64, Event> {
    GuestView::new(vcpu, memory).translate(GuestLinearAddr::new(address), access).map(GuestPhysAddr::get)
}

fn fault(address: u64, error_code: u32) -> Result<u64, Event> {
    Err(Event::PageFault { address, error_code })
}

/// Linear 0x1234_5000 of 4-level paging: PML4 at 0x1000, tables at 0x2000 to 0x4000, this leaf.
const LINEAR: u64 = 0x1234_5000;
fn long_mode(leaf: u64) -> (FakeVcpu, FakeMemory) {
    let memory = FakeMemory::new(0x1_0000);
    memory.put_u64(0x1000, 0x2000 | P | W | U);
    memory.put_u64(0x2000, 0x3000 | P | W | U);
    memory.put_u64(0x3000 + 8 * (LINEAR >> 21), 0x4000 | P | W | U);
    memory.put_u64(LEAF, leaf);
    (FakeVcpu::long_mode(), memory)
}
const LEAF: u64 = 0x4000 + 8 * (LINEAR >> 12 & 0x1ff);

#[test]
fn without_paging_addresses_are_physical_and_32_bits() {
    let memory = FakeMemory::new(0);
    assert_eq!(translate(&FakeVcpu::protected_mode(), &memory, 0x1_0000_1234, WRITE), Ok(0x1234));
}

#[test]
fn four_levels_reach_a_4_kib_page() {
    let (vcpu, memory) = long_mode(0x55_6677_8000 | P | W);
    assert_eq!(translate(&vcpu, &memory, LINEAR + 0x9ab, READ), Ok(0x55_6677_89ab));
}

#[test]
fn large_pages_keep_the_lower_address_bits() {
    let (vcpu, memory) = long_mode(0);
    memory.put_u64(0x3000 + 8 * (LINEAR >> 21), 0x7f_ffe0_0000 | PS | P);
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), Ok(0x7f_ffe0_0000 | LINEAR & 0x1f_ffff));
    memory.put_u64(0x2000, 0x40_4000_0000 | PS | P);
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), Ok(0x40_4000_0000 | LINEAR));
}

#[test]
fn five_levels_with_la57() {
    let (mut vcpu, memory) = long_mode(0x8000 | P);
    let high = 3 << 48;
    memory.put_u64(0x5018, 0x1000 | P);
    vcpu.cr3 = 0x5000;
    vcpu.cr4 |= Cr4::LA57;
    assert_eq!(translate(&vcpu, &memory, high | LINEAR, READ), Ok(0x8000));
    vcpu.cr4 -= Cr4::LA57;
    assert_eq!(translate(&vcpu, &memory, high | LINEAR, READ), Err(Event::GP0));
}

#[test]
fn thirty_two_bit_paging_and_its_large_pages() {
    let memory = FakeMemory::new(0x1_0000);
    let mut vcpu = FakeVcpu { cr3: 0x1018, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    memory.put(0x1000 + 4 * 0x48, &0x2007_u32.to_le_bytes());
    memory.put(0x2000 + 4 * 0x345, &0xabcd_e007_u32.to_le_bytes());
    assert_eq!(translate(&vcpu, &memory, 0x1234_5678, USER_READ), Ok(0xabcd_e678));
    // Without CR4.PSE the page-size bit means nothing.
    memory.put(0x1000 + 4 * 0x48, &0x2087_u32.to_le_bytes());
    assert_eq!(translate(&vcpu, &memory, 0x1234_5678, USER_READ), Ok(0xabcd_e678));
    vcpu.cr4 |= Cr4::PSE;
    memory.put(0x1000 + 4 * 0x48, &(0x1040_0087_u32 | 0x7a << 13).to_le_bytes());
    assert_eq!(translate(&vcpu, &memory, 0x1234_5678, USER_READ), Ok(0x7a_1074_5678));
    memory.put(0x1000 + 4 * 0x48, &0x1060_0087_u32.to_le_bytes());
    assert_eq!(translate(&vcpu, &memory, 0x1234_5678, USER_READ), fault(0x1234_5678, 0xd));
}

#[test]
fn flags_of_a_32_bit_entry_leave_its_neighbour_alone() {
    let memory = FakeMemory::new(0x1_0000);
    let mut vcpu = FakeVcpu { cr3: 0x1000, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    for (at, entry) in [(0x1000, 0x2007_u32), (0x1004, 0x9999_9000), (0x2000, 0x8888_8000), (0x2004, 0x7007)]
    {
        memory.put(at, &entry.to_le_bytes());
    }
    assert_eq!(translate(&vcpu, &memory, 0x1000, WRITE), Ok(0x7000));
    let entries = [0x1000, 0x1004, 0x2000, 0x2004].map(|at| memory.get_u32(at));
    assert_eq!(entries, [0x2027, 0x9999_9000, 0x8888_8000, 0x7067]);
}

#[test]
fn pae_paging_starts_at_the_pdpte_registers() {
    let memory = FakeMemory::new(0x1_0000);
    let mut vcpu = FakeVcpu { pdptes: [0, 0, 0, 0x2001], cr4: Cr4::PAE, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    memory.put_u64(0x2000, 0x3007);
    memory.put_u64(0x3008, 0x4_5678_9007);
    assert_eq!(translate(&vcpu, &memory, 0xc000_1fff, READ), Ok(0x4_5678_9fff));
    assert_eq!(translate(&vcpu, &memory, 0x8000_0000, WRITE), fault(0x8000_0000, 2));
    // Bits 62:52 are ignored in 4-level paging, but reserved here.
    memory.put_u64(0x3008, 0x10_0000_0000_9007);
    assert_eq!(translate(&vcpu, &memory, 0xc000_1000, READ), fault(0xc000_1000, 9));
}

#[test]
fn faults_carry_the_processors_error_code() {
    let page = 0x8000;
    for (leaf, access, error_code) in [
        (0, READ, 0),
        (0, WRITE, 2),
        (0, USER_READ, 4),
        (0, USER_WRITE, 6),
        (0, USER_FETCH, 0x14),
        (page | P | U, WRITE, 3),
        (page | P | U, USER_WRITE, 7),
        (page | P | W, USER_READ, 5),
        (page | P | W, USER_WRITE, 7),
        (page | P | W | U | XD, FETCH, 0x11),
        (page | P | W | U | XD, USER_FETCH, 0x15),
        (page | P | 1 << 39, READ, 9),
        (page | P | 1 << 51, USER_WRITE, 0xf),
    ] {
        let (vcpu, memory) = long_mode(leaf);
        assert_eq!(
            translate(&vcpu, &memory, LINEAR, access),
            fault(LINEAR, error_code),
            "{leaf:#x} {access:?}"
        );
    }
}

#[test]
fn rights_are_the_least_of_all_levels() {
    let (vcpu, memory) = long_mode(0x8000 | P | W | U);
    memory.put_u64(0x2000, 0x3000 | P | U);
    assert_eq!(translate(&vcpu, &memory, LINEAR, USER_WRITE), fault(LINEAR, 7));
    memory.put_u64(0x2000, 0x3000 | P | W);
    assert_eq!(translate(&vcpu, &memory, LINEAR, USER_READ), fault(LINEAR, 5));
    memory.put_u64(0x2000, 0x3000 | P | W | U | XD);
    assert_eq!(translate(&vcpu, &memory, LINEAR, USER_FETCH), fault(LINEAR, 0x15));
}

#[test]
fn supervisor_writes_ignore_protection_without_wp() {
    let (mut vcpu, memory) = long_mode(0x8000 | P | U);
    vcpu.cr0 -= Cr0::WP;
    assert_eq!(translate(&vcpu, &memory, LINEAR, WRITE), Ok(0x8000));
    assert_eq!(translate(&vcpu, &memory, LINEAR, USER_WRITE), fault(LINEAR, 7));
}

#[test]
fn execute_disable_is_reserved_without_nxe() {
    let (mut vcpu, memory) = long_mode(0x8000 | P | XD);
    vcpu.efer -= Efer::NXE;
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), fault(LINEAR, 9));
    // Nor does the error code tell fetches then, unless SMEP does.
    memory.put_u64(LEAF, 0);
    assert_eq!(translate(&vcpu, &memory, LINEAR, FETCH), fault(LINEAR, 0));
    vcpu.cr4 |= Cr4::SMEP;
    assert_eq!(translate(&vcpu, &memory, LINEAR, FETCH), fault(LINEAR, 0x10));
}

#[test]
fn smep_and_smap_keep_the_supervisor_from_user_pages() {
    let (mut vcpu, memory) = long_mode(0x8000 | P | W | U);
    let run = |vcpu: &FakeVcpu, access| translate(vcpu, &memory, LINEAR, access);
    assert_eq!(run(&vcpu, FETCH), Ok(0x8000));
    vcpu.cr4 |= Cr4::SMEP | Cr4::SMAP;
    assert_eq!(run(&vcpu, FETCH), fault(LINEAR, 0x11));
    assert_eq!(run(&vcpu, READ), fault(LINEAR, 1));
    assert_eq!(run(&vcpu, USER_READ), Ok(0x8000));
    vcpu.rflags |= Rflags::AC;
    assert_eq!(run(&vcpu, READ), Ok(0x8000));
    assert_eq!(run(&vcpu, IMPLICIT_READ), fault(LINEAR, 1));
}

#[test]
fn protection_keys_of_supervisors_bind_their_data_accesses() {
    let (mut vcpu, memory) = long_mode(0x8000 | P | W | 5 << 59);
    let run = |vcpu: &FakeVcpu, access| translate(vcpu, &memory, LINEAR, access);
    vcpu.pkrs = 3 << 10;
    assert_eq!(run(&vcpu, READ), Ok(0x8000));
    vcpu.cr4 |= Cr4::PKS;
    assert_eq!(run(&vcpu, READ), fault(LINEAR, 0x21));
    assert_eq!(run(&vcpu, IMPLICIT_READ), fault(LINEAR, 0x21));
    assert_eq!(run(&vcpu, FETCH), Ok(0x8000));
    vcpu.pkrs = 2 << 10;
    assert_eq!(run(&vcpu, READ), Ok(0x8000));
    assert_eq!(run(&vcpu, WRITE), fault(LINEAR, 0x23));
    vcpu.cr0 -= Cr0::WP;
    assert_eq!(run(&vcpu, WRITE), Ok(0x8000));
    // Another key, and pages of users, which have a register of their own.
    let (mut vcpu, memory) = long_mode(0x8000 | P | W | 4 << 59);
    (vcpu.cr4, vcpu.pkrs) = (vcpu.cr4 | Cr4::PKS, 3 << 10);
    assert_eq!(translate(&vcpu, &memory, LINEAR, WRITE), Ok(0x8000));
    let (mut vcpu, memory) = long_mode(0x8000 | P | W | U | 5 << 59);
    (vcpu.cr4, vcpu.pkrs) = (vcpu.cr4 | Cr4::PKS, 3 << 10);
    assert_eq!(translate(&vcpu, &memory, LINEAR, WRITE), Ok(0x8000));
}

#[test]
fn protection_keys_bind_data_accesses_to_user_pages() {
    let (mut vcpu, memory) = long_mode(0x8000 | P | W | U | 5 << 59);
    vcpu.cr4 |= Cr4::PKE;
    let run = |vcpu: &FakeVcpu, access| translate(vcpu, &memory, LINEAR, access);
    vcpu.pkru = 2 << 10;
    assert_eq!(run(&vcpu, USER_READ), Ok(0x8000));
    assert_eq!(run(&vcpu, USER_WRITE), fault(LINEAR, 0x27));
    assert_eq!(run(&vcpu, WRITE), fault(LINEAR, 0x23));
    vcpu.cr0 -= Cr0::WP;
    assert_eq!(run(&vcpu, WRITE), Ok(0x8000));
    vcpu.pkru = 1 << 10;
    assert_eq!(run(&vcpu, USER_READ), fault(LINEAR, 0x25));
    assert_eq!(run(&vcpu, USER_FETCH), Ok(0x8000));
    vcpu.cr4 -= Cr4::PKE;
    assert_eq!(run(&vcpu, USER_READ), Ok(0x8000));
}

#[test]
fn reserved_bits_of_tables_and_large_pages() {
    let (vcpu, mut memory) = long_mode(0x8000 | P);
    memory.put_u64(0x1000, 0x2000 | P | PS);
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), fault(LINEAR, 9));
    memory.put_u64(0x1000, 0x2000 | P);
    memory.put_u64(0x2000, 0x4000_0000 | P | PS | 1 << 13);
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), fault(LINEAR, 9));
    memory.put_u64(0x2000, 0x4000_0000 | P | PS);
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), Ok(0x4000_0000 | LINEAR));
    memory.has_1gib_pages = false;
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), fault(LINEAR, 9));
}

#[test]
fn accessed_and_dirty_are_set_where_the_processor_sets_them() {
    let (vcpu, memory) = long_mode(0x8000 | P | W | U);
    let tables = [0x1000, 0x2000, 0x3000 + 8 * (LINEAR >> 21), LEAF];
    translate(&vcpu, &memory, LINEAR, READ).unwrap();
    assert_eq!(tables.map(|at| memory.get_u64(at) & (A | D)), [A; 4]);
    translate(&vcpu, &memory, LINEAR, WRITE).unwrap();
    assert_eq!(tables.map(|at| memory.get_u64(at) & (A | D)), [A, A, A, A | D]);
}

#[test]
fn a_denied_access_sets_no_flag() {
    let (vcpu, memory) = long_mode(0x8000 | P | U);
    assert_eq!(translate(&vcpu, &memory, LINEAR, WRITE), fault(LINEAR, 3));
    assert_eq!(memory.get_u64(LEAF), 0x8000 | P | U);
}

#[test]
fn a_lost_race_walks_again_and_no_race_lasts_for_ever() {
    let (vcpu, memory) = long_mode(0x8000 | P | W);
    memory.lost_races.set(5);
    assert_eq!(translate(&vcpu, &memory, LINEAR, WRITE), Ok(0x8000));
    assert_eq!(memory.get_u64(LEAF) & (A | D), A | D);
    memory.put_u64(LEAF, 0x8000 | P | W);
    memory.lost_races.set(usize::MAX);
    assert_eq!(translate(&vcpu, &memory, LINEAR, WRITE), fault(LINEAR, 2));
}

#[test]
fn tables_in_the_hypervisors_memory_are_refused() {
    let (vcpu, mut memory) = long_mode(0x8000 | P | W);
    memory.hidden = 0x3000..0x4000;
    assert_eq!(translate(&vcpu, &memory, LINEAR, READ), Err(Event::GP0));
}

#[test]
fn copies_cross_pages() {
    let (vcpu, memory) = long_mode(0x8000 | P | W);
    memory.put_u64(LEAF + 8, 0x6000 | P | W);
    let view = GuestView::new(&vcpu, &memory);
    let at = GuestLinearAddr::new(LINEAR + 0xffd);
    assert_eq!(view.write(at, b"sixty!", Privilege::Supervisor), Ok(()));
    assert_eq!((memory.get(0x8ffd), memory.get(0x6000)), (*b"six", *b"ty!"));
    let mut bytes = [0; 6];
    assert_eq!(view.read(at, &mut bytes, Privilege::Supervisor), Ok(()));
    assert_eq!(&bytes, b"sixty!");
}

#[test]
fn a_write_that_faults_later_writes_nothing() {
    let (vcpu, memory) = long_mode(0x8000 | P | W);
    let view = GuestView::new(&vcpu, &memory);
    let event = Event::PageFault { address: LINEAR + 0x1000, error_code: 2 };
    assert_eq!(view.write(GuestLinearAddr::new(LINEAR + 0xfff), &[1, 2], Privilege::Supervisor), Err(event));
    assert_eq!(memory.get::<1>(0x8fff), [0]);
}

#[test]
fn thirty_two_bit_addresses_wrap_at_4_gib() {
    let memory = FakeMemory::new(0x1_0000);
    let mut vcpu = FakeVcpu { cr3: 0x1000, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    for (at, entry) in [(0x1000, 0x2003_u32), (0x1ffc, 0x3003), (0x2000, 0x5003), (0x3ffc, 0x4003)] {
        memory.put(at, &entry.to_le_bytes());
    }
    let view = GuestView::new(&vcpu, &memory);
    view.write(GuestLinearAddr::new(0xffff_fffe), &[1, 2, 3, 4], Privilege::Supervisor).unwrap();
    assert_eq!((memory.get(0x4ffe), memory.get(0x5000)), ([1, 2], [3, 4]));
}

fn linear(
    vcpu: &FakeVcpu,
    register: SegmentRegister,
    offset: u64,
    length: u64,
    intent: Intent,
) -> Result<u64, Event> {
    segmentation::linear(vcpu, register, offset, length, intent).map(GuestLinearAddr::get)
}

#[test]
fn limits_are_checked_to_the_last_byte() {
    let mut vcpu = FakeVcpu::real_mode();
    vcpu.set_segment(SegmentRegister::Ds, Segment::real_mode(0x1234, 0x93));
    assert_eq!(linear(&vcpu, SegmentRegister::Ds, 0xfffc, 4, Intent::Read), Ok(0x2_233c));
    assert_eq!(linear(&vcpu, SegmentRegister::Ds, 0xfffd, 4, Intent::Read), Err(Event::GP0));
    let stack_fault = Event::Exception { vector: Vector::SS, error_code: Some(0) };
    assert_eq!(linear(&vcpu, SegmentRegister::Ss, 0xffff, 2, Intent::Write), Err(stack_fault));
}

#[test]
fn expand_down_segments_reach_above_their_limit() {
    let mut vcpu = FakeVcpu::protected_mode();
    vcpu.set_segment(SegmentRegister::Ds, Segment { limit: 0xfff, ..flat(0x0097) });
    let run = |offset, length| linear(&vcpu, SegmentRegister::Ds, offset, length, Intent::Write);
    assert_eq!((run(0x1000, 4), run(0xfffc, 4)), (Ok(0x1000), Ok(0xfffc)));
    assert_eq!((run(0xfff, 4), run(0xfffd, 4)), (Err(Event::GP0), Err(Event::GP0)));
}

#[test]
fn types_are_checked_in_protected_mode_only() {
    let mut vcpu = FakeVcpu::protected_mode();
    for (rights, read, write) in [
        (0xc093, true, true),
        (0xc091, true, false),
        (0xc09b, true, false),
        (0xc099, false, false),
        (0x1_0000, false, false),
    ] {
        vcpu.set_segment(SegmentRegister::Es, flat(rights));
        let may = |intent| linear(&vcpu, SegmentRegister::Es, 0, 1, intent).is_ok();
        assert_eq!((may(Intent::Read), may(Intent::Write)), (read, write), "{rights:#x}");
    }
    let mut real = FakeVcpu::real_mode();
    real.set_segment(SegmentRegister::Es, Segment::real_mode(0, 0x91));
    assert_eq!(linear(&real, SegmentRegister::Es, 5, 1, Intent::Write), Ok(5));
}

#[test]
fn in_64_bit_mode_fs_and_gs_have_bases() {
    let mut vcpu = FakeVcpu::long_mode();
    for register in [SegmentRegister::Ds, SegmentRegister::Gs] {
        vcpu.set_segment(register, Segment { base: 0xffff_8000_0000_0000, limit: 0, ..flat(0xc093) });
    }
    let run = |register, offset, length| linear(&vcpu, register, offset, length, Intent::Read);
    assert_eq!(run(SegmentRegister::Ds, 0x1000, 8), Ok(0x1000));
    assert_eq!(run(SegmentRegister::Gs, 0x1000, 8), Ok(0xffff_8000_0000_1000));
    assert_eq!(run(SegmentRegister::Ds, 0x7fff_ffff_fffc, 4), Ok(0x7fff_ffff_fffc));
    assert_eq!(run(SegmentRegister::Ds, 0x7fff_ffff_fffd, 4), Err(Event::GP0));
    assert_eq!(run(SegmentRegister::Ds, u64::MAX, 2), Err(Event::GP0));
    assert!(canonical::is_canonical(0x00ff_0000_0000_0000, Cr4::LA57));
    assert!(!canonical::is_canonical(0x00ff_0000_0000_0000, Cr4::empty()));
}
