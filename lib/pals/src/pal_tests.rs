//! A PAL's life, step by step.

use super::{Entry, Inside, Key, Pal, Refusal, Revocation, State};
use crate::fake::{Fake, PAL, PARAMETERS, SECTIONS};
use crate::layout::{Layout, PAGE};
use crate::machine::Pages;
use trustvisor::call::Failure;
use trustvisor::parameter::WordSize;
use trustvisor::status::Status;

const BUSY: Result<Entry, Refusal> = Err(Refusal::Failure(Failure::BUSY));
const DEAD: Result<Entry, Refusal> = Err(Refusal::Failure(Failure::DEAD));
const SECRET: u64 = (PAL + PAGE) * 16;

fn idle() -> (Fake, Pal<()>) {
    let fake = Fake::with_pal(&[]);
    let layout = Layout::read(&fake, &fake, WordSize::Bits64, [SECTIONS, PARAMETERS, PAL]);
    let layout = layout.unwrap_or_else(|status| panic!("{status:?}"));
    let pal = Pal::new(1, Key { nested_page: 0, address_space: 0x1000, entry: PAL }, 1, layout, ());
    assert_eq!(pal.lock().enter(0, 1), Err(Refusal::Retry), "not before its pages are covered");
    pal.lock().state = State::Idle;
    fake.write(SECRET, &[0x5e; 8]);
    (fake, pal)
}

fn secret(fake: &Fake) -> u64 {
    fake.word(SECRET, WordSize::Bits64)
}

#[test]
fn a_call_ends_before_the_next_begins() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    assert_eq!(pal.enter(3, 0x100), Ok(Entry::Fresh));
    assert_eq!(pal.running_on(), Some(3));
    assert_eq!((pal.enter(1, 0x200), pal.enter(3, 0x100)), (BUSY, BUSY));
    pal.finish();
    assert_eq!((pal.running_on(), pal.enter(1, 0x200)), (None, Ok(Entry::Fresh)));
}

#[test]
fn a_suspended_call_goes_on_where_it_was_for_its_thread_alone() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    let inside = Inside { general: [7; 16], rip: 8, rsp: 9, rflags: 0x46 };
    for cpu in 0..3 {
        let entry = if cpu == 0 { Entry::Fresh } else { Entry::Resumed(inside) };
        assert_eq!(pal.enter(cpu, 0x100), Ok(entry));
        pal.suspend(0x100, inside);
        assert_eq!(pal.enter(cpu, 0x108), BUSY);
    }
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Resumed(inside)));
    pal.finish();
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Fresh));
}

#[test]
fn an_ended_pal_has_nothing_left_and_cannot_be_called() {
    for state in [State::Faulted, State::Revoked] {
        let (fake, pal) = idle();
        let mut pal = pal.lock();
        assert_eq!(pal.enter(0, 0x100), Ok(Entry::Fresh));
        pal.suspend(0x100, Inside { rip: 8, ..Inside::default() });
        pal.end(state, &fake);
        assert_eq!((secret(&fake), pal.enter(0, 0x100)), (0, DEAD));
        assert_eq!(pal.begin_unregister(&fake), Ok(()));
        assert_eq!(pal.begin_unregister(&fake), Err(Status::NOT_REGISTERED));
    }
}

#[test]
fn unregistering_leaves_nothing_whoever_asks_for_it() {
    let (fake, pal) = idle();
    let mut pal = pal.lock();
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Fresh));
    assert_eq!(pal.begin_unregister(&fake), Err(Status::BUSY));
    pal.finish();
    assert_eq!(pal.begin_unregister(&fake), Ok(()));
    assert_eq!((secret(&fake), pal.enter(0, 0x100)), (0, Err(Refusal::Retry)));

    let (fake, pal) = idle();
    let mut pal = pal.lock();
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Fresh));
    pal.suspend(0x100, Inside::default());
    assert_eq!((pal.begin_unregister(&fake), secret(&fake)), (Ok(()), 0));

    // What lies in a dead PAL's pages since is the guest's.
    let (fake, pal) = idle();
    let mut pal = pal.lock();
    pal.state = State::Revoked;
    assert_eq!(pal.begin_unregister(&fake), Ok(()));
    assert_ne!(secret(&fake), 0);
}

#[test]
fn a_pal_is_taken_from_its_process_once_and_stopped_first() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    assert_eq!(pal.enter(2, 0x100), Ok(Entry::Fresh));
    assert_eq!(pal.begin_revocation(false), Revocation::Runs);
    assert_eq!(pal.running_on(), Some(2));
    assert_eq!(pal.begin_revocation(true), Revocation::Begun);
    assert_eq!((pal.running_on(), pal.begin_revocation(true)), (None, Revocation::Others));
    pal.state = State::Revoked;
    assert_eq!(pal.begin_revocation(true), Revocation::Others);
    for state in [State::Idle, State::Suspended(8), State::Faulted] {
        pal.state = state;
        assert_eq!(pal.begin_revocation(false), Revocation::Begun);
    }
}
