//! A PAL's life, step by step.

use super::{Arguments, End, Entry, Inside, Key, Pal, Refusal, Revocation, State};
use crate::fake::{Fake, PAL, PARAMETERS, SECTIONS, whole};
use crate::layout::{PAGE, STEP_PAGES, zero};
use crate::machine::Pages;
use trustvisor::call::Failure;
use trustvisor::flags::ABORTABLE;
use trustvisor::parameter::WordSize;
use trustvisor::status::Status;

const BUSY: Result<Entry, Refusal> = Err(Refusal::Failure(Failure::BUSY));
const DEAD: Result<Entry, Refusal> = Err(Refusal::Failure(Failure::DEAD));
const SECRET: u64 = (PAL + PAGE) * 16;

fn idle() -> (Fake, Pal<()>) {
    let fake = Fake::with_pal(&[]);
    let layout = whole(&fake, WordSize::Bits64, [SECTIONS, PARAMETERS, PAL]);
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
    assert_eq!(pal.enter(3, 0x100), Ok(Entry::Fresh(0)));
    assert_eq!(pal.running_on(), Some(3));
    assert_eq!((pal.enter(1, 0x200), pal.enter(3, 0x100)), (BUSY, BUSY));
    pal.finish();
    assert_eq!((pal.running_on(), pal.enter(1, 0x200)), (None, Ok(Entry::Fresh(0))));
}

#[test]
fn a_suspended_call_goes_on_where_it_was_for_its_thread_alone() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    let inside = Inside { general: [7; 16], rip: 8, rsp: 9, rflags: 0x46 };
    for cpu in 0..3 {
        let entry = if cpu == 0 { Entry::Fresh(0) } else { Entry::Resumed(inside) };
        assert_eq!(pal.enter(cpu, 0x100), Ok(entry));
        pal.suspend(0x100, inside);
        assert_eq!(pal.enter(cpu, 0x108), BUSY);
    }
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Resumed(inside)));
    pal.finish();
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Fresh(0)));
}

#[test]
fn a_call_that_is_being_passed_goes_on_for_its_thread() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    let arguments = Arguments { return_address: 5, ..Arguments::default() };
    assert_eq!(pal.enter(0, 0x100), Ok(Entry::Fresh(0)));
    pal.put_in(0x100, arguments.clone(), 8192);
    assert_eq!((pal.enter(1, 0x200), pal.running_on()), (BUSY, None));
    assert_eq!(pal.enter(1, 0x100), Ok(Entry::Fresh(8192)));
    pal.finish();
    assert_eq!(pal.enter(1, 0x100), Ok(Entry::Fresh(0)), "what has been carried is the call's");
    pal.put_in(0x100, arguments, 8192);
    // Of the PAL nothing has run.
    assert_eq!((pal.abort(), pal.enter(1, 0x200)), (Ok(()), Ok(Entry::Fresh(0))));
    pal.put_in(0x100, Arguments::default(), 8192);
    assert_eq!((pal.begin_unregister(), pal.carried), (Ok(()), 0));
}

/// Does all steps of an end; gives their number.
fn end(fake: &Fake, pal: &Pal<()>) -> usize {
    let mut steps = 0;
    loop {
        let mut pal = pal.lock();
        let Some((_, step)) = pal.next_of_end() else { return steps };
        assert_eq!((pal.state, pal.next_of_end()), (State::InTransit, None), "one at a time");
        step.iter().for_each(|found| zero(fake, *found));
        pal.ended += step.len();
        steps += 1;
        if step.len() == STEP_PAGES {
            pal.state = State::Ending(End::Gone);
        }
    }
}

#[test]
fn an_ended_pal_has_nothing_left_and_cannot_be_called() {
    for how in [End::Faulted, End::Revoked, End::Gone] {
        let (fake, pal) = idle();
        assert_eq!(pal.lock().enter(0, 0x100), Ok(Entry::Fresh(0)));
        pal.lock().suspend(0x100, Inside { rip: 8, ..Inside::default() });
        pal.lock().begin_end(how);
        assert_eq!(pal.lock().enter(0, 0x100), Err(Refusal::Retry), "while it ends");
        assert_eq!((end(&fake, &pal), secret(&fake)), (1, 0));
        for state in [State::Faulted, State::Revoked] {
            pal.lock().state = state;
            assert_eq!(pal.lock().enter(0, 0x100), DEAD);
        }
    }
}

#[test]
fn unregistering_leaves_nothing_whoever_asks_for_it() {
    let (fake, pal) = idle();
    assert_eq!(pal.lock().enter(0, 0x100), Ok(Entry::Fresh(0)));
    assert_eq!(pal.lock().begin_unregister(), Err(Status::BUSY));
    pal.lock().finish();
    assert_eq!(pal.lock().begin_unregister(), Ok(()));
    assert_eq!((end(&fake, &pal), secret(&fake)), (1, 0));
    assert_eq!(pal.lock().enter(0, 0x100), Err(Refusal::Retry));

    let (fake, pal) = idle();
    assert_eq!(pal.lock().enter(0, 0x100), Ok(Entry::Fresh(0)));
    pal.lock().suspend(0x100, Inside::default());
    assert_eq!(pal.lock().begin_unregister(), Ok(()));
    assert_eq!((end(&fake, &pal), secret(&fake)), (1, 0));
}

#[test]
fn what_is_being_given_back_is_not_begun_anew() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    for how in [End::Revoked, End::Gone] {
        pal.begin_end(how);
        pal.ended = 3;
        assert_eq!((pal.begin_unregister(), pal.begin_revocation(false)), (Ok(()), Revocation::Begun));
        assert_eq!((pal.state, pal.ended), (State::Ending(how), 3));
    }
    pal.begin_end(End::Faulted);
    assert_eq!(pal.begin_unregister(), Ok(()));
    assert_eq!(pal.state, State::Ending(End::Gone), "its pages are still to be given back");
    pal.state = State::Building([0; 4]);
    assert_eq!((pal.begin_revocation(false), pal.state), (Revocation::Begun, State::Ending(End::Gone)));
}

#[test]
fn a_suspended_call_is_given_up_only_where_the_pal_lets_it() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    assert_eq!(pal.abort(), Err(Status::NOT_ABORTABLE), "nothing is suspended");
    for (flags, expected) in [(0, Err(Status::NOT_ABORTABLE)), (ABORTABLE, Ok(()))] {
        pal.layout.flags = flags;
        pal.state = State::Suspended(0x100);
        assert_eq!(pal.abort(), expected);
    }
    assert_eq!(pal.enter(0, 0x200), Ok(Entry::Fresh(0)));
    pal.state = State::Revoked;
    assert_eq!(pal.abort(), Err(Status::DEAD));
}

#[test]
fn a_pal_is_taken_from_its_process_once_and_stopped_first() {
    let (_, pal) = idle();
    let mut pal = pal.lock();
    assert_eq!(pal.enter(2, 0x100), Ok(Entry::Fresh(0)));
    assert_eq!(pal.begin_revocation(false), Revocation::Runs);
    assert_eq!(pal.running_on(), Some(2));
    assert_eq!(pal.begin_revocation(true), Revocation::Begun);
    assert_eq!(pal.running_on(), None);
    pal.state = State::InTransit;
    assert_eq!(pal.begin_revocation(true), Revocation::Others);
    pal.state = State::Revoked;
    assert_eq!(pal.begin_revocation(true), Revocation::Others);
    for state in [State::Idle, State::Suspended(8), State::Faulted] {
        pal.state = state;
        assert_eq!(pal.begin_revocation(false), Revocation::Begun);
    }
}

#[test]
fn an_end_at_once_leaves_nothing_and_is_no_second_one() {
    let (fake, pal) = idle();
    assert_ne!(secret(&fake), 0);
    pal.lock().end_at_once(&fake);
    assert_eq!((secret(&fake), pal.lock().state), (0, State::Revoked));
    assert_eq!(pal.lock().enter(0, 1), DEAD);
    // Its pages may be another's by now.
    fake.write(SECRET, &[0x5e; 8]);
    pal.lock().end_at_once(&fake);
    assert_ne!(secret(&fake), 0);
}
