//! Processes that end, multiply or change while they have a PAL, and PALs that misbehave.
#![expect(unsafe_code, reason = "a PAL's pages taken from under it")]
// UNSAFETY: unmaps pages that nobody refers to any more.

use super::super::Failure;
use super::servant::{FAULTED, encode};
use super::{CHECK, COUNT, KEEP, Keeper, LOOP, PANIC, STRAY, WAIT, child, describe, ensure, with_keeper};
use nix::sys::mman::munmap;
use nix::sys::signal::{Signal, kill as send};
use nix::sys::wait::{WaitStatus, waitpid};
use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;
use std::thread;
use std::time::Duration;
use xmhf_pal::Error;
use xmhf_pal::trustvisor::call::Failure as CallFailure;

/// Long enough for a child to be inside its PAL.
const A_WHILE: Duration = Duration::from_millis(100);
const THREADS: usize = 4;
const CALLS: usize = 50;
const PAGE_FAULT: u64 = 14;
const UNDEFINED: u64 = 6;

/// PALs that read what is not theirs, or panic, are ended, and their callers told.
pub(super) fn faults() -> Result<(), Failure> {
    for (command, address, kind) in
        [(STRAY, 0x40_0000, PAGE_FAULT), (STRAY, 0, PAGE_FAULT), (PANIC, 0, UNDEFINED)]
    {
        with_keeper(|keeper| {
            let mut words = [address, 0];
            let answer = encode(keeper.call(command, &mut words));
            ensure(answer == FAULTED | kind, format!("command {command} is answered with {answer:#x}"))?;
            let again = keeper.call(CHECK, &mut words);
            ensure(again == Err(Error::Failed(CallFailure::DEAD)), format!("called again: {again:?}"))
        })?;
    }
    works()
}

/// Processes killed with a PAL, before, while and after it is called.
pub(super) fn kill() -> Result<(), Failure> {
    for command in [KEEP, WAIT] {
        let victim = child::start(move || {
            let Ok(keeper) = Keeper::register() else { return 1 };
            loop {
                let _ = keeper.call(command, &mut [1000, 0]);
            }
        })?;
        thread::sleep(A_WHILE);
        send(victim, Signal::SIGKILL).map_err(|why| why.to_string())?;
        child::wait_for_signal(victim, Signal::SIGKILL)?;
        works()?;
    }
    Ok(())
}

/// A PAL that never returns: the machine lives, and the process can be killed.
pub(super) fn endless() -> Result<(), Failure> {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let victim = child::start(|| {
            let outcome = with_keeper(|keeper| keeper.call(LOOP, &mut [0; 2]).map(drop).map_err(describe));
            i32::from(outcome.is_err())
        })?;
        thread::sleep(A_WHILE);
        works()?;
        send(victim, signal).map_err(|why| why.to_string())?;
        child::wait_for_signal(victim, signal)?;
    }
    works()
}

/// A child of a process with a PAL has none.
pub(super) fn fork() -> Result<(), Failure> {
    with_keeper(|keeper| {
        let mut words = [11, 22];
        keeper.call(KEEP, &mut words).map_err(describe)?;
        let heir = child::start(|| i32::from(keeper.call(CHECK, &mut [11, 22]) == Ok(1)))?;
        let end = waitpid(heir, None).map_err(|why| why.to_string())?;
        let is_refused =
            matches!(end, WaitStatus::Signaled(_, Signal::SIGSEGV, _) | WaitStatus::Exited(_, 0));
        ensure(is_refused, format!("the child ended with {end:?}"))?;
        ensure(keeper.call(CHECK, &mut [11, 22]) == Ok(1), "the parent's PAL forgot")
    })
}

/// A process becomes another program, with its PAL registered.
pub(super) fn exec() -> Result<(), Failure> {
    let changed = child::start(|| match Keeper::register() {
        Ok(keeper) => {
            std::mem::forget(keeper);
            child::exec(&[c"/bin/busybox", c"true"])
        }
        Err(_) => 1,
    })?;
    child::wait(changed)?;
    works()
}

/// A process gives the PAL's pages back to the system, and the system to others.
pub(super) fn unmap() -> Result<(), Failure> {
    let careless = child::start(|| {
        let Ok(keeper) = Keeper::register() else { return 1 };
        let _ = keeper.call(KEEP, &mut [11, 22]);
        let pages = keeper.pal().memory();
        let (start, bytes) = (pages.start(), pages.bytes().len());
        std::mem::forget(keeper);
        release(start, bytes);
        // The system hands the pages out again, and writes to them.
        let other = vec![0xa5u8; 4 << 20];
        i32::from(other.iter().any(|&byte| byte != 0xa5))
    })?;
    child::wait(careless)?;
    works()
}

fn release(start: usize, bytes: usize) {
    let (Some(place), Some(bytes)) = (NonNull::new(start as *mut c_void), NonZero::new(bytes)) else {
        return;
    };
    // SAFETY: pages of a PAL that was forgotten; nobody refers to them.
    let _ = unsafe { munmap(place, bytes.get()) };
}

/// Threads that call one PAL at the same time: each call runs alone or is told to wait.
pub(super) fn threads() -> Result<(), Failure> {
    with_keeper(|keeper| {
        let count = || {
            let mut done = 0;
            while done < CALLS {
                match keeper.call(WAIT, &mut [500, 0]) {
                    Ok(_) => done += 1,
                    Err(Error::Failed(CallFailure::BUSY)) => thread::yield_now(),
                    Err(why) => return Err(describe(why)),
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
        })?;
        let calls = keeper.call(COUNT, &mut [0; 2]).map_err(describe)?;
        ensure(calls == THREADS * CALLS, format!("{calls} calls were counted, not {}", THREADS * CALLS))
    })
}

/// Processes that have the same PAL at the same addresses, each with a secret of its own.
pub(super) fn processes() -> Result<(), Failure> {
    let mut workers = Vec::new();
    for number in 1..=THREADS as u64 {
        workers.push(child::start(move || {
            let outcome = (0..5).try_for_each(|round| {
                with_keeper(|keeper| {
                    let secret = [number, round];
                    keeper.call(KEEP, &mut secret.clone()).map_err(describe)?;
                    (0..CALLS).try_for_each(|_| {
                        let answer = keeper.call(CHECK, &mut secret.clone());
                        ensure(answer == Ok(1), format!("process {number} is answered with {answer:?}"))
                    })
                })
            });
            if let Err(why) = &outcome {
                println!("xmhf-guest: {why}");
            }
            i32::from(outcome.is_err())
        })?);
    }
    workers.into_iter().try_for_each(child::wait)
}

/// Whether an ordinary PAL works.
fn works() -> Result<(), Failure> {
    with_keeper(|keeper| {
        keeper.call(KEEP, &mut [33, 44]).map_err(describe)?;
        ensure(keeper.call(CHECK, &mut [33, 44]) == Ok(1), "a PAL forgot")?;
        ensure(keeper.call(CHECK, &mut [33, 45]) == Ok(0), "a PAL says yes to anything")
    })
}
