//! One registered PAL: what it is, and whether it runs.
//!
//! Its lock is held for a look or a step, never while it runs, so PALs do not wait for each other.

use crate::layout::{Layout, Step};
use crate::machine::Pages;
use crate::marshal::Arguments;
use crate::quota::Amounts;
use spin::{Mutex, MutexGuard};
use trustvisor::call::Failure;
use trustvisor::flags::ABORTABLE;
use trustvisor::status::Status;

/// Whose PAL, and which: the address space and the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Physical address of the process's top page table, as far as it is the process's own.
    pub address_space: u64,
    /// Physical address of the entry's page for a process of a guest's guest, which no other PAL has; 0 for one of
    /// the guest's.
    pub nested_page: u64,
    /// Linear address of the entry.
    pub entry: u64,
}

/// A processor's registers in the midst of a PAL: general ones by the number of their encoding, RIP, RSP, flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// General-purpose registers.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
}

/// What a PAL is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A CPU does a step of its registration or of its end, or it is gone: who meets it tries again.
    InTransit,
    /// It is being registered, step by step, by the process that asked with these arguments.
    Building(Asked),
    /// It can be called.
    Idle,
    /// A call of the thread with this stack pointer is passing its parameters, step by step.
    Entering(u64),
    /// A call runs on this CPU.
    Running(usize),
    /// A call of the thread with this stack pointer waits to go on.
    Suspended(u64),
    /// What it could write is being zeroed, and given back unless it faulted, step by step; whoever meets it does one.
    Ending(End),
    /// It raised an exception, and has nothing left.
    Faulted,
    /// The guest took its pages, and it has nothing left but the place where it is called.
    Revoked,
}

/// Arguments of a registration: addresses of the lists, entry, flags.
pub type Asked = [u64; 4];

/// How a PAL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It keeps its pages, zeroed, until it is unregistered.
    Faulted,
    /// It keeps the place where it is called.
    Revoked,
    /// Nothing is left of it.
    Gone,
}

/// How a call goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From the start, or, where this is not 0, from this byte of its parameters on ([`Inner::put_in`]).
    Fresh(u64),
    /// From where it was suspended.
    Resumed(Inside),
}

/// A PAL.
#[derive(Debug)]
pub struct Pal<T> {
    /// Its number, which it reads in CPUID.
    pub number: u32,
    /// Whose it is.
    pub key: Key,
    inner: Mutex<Inner<T>>,
}

/// What changes of a PAL.
#[derive(Debug)]
pub struct Inner<T> {
    /// What it is doing.
    pub state: State,
    /// What it consists of.
    pub layout: Layout,
    /// Stands for the present layout; no other ever has the same.
    pub serial: u64,
    /// What the running or suspended call was passed.
    pub arguments: Arguments,
    /// What belongs to the PAL beside its memory.
    pub belongings: T,
    /// What its address space has taken for it.
    pub amounts: Amounts,
    /// Bytes of parameters that have been carried, in or out.
    pub carried: u64,
    /// Pages that have been zeroed, and given back where the end is to give them back.
    pub ended: usize,
    inside: Inside,
}

impl<T> Pal<T> {
    /// Makes a PAL whose pages are on their way.
    pub fn new(number: u32, key: Key, serial: u64, layout: Layout, belongings: T) -> Self {
        let inner = Inner {
            state: State::InTransit,
            layout,
            serial,
            arguments: Arguments::default(),
            belongings,
            amounts: Amounts::default(),
            carried: 0,
            ended: 0,
            inside: Inside::default(),
        };
        Self { number, key, inner: Mutex::new(inner) }
    }

    /// Looks at it.
    pub fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock()
    }
}

/// What a revocation finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The PAL is nobody else's from now on: it is to be ended and given back.
    Begun,
    /// It runs: its CPU has to stop first.
    Runs,
    /// Somebody else is at it, or has been.
    Others,
}

/// Why a call does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The caller is told.
    Failure(Failure),
    /// The caller comes again at once.
    Retry,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl<T> Inner<T> {
    /// Begins or goes on with a call from the thread whose stack pointer is `thread`, on CPU `cpu`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn enter(&mut self, cpu: usize, thread: u64) -> Result<Entry, Refusal> {
        let entry = match self.state {
            State::Idle => Entry::Fresh(0),
            State::Entering(entering) if entering == thread => Entry::Fresh(self.carried),
            State::Suspended(suspended) if suspended == thread => Entry::Resumed(self.inside),
            State::Running(_) | State::Suspended(_) | State::Entering(_) => {
                return Err(Refusal::Failure(Failure::BUSY));
            }
            State::Faulted | State::Revoked => return Err(Refusal::Failure(Failure::DEAD)),
            State::InTransit | State::Building(_) | State::Ending(_) => return Err(Refusal::Retry),
        };
        self.inside = Inside::default();
        self.state = State::Running(cpu);
        Ok(entry)
    }

    /// Goes on later with a call of the thread whose stack pointer is `thread`: more of its parameters is to be passed.
    pub fn put_in(&mut self, thread: u64, arguments: Arguments, carried: u64) {
        self.arguments = arguments;
        self.carried = carried;
        self.state = State::Entering(thread);
    }

    /// Puts the running call aside for the thread whose stack pointer is `thread`.
    pub fn suspend(&mut self, thread: u64, inside: Inside) {
        self.inside = inside;
        self.state = State::Suspended(thread);
    }

    /// Ends the running call in order.
    pub fn finish(&mut self) {
        self.arguments = Arguments::default();
        self.carried = 0;
        self.state = State::Idle;
    }

    /// Gives up a suspended call, where the PAL's header lets the process do that.
    ///
    /// # Errors
    ///
    /// [`Status::NOT_ABORTABLE`] or [`Status::DEAD`].
    pub fn abort(&mut self) -> Result<(), Status> {
        match self.state {
            // It has not begun.
            State::Entering(_) => {
                self.finish();
                Ok(())
            }
            State::Suspended(_) if self.layout.flags & ABORTABLE != 0 => {
                self.inside = Inside::default();
                self.finish();
                Ok(())
            }
            State::Faulted | State::Revoked => Err(Status::DEAD),
            _ => Err(Status::NOT_ABORTABLE),
        }
    }

    /// Begins to end the PAL: no call goes on, and its registers are gone. What it could write goes by steps.
    pub fn begin_end(&mut self, end: End) {
        self.inside = Inside::default();
        self.arguments = Arguments::default();
        self.carried = 0;
        self.ended = 0;
        self.state = State::Ending(end);
    }

    /// Ends the PAL at once, where no guest code runs any more: nothing of it is left.
    pub fn end_at_once(&mut self, memory: &impl Pages) {
        if self.state != State::Revoked {
            self.layout.zero_all(memory);
            self.begin_end(End::Gone);
            self.state = State::Revoked;
        }
    }

    /// Takes the PAL from its process; with `is_stopped` even where it runs, for its CPU does not go on with it.
    pub fn begin_revocation(&mut self, is_stopped: bool) -> Revocation {
        match self.state {
            State::InTransit | State::Revoked => return Revocation::Others,
            State::Running(_) if !is_stopped => return Revocation::Runs,
            // What is being given back is given back.
            State::Ending(End::Revoked | End::Gone) => {}
            // Nobody was told of it.
            State::Building(_) => self.begin_end(End::Gone),
            _ => self.begin_end(End::Revoked),
        }
        Revocation::Begun
    }

    /// Begins the end of the registration, which the process asked for, or the system in its name.
    ///
    /// # Errors
    ///
    /// [`Status::BUSY`].
    pub fn begin_unregister(&mut self) -> Result<(), Status> {
        match self.state {
            State::Running(_) => return Err(Status::BUSY),
            State::InTransit | State::Ending(End::Gone) => {}
            // What was given back before is not given back twice.
            State::Ending(End::Revoked) => {}
            _ => self.begin_end(End::Gone),
        }
        Ok(())
    }

    /// Takes the next pages of a PAL that is ending, none where all are done; it is in transit then. `None` where it is
    /// not ending.
    pub fn next_of_end(&mut self) -> Option<(End, Step)> {
        let State::Ending(end) = self.state else { return None };
        self.state = State::InTransit;
        Some((end, self.layout.step_from(self.ended)))
    }

    /// Returns the CPU that runs it.
    #[must_use]
    pub const fn running_on(&self) -> Option<usize> {
        match self.state {
            State::Running(cpu) => Some(cpu),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "pal_tests.rs"]
mod tests;
