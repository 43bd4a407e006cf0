//! One registered PAL: what it is, and whether it runs.
//!
//! Its lock is held for a look or a step, never while it runs, so PALs do not wait for each other.

use crate::layout::Layout;
use crate::machine::Pages;
use crate::marshal::Arguments;
use spin::{Mutex, MutexGuard};
use trustvisor::call::Failure;
use trustvisor::status::Status;

/// Whose PAL, and which: the address space and the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Physical address of the entry's page for a process of a guest's guest, which no other PAL has; 0 for one of
    /// the guest's.
    pub nested_page: u64,
    /// Physical address of the process's top page table, as far as it is the process's own.
    pub address_space: u64,
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
    /// Its pages are being covered or given back, or it is gone: who meets it tries again.
    InTransit,
    /// It can be called.
    Idle,
    /// A call runs on this CPU.
    Running(usize),
    /// A call of the thread with this stack pointer waits to go on.
    Suspended(u64),
    /// It raised an exception, and has nothing left.
    Faulted,
    /// The guest took its pages, and it has nothing left but the place where it is called.
    Revoked,
}

/// How a call goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From the start.
    Fresh,
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
    inside: Inside,
}

impl<T> Pal<T> {
    /// A PAL whose pages are on their way.
    pub fn new(number: u32, key: Key, serial: u64, layout: Layout, belongings: T) -> Self {
        let inner = Inner {
            state: State::InTransit,
            layout,
            serial,
            arguments: Arguments::default(),
            belongings,
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
            State::Idle => Entry::Fresh,
            State::Suspended(suspended) if suspended == thread => Entry::Resumed(self.inside),
            State::Running(_) | State::Suspended(_) => return Err(Refusal::Failure(Failure::BUSY)),
            State::Faulted | State::Revoked => return Err(Refusal::Failure(Failure::DEAD)),
            State::InTransit => return Err(Refusal::Retry),
        };
        self.inside = Inside::default();
        self.state = State::Running(cpu);
        Ok(entry)
    }

    /// Puts the running call aside for the thread whose stack pointer is `thread`.
    pub fn suspend(&mut self, thread: u64, inside: Inside) {
        self.inside = inside;
        self.state = State::Suspended(thread);
    }

    /// Ends the running call in order.
    pub fn finish(&mut self) {
        self.arguments = Arguments::default();
        self.state = State::Idle;
    }

    /// Ends the PAL: nothing of what it could write is left.
    pub fn end(&mut self, state: State, memory: &impl Pages) {
        self.layout.zero(memory);
        self.inside = Inside::default();
        self.arguments = Arguments::default();
        self.state = state;
    }

    /// Takes the PAL from its process; with `is_stopped` even where it runs, for its CPU does not go on with it.
    pub fn begin_revocation(&mut self, is_stopped: bool) -> Revocation {
        match self.state {
            State::InTransit | State::Revoked => return Revocation::Others,
            State::Running(_) if !is_stopped => return Revocation::Runs,
            _ => self.state = State::InTransit,
        }
        Revocation::Begun
    }

    /// Prepares for the end of the registration, which the process asked for, or the system in its name: nothing
    /// of what the PAL could write is left.
    ///
    /// # Errors
    ///
    /// [`Status::BUSY`], or [`Status::NOT_REGISTERED`] where another CPU was quicker.
    pub fn begin_unregister(&mut self, memory: &impl Pages) -> Result<(), Status> {
        match self.state {
            State::Running(_) => return Err(Status::BUSY),
            State::InTransit => return Err(Status::NOT_REGISTERED),
            State::Idle | State::Suspended(_) => self.end(State::InTransit, memory),
            // Zero already, or the guest's since.
            State::Faulted | State::Revoked => self.state = State::InTransit,
        }
        Ok(())
    }

    /// The CPU that runs it.
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
