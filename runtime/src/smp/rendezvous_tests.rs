//! The rendezvous and the end of stale translations on CPUs that are threads of an explorer: every interleaving is run
//! that has no more preemptions than a bound. Faults are sown too, each of which the exploration has to find.

use super::*;
use crate::smp::stale::shoot_down;
use core::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::{AtomicBool, AtomicUsize, fence};
use loom::thread::{spawn, yield_now};
use std::sync::OnceLock;

/// Preemptions of an interleaving; without any, CPUs change where they wait.
const PREEMPTIONS: usize = 3;

/// A flag in one order with all others, which the explorer knows of by fences.
#[derive(Debug)]
struct Bool(AtomicBool);

impl Bool {
    fn new(value: bool) -> Self {
        Self(AtomicBool::new(value))
    }
}

impl Flag for Bool {
    fn get(&self) -> bool {
        fence(SeqCst);
        self.0.load(SeqCst)
    }

    fn set(&self, value: bool) {
        // As the processor does it: by an exchange.
        self.swap(value);
    }

    fn swap(&self, value: bool) -> bool {
        fence(SeqCst);
        let old = self.0.swap(value, SeqCst);
        fence(SeqCst);
        old
    }
}

#[derive(Debug)]
struct Number(AtomicUsize);

impl Number {
    fn new(value: usize) -> Self {
        Self(AtomicUsize::new(value))
    }
}

impl Count for Number {
    fn get(&self) -> usize {
        fence(SeqCst);
        self.0.load(SeqCst)
    }

    fn add(&self) {
        fence(SeqCst);
        self.0.fetch_add(1, SeqCst);
        fence(SeqCst);
    }

    fn remove(&self) {
        fence(SeqCst);
        self.0.fetch_sub(1, SeqCst);
        fence(SeqCst);
    }
}

/// A fault to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// There is none.
    None,
    /// A CPU that is awaited says that it came, and goes on.
    ComesAndGoes,
    /// An NMI between the last look around and the entry does not lead back to it.
    NoRestart,
    /// A CPU that was not waited for keeps its translations.
    ResumesStale,
    /// Who waits for others' translations joins no rendezvous meanwhile.
    WaitsDeaf,
}

/// What all CPUs share.
#[derive(Debug)]
struct Machine {
    cpus: Vec<Cpu>,
    rendezvous: Rendezvous<Bool, Number>,
    /// One that nobody holds.
    no_rendezvous: Rendezvous<Bool, Number>,
    /// The act of a rendezvous is under way.
    is_acting: Bool,
    /// The second-level tables' version: `OLD`, or one more.
    tables: Number,
    /// What the old tables named is used for something else.
    is_freed: Bool,
    /// Initiators that are not through: guests stay where they are until then.
    initiators: Number,
    fault: Fault,
}

/// Version of the tables that every CPU has translations of at first; 0 for none.
const OLD: usize = 1;

/// A CPU.
#[derive(Debug)]
struct Cpu {
    machine: OnceLock<&'static Machine>,
    index: usize,
    is_running: Bool,
    is_awaited: Bool,
    is_stale: Bool,
    attention: Bool,
    has_nmi: Bool,
    is_in_guest: Bool,
    /// Version of the tables that translations are cached of; this CPU's own business.
    cached: std::sync::atomic::AtomicUsize,
}

/// What a CPU does.
type Plan = fn(&Cpu);

impl Machine {
    fn new(fault: Fault, cpus: usize, initiators: usize) -> &'static Self {
        let rendezvous = || Rendezvous::new(Bool::new(false), Bool::new(false), Number::new(0));
        let machine: &'static Self = Box::leak(Box::new(Self {
            cpus: (0..cpus).map(Cpu::new).collect(),
            rendezvous: rendezvous(),
            no_rendezvous: rendezvous(),
            is_acting: Bool::new(false),
            tables: Number::new(OLD),
            is_freed: Bool::new(false),
            initiators: Number::new(initiators),
            fault,
        }));
        machine.cpus.iter().for_each(|cpu| cpu.machine.set(machine).unwrap());
        machine
    }
}

impl Cpu {
    /// In its guest, with old translations.
    fn new(index: usize) -> Self {
        Self {
            machine: OnceLock::new(),
            index,
            is_running: Bool::new(true),
            is_awaited: Bool::new(false),
            is_stale: Bool::new(false),
            attention: Bool::new(false),
            has_nmi: Bool::new(false),
            is_in_guest: Bool::new(false),
            cached: OLD.into(),
        }
    }

    fn machine(&self) -> &'static Machine {
        self.machine.get().unwrap()
    }

    /// Runs the guest until no initiator is left, then waits for a start-up IPI.
    fn run(&self) {
        self.enter();
        while self.machine().initiators.get() != 0 {
            self.execute();
            if self.has_nmi.swap(false) {
                self.is_in_guest.set(false);
                self.attention.set(true);
                self.enter();
            }
            yield_now();
        }
        self.is_in_guest.set(false);
        self.is_running.set(false);
    }

    /// Guest code: what it uses is there, and nobody holds a rendezvous.
    fn execute(&self) {
        if self.cached.load(SeqCst) == 0 {
            self.cached.store(self.machine().tables.get(), SeqCst);
        }
        let is_old = self.cached.load(SeqCst) == OLD;
        assert!(!is_old || !self.machine().is_freed.get(), "a guest uses what was freed");
        assert!(!self.machine().is_acting.get(), "a guest runs in a rendezvous");
    }

    /// The way into the guest, from the look at what demands attention on.
    fn enter(&self) {
        loop {
            if self.attention.get() {
                self.look_around();
                continue;
            }
            // The restart window: an NMI that comes behind the look leads back to it.
            if self.has_nmi.swap(false) {
                self.attention.set(true);
                if self.machine().fault != Fault::NoRestart {
                    continue;
                }
            }
            return self.is_in_guest.set(true);
        }
    }

    fn look_around(&self) {
        self.attention.set(false);
        if self.machine().fault == Fault::ComesAndGoes {
            self.is_awaited.set(false);
        } else {
            self.machine().rendezvous.join(self);
        }
        self.drop_translations();
    }

    /// As [`PerCpu::runs_again`](crate::smp::percpu::PerCpu::runs_again).
    fn runs_again(&self) {
        self.is_running.set(true);
        if self.machine().fault != Fault::ResumesStale {
            self.is_stale.set(true);
        }
        self.attention.set(true);
    }
}

impl Peer for Cpu {
    type Flag = Bool;
    type Patience = ();

    fn others(&self) -> impl Iterator<Item = &Self> {
        self.machine().cpus.iter().filter(|cpu| cpu.index != self.index)
    }

    fn is_running(&self) -> bool {
        self.is_running.get()
    }

    fn awaited(&self) -> &Bool {
        &self.is_awaited
    }

    fn stale(&self) -> &Bool {
        &self.is_stale
    }

    fn wake(&self) {
        self.attention.set(true);
        self.has_nmi.set(true);
    }

    fn wait_for(&self, _other: &Self, (): &mut ()) {
        yield_now();
    }

    fn relax() {
        yield_now();
    }

    fn invalidate(&self) {
        self.cached.store(0, SeqCst);
    }

    fn heed_stop(&self) {}
}

/// Holds a rendezvous, in which no guest runs.
fn holds(cpu: &Cpu) {
    let machine = cpu.machine();
    machine.rendezvous.hold(cpu, || {
        machine.is_acting.set(true);
        assert!(cpu.others().all(|other| !other.is_in_guest.get()), "a CPU is in its guest in a rendezvous");
        machine.is_acting.set(false);
    });
    machine.initiators.remove();
    cpu.run();
}

/// Changes the tables, and uses what the old ones named once nobody can reach that.
fn shoots(cpu: &Cpu) {
    let machine = cpu.machine();
    machine.tables.add();
    let is_deaf = machine.fault == Fault::WaitsDeaf;
    shoot_down(cpu, if is_deaf { &machine.no_rendezvous } else { &machine.rendezvous });
    machine.is_freed.set(true);
    machine.initiators.remove();
    cpu.run();
}

/// Runs guest code all the time.
fn runs(cpu: &Cpu) {
    cpu.run();
}

/// Waits for a start-up IPI, and gets it.
fn resumes(cpu: &Cpu) {
    cpu.is_running.set(false);
    cpu.runs_again();
    cpu.run();
}

/// Explores `plans`, one a CPU, of which the first `initiators` call others.
fn explore(fault: Fault, initiators: usize, plans: &'static [Plan]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let machine = Machine::new(fault, plans.len(), initiators);
        let start = |(cpu, &plan): (&'static Cpu, &'static Plan)| spawn(move || plan(cpu));
        let others: Vec<_> = machine.cpus.iter().zip(plans).skip(1).map(start).collect();
        plans[0](&machine.cpus[0]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn no_guest_runs_in_a_rendezvous() {
    explore(Fault::None, 1, &[holds, runs]);
}

#[test]
fn a_cpu_that_starts_meets_the_rendezvous_first() {
    explore(Fault::None, 1, &[holds, resumes]);
}

#[test]
fn two_rendezvous_come_one_behind_the_other() {
    explore(Fault::None, 2, &[holds, holds]);
}

#[test]
fn nothing_is_freed_that_a_guest_can_reach() {
    explore(Fault::None, 1, &[shoots, runs]);
}

#[test]
fn a_cpu_that_starts_has_no_old_translations() {
    explore(Fault::None, 1, &[shoots, resumes]);
}

#[test]
fn a_shootdown_and_a_rendezvous_do_not_wait_for_each_other() {
    explore(Fault::None, 2, &[shoots, holds]);
}

#[test]
#[should_panic(expected = "in a rendezvous")]
fn a_cpu_that_comes_and_goes_is_found() {
    explore(Fault::ComesAndGoes, 1, &[holds, runs]);
}

#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_missing_restart_is_found() {
    explore(Fault::NoRestart, 1, &[holds, runs]);
}

#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_missing_restart_is_found_by_a_shootdown_too() {
    explore(Fault::NoRestart, 1, &[shoots, runs]);
}

#[test]
#[should_panic(expected = "a guest uses what was freed")]
fn a_cpu_that_resumes_with_old_translations_is_found() {
    explore(Fault::ResumesStale, 1, &[shoots, resumes]);
}

#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_shootdown_that_joins_no_rendezvous_is_found() {
    explore(Fault::WaitsDeaf, 2, &[shoots, holds]);
}
