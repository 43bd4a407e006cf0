use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::RegisterState;
use crate::vcpu::fake::FakeVcpu;
use platform::handoff::RESERVED;

const MIB: u64 = 1 << 20;

const fn range(base: u64, length: u64, kind: u32) -> MemoryRange {
    MemoryRange { base, length, kind, attributes: 1 }
}

/// 64 MiB of memory from 1 MiB on with two hidden holes, and more above 4 GiB.
const MAP: [MemoryRange; 6] = [
    range(0, 0x9_fc00, USABLE),
    range(MIB, 31 * MIB, USABLE),
    range(32 * MIB, 8 * MIB, RESERVED),
    range(40 * MIB, 8 * MIB, USABLE),
    range(48 * MIB, 2 * MIB, RESERVED),
    range(0x1_0000_0000, 0x123_4500_0000, USABLE),
];

/// A guest that has just executed INT 15h, and its memory with the hook.
fn called(eax: u32) -> (FakeVcpu, FakeMemory) {
    let memory = FakeMemory::new(0x11_0000);
    memory.put(0x54, &[0x59, 0xf8, 0x00, 0xf0]);
    assert_eq!(install(&memory), Ok(Installed::Hook));
    let mut vcpu = FakeVcpu { rip: 0xac, rsp: 0xffff_7ffa, ..FakeVcpu::real_mode() };
    vcpu.segments[SegmentRegister::Cs as usize] = Segment::real_mode(0x40, 0x9b);
    vcpu.segments[SegmentRegister::Ss as usize] = Segment::real_mode(0x1000, 0x93);
    vcpu.segments[SegmentRegister::Es as usize] = Segment::real_mode(0x2000, 0x93);
    vcpu.registers.set_rax(eax.into());
    memory.put(0x1_7ffe, &[0x03, 0x02]);
    (vcpu, memory)
}

fn query(index: u32, room: u32) -> (FakeVcpu, FakeMemory) {
    let (mut vcpu, memory) = called(0xe820);
    vcpu.registers.set_rdx(SMAP.into());
    vcpu.registers.set_rbx(index.into());
    vcpu.registers.set_rcx(room.into());
    vcpu.registers.set_rdi(0x100);
    (vcpu, memory)
}

fn has_carry(memory: &FakeMemory) -> bool {
    let flags = memory.get_u16(0x1_7ffe);
    assert_eq!(flags & !1, 0x0202);
    flags & 1 == 1
}

#[test]
fn the_hook_is_vmcall_iret_and_the_old_vector() {
    let (_, memory) = called(0);
    assert_eq!(memory.get::<8>(0x4ac), [0x0f, 0x01, 0xc1, 0xcf, 0x59, 0xf8, 0x00, 0xf0]);
    assert_eq!(memory.get::<4>(0x54), [0xac, 0x00, 0x40, 0x00]);
}

#[test]
fn only_the_hooks_own_instruction_is_at_the_hook() {
    let at_hook = called(0).0;
    assert!(is_at_hook(&at_hook));
    let task =
        FakeVcpu { cr0: at_hook.cr0 | Cr0::PE, rflags: at_hook.rflags | Rflags::VM, ..at_hook.clone() };
    assert!(is_at_hook(&task), "a virtual-8086 task has the BIOS too");
    let beside = FakeVcpu { rip: at_hook.rip + 1, ..at_hook.clone() };
    let protected = FakeVcpu { cr0: at_hook.cr0 | Cr0::PE, ..at_hook.clone() };
    let mut elsewhere = at_hook.clone();
    elsewhere.segments[SegmentRegister::Cs as usize] = Segment::real_mode(0x41, 0x9b);
    for other in [beside, protected, elsewhere] {
        assert!(!is_at_hook(&other));
    }
}

#[test]
fn an_outer_instances_hook_is_left_alone() {
    let (_, memory) = called(0);
    assert_eq!(install(&memory), Ok(Installed::Outer));
    assert_eq!(memory.get::<4>(0x4b0), [0x59, 0xf8, 0x00, 0xf0]);
}

#[test]
fn all_entries_come_in_turn_and_the_last_is_delivered() {
    let (mut index, mut seen) = (0, Vec::new());
    loop {
        let (mut vcpu, memory) = query(index, 20);
        assert_eq!(answer(&mut vcpu, &memory, &MAP), Action::Advance);
        assert!(!has_carry(&memory));
        assert_eq!((vcpu.registers.rax(), vcpu.registers.rcx()), (0x534d_4150, 20));
        let word = |at: u64| memory.get_u64(0x2_0100 + at);
        seen.push(range(word(0), word(8), memory.get_u32(0x2_0110)));
        index = u32::try_from(vcpu.registers.rbx()).unwrap();
        if index == 0 {
            break;
        }
    }
    assert_eq!(seen, MAP);
}

#[test]
fn records_are_20_or_24_bytes_by_the_room() {
    for (room, expected) in [(20, 20), (23, 20), (24, 24), (!0, 24)] {
        let (mut vcpu, memory) = query(1, room);
        memory.put(0x2_0114, &[0xaa; 8]);
        answer(&mut vcpu, &memory, &MAP);
        assert_eq!(vcpu.registers.rcx(), expected);
        let tail = if expected == 24 { [1, 0, 0, 0, 0xaa] } else { [0xaa; 5] };
        assert_eq!(memory.get::<5>(0x2_0114), tail);
    }
}

#[test]
fn bad_queries_return_with_carry() {
    let bad: [fn(&mut FakeVcpu); 4] = [
        |vcpu| vcpu.registers.set_rbx(6),
        |vcpu| vcpu.registers.set_rbx(0xffff_ffff),
        |vcpu| vcpu.registers.set_rcx(19),
        |vcpu| vcpu.registers.set_rdx(0x534d_4151),
    ];
    for spoil in bad {
        let (mut vcpu, memory) = query(0, 20);
        spoil(&mut vcpu);
        assert_eq!(answer(&mut vcpu, &memory, &MAP), Action::Advance);
        assert!(has_carry(&memory));
        assert_eq!((vcpu.registers.rax(), memory.get_u64(0x2_0108)), (0x8620, 0));
    }
}

#[test]
fn a_record_beyond_the_segment_faults_in_the_guest() {
    let (mut vcpu, memory) = query(0, 20);
    vcpu.registers.set_rdi(0xfff0);
    assert_eq!(answer(&mut vcpu, &memory, &MAP), Action::Inject(Event::GP0));
}

#[test]
fn e801_stops_at_the_first_hole_of_each_part() {
    let (mut vcpu, memory) = called(0xe801);
    answer(&mut vcpu, &memory, &MAP);
    let registers = vcpu.registers;
    assert_eq!((registers.rax(), registers.rcx()), (15 * 1024, 15 * 1024));
    assert_eq!((registers.rbx(), registers.rdx()), (16 * 16, 16 * 16));
    assert!(!has_carry(&memory));
}

#[test]
fn e801_keeps_to_16_bits() {
    let (mut vcpu, memory) = called(0xe801);
    vcpu.registers.set_rbx(0xabcd_0000);
    answer(&mut vcpu, &memory, &[range(MIB, 0x1_0000_0000, USABLE)]);
    assert_eq!(vcpu.registers.rbx(), 0xabcd_ff10);
}

#[test]
fn e801_sees_a_hole_below_16_mib() {
    let map = [range(0, 2 * MIB, USABLE), range(2 * MIB, MIB, RESERVED), range(3 * MIB, 61 * MIB, USABLE)];
    let (mut vcpu, memory) = called(0xe801);
    answer(&mut vcpu, &memory, &map);
    assert_eq!((vcpu.registers.rax(), vcpu.registers.rbx()), (1024, 48 * 16));
}

#[test]
fn function_88_counts_to_the_first_hole_and_63_mib() {
    for (map, kib) in [
        (MAP.as_slice(), 31 * 1024),
        (&[range(MIB, 512 * MIB, USABLE)], 63 * 1024),
        (&[range(MIB, MIB, USABLE), range(2 * MIB, MIB, USABLE)], 2 * 1024),
        (&[], 0),
    ] {
        let (mut vcpu, memory) = called(0x88aa);
        assert_eq!(answer(&mut vcpu, &memory, map), Action::Advance);
        assert_eq!((vcpu.registers.rax(), has_carry(&memory)), (kib, false));
    }
}

#[test]
fn other_functions_go_to_the_bios() {
    for eax in [0x2401, 0xc000, 0x8700, 0xe980] {
        let (mut vcpu, memory) = called(eax);
        let before = (vcpu.registers, vcpu.rsp);
        assert_eq!(answer(&mut vcpu, &memory, &MAP), Action::Resume);
        let cs = vcpu.segment(SegmentRegister::Cs);
        assert_eq!((cs.selector, cs.base, vcpu.rip), (0xf000, 0xf_0000, 0xf859));
        assert_eq!(((vcpu.registers, vcpu.rsp), has_carry(&memory)), (before, true));
    }
}
