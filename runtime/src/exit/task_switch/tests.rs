use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::RegisterState;
use crate::vcpu::fake::FakeVcpu;
use x86::segment::DescriptorTable;

#[path = "segment_tests.rs"]
mod segments;

const GDT: u64 = 0x1000;
const OLD_TSS: u64 = 0x2000;
const NEW_TSS: u64 = 0x3000;
const STACK: u64 = 0x5000;

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const OLD: u16 = 0x18;
const NEW: u16 = 0x20;
const USER_CODE: u16 = 0x2b;
const USER_DATA: u16 = 0x33;
const LDT: u16 = 0x38;

const AVAILABLE32: u64 = 0x89;
const BUSY32: u64 = 0x8b;

/// A descriptor of this type byte, flags nibble zero.
const fn descriptor(base: u64, limit: u64, kind: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | kind << 40
        | (limit & 0xf_0000) << 32
        | (base & 0xff00_0000) << 32
}

/// Two 32-bit tasks, the old one running, the new one with registers 0x101, 0x102 and so on.
fn tasks() -> (FakeVcpu, FakeMemory) {
    let memory = FakeMemory::new(0x1_0000);
    let entries = [
        (CODE, 0x00cf_9a00_0000_ffff),
        (DATA, 0x00cf_9200_0000_ffff),
        (OLD, descriptor(OLD_TSS, 103, BUSY32)),
        (NEW, descriptor(NEW_TSS, 103, AVAILABLE32)),
        (USER_CODE, 0x00cf_fa00_0000_ffff),
        (USER_DATA, 0x00cf_f200_0000_ffff),
        (LDT, descriptor(0x4000, 0xff, 0x82)),
    ];
    for (selector, entry) in entries {
        memory.put_u64(GDT + u64::from(selector & !7), entry);
    }
    set32(&memory, 0x20, 0x1234);
    set32(&memory, 0x24, 0x0000_0046);
    for index in 0..8 {
        set32(&memory, 0x28 + 4 * index, 0x101 + index as u32);
    }
    set32(&memory, 0x38, STACK as u32);
    for (at, selector) in [(0x48, DATA), (0x4c, CODE), (0x50, DATA), (0x54, DATA)] {
        set32(&memory, at, selector.into());
    }
    let mut vcpu = FakeVcpu { rip: 0x7700, rsp: 0x7fe0, dr7: 0x7ff, ..FakeVcpu::protected_mode() };
    vcpu.gdtr = DescriptorTable { base: GDT, limit: 0x3f };
    vcpu.registers.0 = core::array::from_fn(|index| 0x201 + index as u64);
    vcpu.set_segment(SegmentRegister::Tr, Descriptor(descriptor(OLD_TSS, 103, BUSY32)).segment(OLD));
    (vcpu, memory)
}

/// Sets a field of the new task's TSS.
fn set32(memory: &FakeMemory, offset: u64, value: u32) {
    memory.put(NEW_TSS + offset, &value.to_le_bytes());
}

fn kind(memory: &FakeMemory, selector: u16) -> u8 {
    memory.get::<1>(GDT + u64::from(selector & !7) + 5)[0]
}

fn switch(vcpu: &mut FakeVcpu, memory: &FakeMemory, source: TaskSwitchSource) -> Action {
    handle(vcpu, memory, TaskSwitch { selector: NEW, source })
}

fn exception(vector: Vector, error_code: u32) -> Action {
    Action::Inject(Event::Exception { vector, error_code: Some(error_code) })
}

const FROM_OUTSIDE: TaskSwitchSource = TaskSwitchSource::Event { error_code: None };

#[test]
fn jump_enters_the_new_task() {
    let (mut vcpu, memory) = tasks();
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Jump), Action::Resume);
    assert_eq!((vcpu.rip, vcpu.rsp, vcpu.rflags.bits()), (0x1234, STACK, 0x46));
    let registers = [0x101, 0x102, 0x103, 0x104, 0, 0x106, 0x107, 0x108];
    assert_eq!(vcpu.registers.0[..8], registers);
    let tr = vcpu.segment(SegmentRegister::Tr);
    assert_eq!((tr.selector, tr.base, tr.limit, tr.rights.bits()), (NEW, NEW_TSS, 103, 0x8b));
    let cs = vcpu.segment(SegmentRegister::Cs);
    assert_eq!((cs.selector, cs.limit, cs.rights.bits()), (CODE, 0xffff_ffff, 0xc09b));
    let is_unusable = |register| vcpu.segment(register).rights.contains(AccessRights::UNUSABLE);
    assert!(is_unusable(SegmentRegister::Fs) && is_unusable(SegmentRegister::Ldtr));
    assert!(!is_unusable(SegmentRegister::Ss) && !is_unusable(SegmentRegister::Ds));
    assert!(vcpu.cr0.contains(Cr0::TS));
    assert_eq!(vcpu.dr7, 0x6aa);
    assert!(vcpu.is_delivery_finished);
}

#[test]
fn the_old_task_is_saved_behind_its_instruction() {
    let (mut vcpu, memory) = tasks();
    vcpu.rflags |= Rflags::ZF;
    vcpu.instruction_length = 7;
    memory.put(OLD_TSS, &[0xee; 104]);
    switch(&mut vcpu, &memory, TaskSwitchSource::Jump);
    let field = |offset| memory.get_u32(OLD_TSS + offset);
    assert_eq!((field(0x20), field(0x24)), (0x7707, 0x42));
    assert_eq!((field(0x28), field(0x38), field(0x44)), (0x201, 0x7fe0, 0x208));
    assert_eq!((field(0x4c), field(0x5c)), (0xeeee_0010, 0xeeee_0010));
    // Link, stacks of other privilege levels, CR3, LDT and the I/O map are not the switch's to write.
    assert_eq!(
        (field(0), field(0x1c), field(0x60), field(0x64)),
        (0xeeee_eeee, 0xeeee_eeee, 0xeeee_eeee, 0xeeee_eeee)
    );
}

#[test]
fn busy_link_and_nested_flag_follow_the_table_of_the_manual() {
    use TaskSwitchSource::{Call, Iret, Jump, SoftwareInterrupt};
    // Source, old busy, new NT, link written, saved NT.
    for (source, old_busy, nested, linked, saved_nested) in [
        (Jump, false, false, false, true),
        (Call, true, true, true, true),
        (SoftwareInterrupt, true, true, true, true),
        (FROM_OUTSIDE, true, true, true, true),
        (Iret, false, false, false, false),
    ] {
        let (mut vcpu, memory) = tasks();
        vcpu.rflags |= Rflags::NT;
        if source == Iret {
            memory.put_u64(GDT + u64::from(NEW), descriptor(NEW_TSS, 103, BUSY32));
        }
        assert_eq!(switch(&mut vcpu, &memory, source), Action::Resume, "{source:?}");
        assert_eq!(kind(&memory, OLD) & 2 != 0, old_busy, "{source:?}");
        assert_eq!(kind(&memory, NEW), 0x8b, "{source:?}");
        assert_eq!(vcpu.rflags.contains(Rflags::NT), nested, "{source:?}");
        assert_eq!(memory.get_u16(NEW_TSS) == OLD, linked, "{source:?}");
        assert_eq!(memory.get_u32(OLD_TSS + 0x24) >> 14 & 1 == 1, saved_nested, "{source:?}");
        assert_eq!(vcpu.is_nmi_blocked, (source == Iret).then_some(false), "{source:?}");
    }
}

#[test]
fn an_event_saves_its_instruction_and_pushes_its_error_code() {
    let (mut vcpu, memory) = tasks();
    memory.put(STACK - 8, &[0xee; 16]);
    let source = TaskSwitchSource::Event { error_code: Some(0xabcd) };
    assert_eq!(switch(&mut vcpu, &memory, source), Action::Resume);
    assert_eq!(memory.get_u32(OLD_TSS + 0x20), 0x7700);
    assert_eq!((vcpu.rsp, memory.get_u32(STACK - 4)), (STACK - 4, 0xabcd));
    assert_eq!([memory.get_u32(STACK - 8), memory.get_u32(STACK)], [0xeeee_eeee; 2]);
}

#[test]
fn sixteen_bit_tasks() {
    let (mut vcpu, memory) = tasks();
    memory.put_u64(GDT + u64::from(NEW), descriptor(NEW_TSS, 43, 0x81));
    memory.put(NEW_TSS, &[0; 104]);
    let words = [
        (0x0e, 0x4321),
        (0x10, 0x0002),
        (0x12, 0x1111),
        (0x1a, 0x5000),
        (0x22, DATA),
        (0x24, CODE),
        (0x26, DATA),
        // Its LDT, behind which such a TSS has no more segments.
        (0x2a, LDT),
    ];
    memory.put(STACK, &[0xee; 2]);
    for (at, word) in words {
        memory.put(NEW_TSS + at, &word.to_le_bytes());
    }
    vcpu.set_segment(SegmentRegister::Tr, Descriptor(descriptor(OLD_TSS, 43, 0x83)).segment(OLD));
    vcpu.cr0 |= Cr0::PG;
    vcpu.cr3 = 0x8000;
    memory.put(0x8000, &0x9003_u32.to_le_bytes());
    (0..16).for_each(|page: u32| memory.put(0x9000 + u64::from(4 * page), &(page << 12 | 3).to_le_bytes()));
    let source = TaskSwitchSource::Event { error_code: Some(0x1_0008) };
    assert_eq!(switch(&mut vcpu, &memory, source), Action::Resume);
    assert_eq!((vcpu.rip, vcpu.registers.rax(), vcpu.cr3), (0x4321, 0x1111, 0x8000));
    assert_eq!((vcpu.rsp, memory.get_u16(0x4ffe), memory.get_u16(STACK)), (0x4ffe, 8, 0xeeee));
    let [ldtr, fs, gs] = [SegmentRegister::Ldtr, SegmentRegister::Fs, SegmentRegister::Gs]
        .map(|register| vcpu.segment(register).selector);
    assert_eq!((ldtr, fs, gs), (LDT, 0, 0));
    assert_eq!((memory.get_u16(OLD_TSS + 0x0e), memory.get_u16(OLD_TSS + 0x1a)), (0x7700, 0x7fe0));
    assert_eq!((memory.get_u16(OLD_TSS + 0x24), memory.get_u16(OLD_TSS + 0x2a)), (0x10, 0));
}

#[test]
fn faults_on_the_new_tss_leave_the_old_task_as_it_was() {
    use TaskSwitchSource::{Call, Iret, Jump};
    let tss = |kind| descriptor(NEW_TSS, 103, kind);
    for (entry, source, expected) in [
        (tss(BUSY32), Jump, exception(Vector::GP, 0x20)),
        (tss(BUSY32), FROM_OUTSIDE, exception(Vector::GP, 0x21)),
        (tss(AVAILABLE32), Iret, exception(Vector::TS, 0x20)),
        (tss(AVAILABLE32 & !0x80), Call, exception(Vector::NP, 0x20)),
        (tss(0x82), Call, exception(Vector::GP, 0x20)),
        (tss(0x82), Iret, exception(Vector::TS, 0x20)),
        (descriptor(NEW_TSS, 102, AVAILABLE32), Call, exception(Vector::TS, 0x20)),
        (descriptor(NEW_TSS, 42, 0x81), FROM_OUTSIDE, exception(Vector::TS, 0x21)),
    ] {
        let (mut vcpu, memory) = tasks();
        memory.put_u64(GDT + u64::from(NEW), entry);
        let before = vcpu.clone();
        assert_eq!(switch(&mut vcpu, &memory, source), expected, "{entry:#x} {source:?}");
        assert_eq!(vcpu, before);
        assert_eq!((memory.get_u64(GDT + u64::from(NEW)), memory.get_u32(OLD_TSS + 0x20)), (entry, 0));
    }
}

#[test]
fn a_selector_beyond_the_gdt_or_in_the_ldt_is_refused() {
    let (mut vcpu, memory) = tasks();
    for selector in [0, 3, 0x40, 0x24] {
        let action = handle(&mut vcpu, &memory, TaskSwitch { selector, source: TaskSwitchSource::Jump });
        assert_eq!(action, exception(Vector::GP, u32::from(selector & !3)));
    }
}

#[test]
fn a_page_fault_comes_before_anything_is_changed() {
    use TaskSwitchSource::{Call, Jump};
    // The first byte that would be written there; the old task is busy until a jump leaves it.
    let type_of = |selector| GDT + u64::from(selector) + 5;
    for (read_only, source, address) in [
        (OLD_TSS, Call, OLD_TSS),
        (NEW_TSS, Call, NEW_TSS),
        (GDT, Call, type_of(NEW)),
        (GDT, Jump, type_of(OLD)),
    ] {
        let (mut vcpu, memory) = tasks();
        vcpu.cr0 |= Cr0::PG | Cr0::WP;
        vcpu.cr3 = 0x8000;
        memory.put(0x8000, &0x9003_u32.to_le_bytes());
        for page in 0..16_u32 {
            let rights = if u64::from(page) == read_only >> 12 { 1 } else { 3 };
            memory.put(0x9000 + u64::from(4 * page), &(page << 12 | rights).to_le_bytes());
        }
        let before = vcpu.clone();
        let fault = Event::PageFault { address, error_code: 3 };
        assert_eq!(switch(&mut vcpu, &memory, source), Action::Inject(fault), "{address:#x}");
        assert_eq!(vcpu, before);
        assert_eq!((kind(&memory, OLD), kind(&memory, NEW), memory.get_u16(NEW_TSS)), (0x8b, 0x89, 0));
        assert_eq!(memory.get_u32(OLD_TSS + 0x20), 0);
    }
}

#[test]
fn the_old_tss_is_long_enough_to_be_saved_in() {
    for (limit, action) in
        [(102, exception(Vector::TS, 0x18)), (103, Action::Resume), (0x2000, Action::Resume)]
    {
        let (mut vcpu, memory) = tasks();
        vcpu.set_segment(SegmentRegister::Tr, Descriptor(descriptor(OLD_TSS, limit, BUSY32)).segment(OLD));
        assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), action, "{limit}");
    }
}

#[test]
fn flags_that_are_set_already_stay_set() {
    let (mut vcpu, memory) = tasks();
    vcpu.cr0 |= Cr0::TS;
    // NT of the new task, and segments that have been used.
    set32(&memory, 0x24, 0x4046);
    memory.put_u64(GDT + u64::from(DATA), 0x00cf_9300_0000_ffff);
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Resume);
    assert!(vcpu.cr0.contains(Cr0::TS) && vcpu.rflags.contains(Rflags::NT));
    let ds = vcpu.segment(SegmentRegister::Ds);
    assert_eq!((kind(&memory, DATA), ds.rights.bits()), (0x93, 0xc093));
}

#[test]
fn paging_tasks_change_cr3() {
    let (mut vcpu, memory) = tasks();
    vcpu.cr0 |= Cr0::PG;
    vcpu.cr3 = 0x8000;
    for directory in [0x8000, 0xa000] {
        memory.put(directory, &0x9003_u32.to_le_bytes());
    }
    (0..16).for_each(|page: u32| memory.put(0x9000 + u64::from(4 * page), &(page << 12 | 3).to_le_bytes()));
    set32(&memory, 0x1c, 0xa000);
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Resume);
    assert_eq!((vcpu.cr3, vcpu.invalidations), (0xa000, 1));
}

#[test]
fn pae_tasks_load_their_pdptes_or_fault_before_the_switch() {
    let (mut vcpu, memory) = tasks();
    vcpu.cr0 |= Cr0::PG;
    vcpu.cr4 |= Cr4::PAE;
    vcpu.pdptes = [0x8001, 0, 0, 0];
    memory.put_u64(0x8000, 0x83);
    memory.put_u64(0xa000, 0x8001);
    set32(&memory, 0x1c, 0xa000);
    memory.put_u64(0xa018, 3);
    let before = vcpu.clone();
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Inject(Event::GP0));
    assert_eq!(vcpu, before);
    memory.put_u64(0xa018, 0x9001);
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Resume);
    assert_eq!(vcpu.pdptes, [0x8001, 0, 0, 0x9001]);
}

#[test]
fn a_user_task_runs_at_cpl_3() {
    let (mut vcpu, memory) = tasks();
    for (at, selector) in [(0x48, USER_DATA), (0x4c, USER_CODE), (0x50, USER_DATA), (0x54, USER_DATA)] {
        set32(&memory, at, selector.into());
    }
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Jump), Action::Resume);
    assert_eq!((vcpu.cpl, vcpu.segment(SegmentRegister::Cs).rights.dpl()), (3, 3));
}

#[test]
fn a_virtual_8086_task_has_real_mode_segments() {
    let (mut vcpu, memory) = tasks();
    set32(&memory, 0x24, 0x2_0002);
    set32(&memory, 0x4c, 0x1234);
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Jump), Action::Resume);
    let cs = vcpu.segment(SegmentRegister::Cs);
    assert_eq!((cs.base, cs.limit, cs.rights.bits(), vcpu.cpl), (0x1_2340, 0xffff, 0xf3, 3));
}

#[test]
fn a_virtual_8086_task_without_its_ldt_faults() {
    let (mut vcpu, memory) = tasks();
    set32(&memory, 0x24, 0x2_0002);
    set32(&memory, 0x4c, 0x1234);
    set32(&memory, 0x60, DATA.into());
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Jump), exception(Vector::TS, 0x10));
    // An entry into a guest in virtual-8086 mode takes no other segments.
    for register in state::SEGMENTS {
        let segment = vcpu.segment(register);
        assert_eq!((segment.base, segment.limit), (u64::from(segment.selector) << 4, 0xffff));
        assert_eq!(segment.rights.bits(), 0xf3);
    }
}

#[test]
fn the_debug_trap_flag_traps_in_the_new_task() {
    let (mut vcpu, memory) = tasks();
    set32(&memory, 0x64, 1);
    let trap = Event::Exception { vector: Vector::DB, error_code: None };
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Inject(trap));
    assert_eq!((vcpu.rip, vcpu.dr6_bits), (0x1234, 1 << 15));
}

#[test]
fn memory_that_is_not_the_guests_is_no_tss() {
    let (mut vcpu, mut memory) = tasks();
    memory.hidden = NEW_TSS..NEW_TSS + 0x1000;
    let before = vcpu.clone();
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Inject(Event::GP0));
    assert_eq!(vcpu, before);
}

#[test]
fn a_task_that_is_entered_anew_begins_at_a_branch_target() {
    for (source, expected) in [
        (TaskSwitchSource::Jump, 1),
        (TaskSwitchSource::Call, 1),
        (FROM_OUTSIDE, 1),
        (TaskSwitchSource::Iret, 0),
    ] {
        let (mut vcpu, memory) = tasks();
        if source == TaskSwitchSource::Iret {
            memory.put_u64(GDT + u64::from(NEW), descriptor(NEW_TSS, 103, BUSY32));
        }
        assert_eq!(switch(&mut vcpu, &memory, source), Action::Resume, "{source:?}");
        assert_eq!(vcpu.branch_targets, expected, "{source:?}");
    }
}
