//! Segments of the new task.

use super::*;

/// Switches after `spoil`; the new task must have been entered when the fault comes.
fn fault_in_the_new_task(spoil: impl FnOnce(&FakeMemory)) -> Action {
    let (mut vcpu, memory) = tasks();
    spoil(&memory);
    let action = switch(&mut vcpu, &memory, FROM_OUTSIDE);
    assert_eq!((vcpu.rip, vcpu.segment(SegmentRegister::Tr).selector), (0x1234, NEW));
    assert!(vcpu.is_delivery_finished);
    let (cs, ss) = (vcpu.segment(SegmentRegister::Cs), vcpu.segment(SegmentRegister::Ss));
    // What every entry into a guest checks.
    assert!(cs.rights.kind() & 9 == 9 && cs.rights.contains(AccessRights::P | AccessRights::S));
    assert_eq!(cs.rights.dpl(), ss.rights.dpl());
    action
}

#[test]
fn segments_that_cannot_be_loaded_fault_in_the_new_task() {
    let set = |offset: u64, selector: u16| {
        move |memory: &FakeMemory| memory.put(NEW_TSS + offset, &selector.to_le_bytes())
    };
    let (cs, ss, ds, ldt) = (0x4c, 0x50, 0x54, 0x60);
    assert_eq!(fault_in_the_new_task(set(cs, 0)), exception(Vector::TS, 1));
    assert_eq!(fault_in_the_new_task(set(cs, DATA)), exception(Vector::TS, 0x11));
    assert_eq!(fault_in_the_new_task(set(cs, CODE | 3)), exception(Vector::TS, 9));
    assert_eq!(fault_in_the_new_task(set(cs, 0x40)), exception(Vector::TS, 0x41));
    assert_eq!(fault_in_the_new_task(set(ss, 0)), exception(Vector::TS, 1));
    assert_eq!(fault_in_the_new_task(set(ss, CODE)), exception(Vector::TS, 9));
    assert_eq!(fault_in_the_new_task(set(ss, USER_DATA)), exception(Vector::TS, 0x31));
    assert_eq!(fault_in_the_new_task(set(ds, OLD)), exception(Vector::TS, 0x19));
    assert_eq!(fault_in_the_new_task(set(ds, DATA | 3)), exception(Vector::TS, 0x11));
    assert_eq!(fault_in_the_new_task(set(ldt, DATA)), exception(Vector::TS, 0x11));
    assert_eq!(fault_in_the_new_task(set(ldt, LDT | 4)), exception(Vector::TS, 0x3d));
    let absent = |selector: u16, entry: u64| {
        move |memory: &FakeMemory| memory.put_u64(GDT + u64::from(selector), entry & !(1 << 47))
    };
    assert_eq!(fault_in_the_new_task(absent(CODE, 0x00cf_9a00_0000_ffff)), exception(Vector::NP, 9));
    assert_eq!(fault_in_the_new_task(absent(DATA, 0x00cf_9200_0000_ffff)), exception(Vector::SS, 0x11));
}

/// What the table's first entry, one behind its limit and one across it hold does not matter.
#[test]
fn no_selector_names_what_is_outside_the_table() {
    const CODE_ENTRY: u64 = 0x00cf_9a00_0000_ffff;
    let enter = |selector: u16, limit| {
        let (mut vcpu, memory) = tasks();
        for at in [0, 0x38, 0x40] {
            memory.put_u64(GDT + at, CODE_ENTRY);
        }
        vcpu.gdtr.limit = limit;
        memory.put(NEW_TSS + 0x54, &selector.to_le_bytes());
        memory.put(NEW_TSS + 0x4c, &selector.to_le_bytes());
        switch(&mut vcpu, &memory, FROM_OUTSIDE)
    };
    assert_eq!(enter(0x38, 0x3f), Action::Resume);
    for (selector, limit) in [(0, 0x3f), (0x40, 0x3f), (0x38, 0x3e), (0x38, 0x38)] {
        assert_eq!(enter(selector, limit), exception(Vector::TS, u32::from(selector) | 1), "{selector:#x}");
    }
    let (mut vcpu, memory) = tasks();
    vcpu.gdtr.limit = 0x3c;
    set32(&memory, 0x60, u32::from(LDT) | 3);
    assert_eq!(switch(&mut vcpu, &memory, FROM_OUTSIDE), exception(Vector::TS, u32::from(LDT) | 1));
}

/// SDM, "Segment Descriptors", "Privilege Levels".
#[test]
fn segments_are_loaded_by_type_and_privilege() {
    let load = |at: u64, kind: u64, rpl: u16| {
        let (mut vcpu, memory) = tasks();
        memory.put_u64(GDT + 0x38, descriptor(0, 0xffff, kind));
        if rpl == 3 {
            // A task of user code.
            for (at, selector) in [(0x48, USER_DATA), (0x4c, USER_CODE), (0x50, USER_DATA), (0x54, USER_DATA)]
            {
                set32(&memory, at, selector.into());
            }
        }
        memory.put(NEW_TSS + at, &(0x38 | rpl).to_le_bytes());
        switch(&mut vcpu, &memory, TaskSwitchSource::Call) == Action::Resume
    };
    let (cs, ds) = (0x4c, 0x54);
    for (kind, rpl, allowed) in [
        // Code for reading, for nothing but execution; conforming.
        (0x9a, 0, true),
        (0x98, 0, false),
        (0x9a, 3, false),
        (0x9e, 3, true),
        (0x9c, 3, false),
        // Data for reading, for writing.
        (0x90, 0, true),
        (0x92, 0, true),
        (0xf0, 3, true),
        (0xb0, 3, false),
        (0xf0, 0, true),
    ] {
        assert_eq!(load(ds, kind, rpl), allowed, "DS {kind:#x} {rpl}");
    }
    for (kind, rpl, allowed) in [
        (0x9a, 0, true),
        (0x9a, 3, false),
        (0xfa, 3, true),
        (0xfa, 0, false),
        (0x9e, 0, true),
        (0x9e, 3, true),
        (0xbe, 3, true),
        (0xfe, 0, false),
        (0x92, 0, false),
    ] {
        assert_eq!(load(cs, kind, rpl), allowed, "CS {kind:#x} {rpl}");
    }
}

#[test]
fn a_user_task_without_its_ldt_faults_at_cpl_3() {
    let (mut vcpu, memory) = tasks();
    for (at, selector) in [(0x4c, USER_CODE), (0x50, USER_DATA), (0x60, DATA)] {
        set32(&memory, at, selector.into());
    }
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Jump), exception(Vector::TS, 0x10));
    let dpl = [SegmentRegister::Cs, SegmentRegister::Ss].map(|register| vcpu.segment(register).rights.dpl());
    assert_eq!((dpl, vcpu.cpl), ([3, 3], 3));
}

#[test]
fn segments_come_from_the_new_tasks_ldt_and_are_marked_accessed() {
    let (mut vcpu, memory) = tasks();
    memory.put_u64(0x4008, 0x00cf_9200_0000_ffff);
    set32(&memory, 0x60, LDT.into());
    set32(&memory, 0x54, 0x0c);
    assert_eq!(switch(&mut vcpu, &memory, TaskSwitchSource::Call), Action::Resume);
    let (ds, ldtr) = (vcpu.segment(SegmentRegister::Ds), vcpu.segment(SegmentRegister::Ldtr));
    assert_eq!((ds.selector, ds.rights.bits(), memory.get::<1>(0x400d)), (0x0c, 0xc093, [0x93]));
    assert_eq!((ldtr.selector, ldtr.base, ldtr.limit), (LDT, 0x4000, 0xff));
}
