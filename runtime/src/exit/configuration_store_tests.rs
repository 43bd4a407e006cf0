use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::fake::FakeVcpu;
use core::cell::RefCell;
use x86::cr::Cr0;
use x86::event::Vector;

/// Where the guest's page is, beyond all memory.
const PAGE: u64 = 0xe000_b000;
const GP: Action = Action::Inject(Event::GP0);

/// A page whose register at 40H is kept, and the stores that reach it.
#[derive(Default)]
struct Pages {
    stores: RefCell<Vec<(u64, u8, u64)>>,
    is_absent: bool,
}

impl ConfigurationMemory for Pages {
    fn is_kept(&self, at: GuestPhysAddr, width: u8) -> bool {
        at.get() < PAGE + 0x44 && at.get() + u64::from(width) > PAGE + 0x40
    }

    fn store(&self, at: GuestPhysAddr, width: u8, value: u64) -> Result<(), Unmapped> {
        assert!(at.get().is_multiple_of(width.into()));
        if self.is_absent {
            return Err(Unmapped);
        }
        let mask = u64::MAX >> (64 - 8 * u32::from(width));
        self.stores.borrow_mut().push((at.get() - PAGE, width, value & mask));
        Ok(())
    }
}

fn write_to(offset: u64) -> SecondLevelViolation {
    SecondLevelViolation {
        gpa: GuestPhysAddr::new(PAGE + offset),
        gla: Some(GuestLinearAddr::new(0x7000_0000 + offset)),
        is_read: false,
        is_write: true,
        is_fetch: false,
        is_walk: false,
    }
}

/// A guest at these bytes of 32-bit code, whose every register holds another value.
fn guest(code: &[u8]) -> (FakeVcpu, FakeMemory) {
    let (mut vcpu, memory) = (FakeVcpu::protected_mode(), FakeMemory::new(0x4000));
    memory.put(vcpu.rip, code);
    for (number, register) in (0_u64..).zip(&mut vcpu.registers.0) {
        *register = 0x1020_3040_5060_7080 + 0x0101 * number;
    }
    (vcpu, memory)
}

/// What [`handle`] decides; what cannot be fetched is the guest's fault.
fn act(vcpu: &mut FakeVcpu, memory: &FakeMemory, pages: &Pages, violation: SecondLevelViolation) -> Action {
    handle(vcpu, memory, pages, violation).unwrap_or_else(Action::Inject)
}

/// What executing `code` with its store at `offset` leads to, and what reaches the page.
fn run(code: &[u8], violation: SecondLevelViolation) -> (Action, Vec<(u64, u8, u64)>) {
    let (mut vcpu, memory) = guest(code);
    let (before, pages) = (vcpu.clone(), Pages::default());
    let action = act(&mut vcpu, &memory, &pages, violation);
    assert_eq!(vcpu, before, "nothing but the page is written");
    (action, pages.stores.take())
}

#[test]
fn each_form_of_mov_does_its_store() {
    for (code, width, value) in [
        (&[0x88, 0x0b][..], 1, 0x81),
        (&[0x88, 0x23], 1, 0x70),
        (&[0x66, 0x89, 0x0b], 2, 0x7181),
        (&[0x89, 0x0b], 4, 0x5060_7181),
        (&[0xa2, 0, 0, 0, 0], 1, 0x80),
        (&[0xa3, 0, 0, 0, 0], 4, 0x5060_7080),
        (&[0xc6, 0x03, 0xfe], 1, 0xfe),
        (&[0x66, 0xc7, 0x03, 0xfe, 0xff], 2, 0xfffe),
        (&[0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], 4, 0xffff_fffe),
        (&[0x89, 0x64, 0x24, 0x04], 4, 0x8000),
    ] {
        let expected = (Action::AdvanceBy(code.len() as u8), vec![(0x48, width, value)]);
        assert_eq!(run(code, write_to(0x48)), expected, "{code:02x?}");
    }
}

#[test]
fn a_register_that_is_kept_stays_whatever_its_neighbours() {
    for (code, offset) in [
        (&[0x89, 0x0b][..], 0x40),
        (&[0x88, 0x0b], 0x43),
        (&[0x66, 0x89, 0x0b], 0x42),
        (&[0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], 0x40),
    ] {
        assert_eq!(run(code, write_to(offset)), (Action::AdvanceBy(code.len() as u8), vec![]), "{code:02x?}");
    }
    assert_eq!(run(&[0x89, 0x0b], write_to(0x3c)).1.len(), 1);
}

#[test]
fn a_store_of_eight_bytes_is_all_or_nothing() {
    // MOV [RBX], RCX and MOV QWORD PTR [RBX], -2 in 64-bit code, behind identity-mapped tables.
    for (code, value) in [
        (&[0x48, 0x89, 0x0b][..], 0x1020_3040_5060_7181),
        (&[0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], u64::MAX - 1),
    ] {
        for (offset, expected) in [(0x40, vec![]), (0x48, vec![(0x48, 8, value)])] {
            let (registers, memory) = (guest(&[]).0.registers, FakeMemory::new(0x6000));
            let mut vcpu = FakeVcpu { rip: 0x5000, registers, ..FakeVcpu::long_mode() };
            memory.put(0x5000, code);
            for (table, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)] {
                memory.put_u64(table, entry);
            }
            let pages = Pages::default();
            let action = act(&mut vcpu, &memory, &pages, write_to(offset));
            assert_eq!((action, pages.stores.take()), (Action::AdvanceBy(code.len() as u8), expected));
        }
    }
}

#[test]
fn other_instructions_and_accesses_fault_and_do_nothing() {
    let store = write_to(0x48);
    // ADD, XCHG, STOSD, PUSH, REP MOVSB, MOVNTI, nonsense.
    for code in [
        &[0x01, 0x0b][..],
        &[0x87, 0x0b],
        &[0xab],
        &[0xff, 0x33],
        &[0xf3, 0xa4],
        &[0x0f, 0xc3, 0x0b],
        &[0x26; 15],
    ] {
        assert_eq!(run(code, store), (GP, vec![]), "{code:02x?}");
    }
    for odd in [
        SecondLevelViolation { is_read: true, ..store },
        SecondLevelViolation { is_walk: true, ..store },
        SecondLevelViolation { is_fetch: true, ..store },
        write_to(0x49),
        write_to(0xffe),
        // It may have begun on the page before.
        write_to(0),
    ] {
        assert_eq!(run(&[0x89, 0x0b], odd), (GP, vec![]), "{odd:?}");
    }
}

#[test]
fn what_an_event_pushes_is_no_store_of_the_instruction() {
    let (mut vcpu, memory) = guest(&[0x89, 0x0b]);
    vcpu.is_delivering_event = true;
    let pages = Pages::default();
    assert_eq!(act(&mut vcpu, &memory, &pages, write_to(0x48)), GP);
    assert_eq!(pages.stores.take(), []);
}

#[test]
fn a_page_without_memory_behind_faults() {
    let (mut vcpu, memory) = guest(&[0x89, 0x0b]);
    let pages = Pages { is_absent: true, ..Pages::default() };
    assert_eq!(act(&mut vcpu, &memory, &pages, write_to(0x48)), GP);
}

#[test]
fn the_code_is_found_by_its_segment() {
    let (mut vcpu, memory) = guest(&[]);
    vcpu.segments[SegmentRegister::Cs as usize].base = 0xffff_f000;
    vcpu.rip = 0x3000;
    memory.put(0x2000, &[0x89, 0x0b]);
    let pages = Pages::default();
    assert_eq!(act(&mut vcpu, &memory, &pages, write_to(8)), Action::AdvanceBy(2));
    // In real mode the same bytes are a store of 16 bits.
    let (mut vcpu, pages) = (FakeVcpu { cr0: Cr0::ET, ..vcpu }, Pages::default());
    assert_eq!(act(&mut vcpu, &memory, &pages, write_to(8)), Action::AdvanceBy(2));
    assert_eq!(pages.stores.take(), [(8, 2, 0x7181)]);
}

#[test]
fn code_goes_on_behind_its_page_only_where_it_has_to() {
    let store = [0xc7, 0x03, 1, 2, 3, 4];
    for (split, expected) in [(6, Action::AdvanceBy(6)), (3, Action::AdvanceBy(6))] {
        let (mut vcpu, mut memory) = guest(&[]);
        vcpu.rip = 0x3000 - split;
        memory.put(vcpu.rip, &store);
        let (pages, is_split) = (Pages::default(), split < 6);
        assert_eq!(act(&mut vcpu, &memory, &pages, write_to(8)), expected);
        // The next page is gone.
        memory.hidden = 0x3000..0x4000;
        let expected = if is_split { GP } else { expected };
        assert_eq!(act(&mut vcpu, &memory, &pages, write_to(8)), expected, "{split}");
    }
}

#[test]
fn code_that_another_cpu_took_away_faults_as_a_fetch() {
    let (memory, pages) = (FakeMemory::new(0x6000), Pages::default());
    let mut vcpu = FakeVcpu { rip: 0x5000, ..FakeVcpu::long_mode() };
    let found = handle(&mut vcpu, &memory, &pages, write_to(8));
    let is_fetch = |error_code: u32| error_code & 1 << 4 != 0;
    assert!(
        matches!(found, Err(Event::PageFault { address: 0x5000, error_code }) if is_fetch(error_code)),
        "{found:?}"
    );
    assert_eq!(pages.stores.take(), []);
}

#[test]
fn code_that_may_be_executed_alone_is_found() {
    let (mut vcpu, mut memory) = guest(&[0x89, 0x0b]);
    let pages = Pages::default();
    memory.execute_only = 0..0x4000;
    assert_eq!(handle(&mut vcpu, &memory, &pages, write_to(8)), Ok(Action::AdvanceBy(2)));
    memory.hidden = 0..0x4000;
    assert_eq!(handle(&mut vcpu, &memory, &pages, write_to(8)), Err(Event::GP0));
}

#[test]
fn a_breakpoint_on_the_operand_strikes_behind_the_store() {
    let (mut vcpu, memory) = guest(&[0x89, 0x0b]);
    vcpu.breakpoints[2] = 0x7000_0048;
    // Enabled, on writes of four bytes.
    vcpu.dr7 |= 1 << 4 | 0b1101 << 24;
    assert_eq!(act(&mut vcpu, &memory, &Pages::default(), write_to(0x48)), Action::AdvanceBy(2));
    assert_eq!((vcpu.struck, Vector::DB.0), (0b100, 1));
}
