//! The end on CPUs that are threads: one waits for a start-up IPI, the others run guest code, meet now and then,
//! and end the guest, several at once.

use super::*;
use std::sync::Mutex;
use std::thread::{scope, yield_now};
use std::time::{Duration, Instant};

/// A wait that takes longer will never end.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct State {
    is_in_guest: AtomicBool,
    is_running: AtomicBool,
    is_called: AtomicBool,
    is_standing: AtomicBool,
}

struct Fixture {
    cpus: Vec<State>,
    ending: Ending,
    is_held: AtomicBool,
    is_stopped: AtomicBool,
    left: AtomicUsize,
    clean: AtomicUsize,
    /// What was seen that must not be.
    broken: Mutex<Vec<String>>,
}

struct Thread<'a> {
    machine: &'a Fixture,
    index: usize,
}

impl Fixture {
    fn new(cpus: usize) -> Self {
        Self {
            cpus: (0..cpus).map(|_| State::default()).collect(),
            ending: Ending::new(),
            is_held: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            clean: AtomicUsize::new(0),
            broken: Mutex::default(),
        }
    }
}

impl Thread<'_> {
    fn own(&self) -> &State {
        &self.machine.cpus[self.index]
    }

    fn all_others(&self) -> impl Iterator<Item = &State> {
        self.machine.cpus.iter().enumerate().filter(|(index, _)| *index != self.index).map(|(_, cpu)| cpu)
    }

    fn is_anyone_in_guest(&self) -> bool {
        self.machine.cpus.iter().any(|cpu| cpu.is_in_guest.load(Ordering::SeqCst))
    }

    fn expect(&self, holds: bool, what: &str) {
        if !holds {
            self.machine.broken.lock().unwrap().push(format!("cpu {}: {what}", self.index));
        }
    }

    /// Enters the guest again and again until it ends; `None` where this CPU is one that others end.
    fn run(&self, entries: Option<usize>) -> Part {
        self.own().is_running.store(true, Ordering::SeqCst);
        for entry in 0.. {
            self.join();
            if self.machine.ending.attend(self) {
                return Part::Parked;
            }
            self.enter_guest();
            if entry % 3 == self.index {
                self.rendezvous(|| self.expect(!self.is_anyone_in_guest(), "guest code in a rendezvous"));
            }
            if entries == Some(entry) {
                return self.machine.ending.end(self);
            }
        }
        unreachable!("entries have no end")
    }

    fn enter_guest(&self) {
        let own = self.own();
        own.is_in_guest.store(true, Ordering::SeqCst);
        for _ in 0..10 {
            if own.is_called.swap(false, Ordering::SeqCst) || self.machine.is_stopped.load(Ordering::SeqCst) {
                break;
            }
            let left = self.machine.left.load(Ordering::SeqCst);
            self.expect(left == 0 || own.is_called.load(Ordering::SeqCst), "guest code behind the end");
            yield_now();
        }
        own.is_in_guest.store(false, Ordering::SeqCst);
    }
}

impl Cpu for Thread<'_> {
    fn rendezvous(&self, act: impl FnOnce()) {
        let Fixture { is_held, is_stopped, .. } = self.machine;
        let is_free = || is_held.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.wait(|| {
            self.join();
            is_free()
        });
        self.all_others().for_each(|cpu| cpu.is_standing.store(false, Ordering::SeqCst));
        is_stopped.store(true, Ordering::SeqCst);
        for cpu in self.all_others().filter(|cpu| cpu.is_running.load(Ordering::SeqCst)) {
            cpu.is_called.store(true, Ordering::SeqCst);
        }
        for cpu in self.all_others() {
            self.wait(|| cpu.is_standing.load(Ordering::SeqCst) || !cpu.is_running.load(Ordering::SeqCst));
        }
        act();
        is_stopped.store(false, Ordering::SeqCst);
        is_held.store(false, Ordering::SeqCst);
    }

    fn join(&self) {
        while self.machine.is_stopped.load(Ordering::SeqCst) {
            self.own().is_standing.store(true, Ordering::SeqCst);
            yield_now();
        }
    }

    fn call_others(&self) {
        self.all_others().for_each(|cpu| cpu.is_called.store(true, Ordering::SeqCst));
    }

    fn others(&self) -> usize {
        self.machine.cpus.len() - 1
    }

    fn clean_up(&self) {
        self.expect(!self.is_anyone_in_guest(), "clean-up beside guest code");
        self.machine.clean.fetch_add(1, Ordering::SeqCst);
    }

    fn leave_virtualization(&self) {
        self.expect(!self.is_anyone_in_guest(), "virtualization ends beside guest code");
        self.machine.left.fetch_add(1, Ordering::SeqCst);
        self.own().is_running.store(false, Ordering::SeqCst);
    }

    fn wait(&self, is_done: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while !is_done() {
            if start.elapsed() > PATIENCE {
                self.expect(false, "waits for ever");
                return false;
            }
            yield_now();
        }
        true
    }
}

/// Runs a machine of `cpus` CPUs of which the first `enders` end the guest, and gives what each came to.
fn run(cpus: usize, enders: usize, entries: usize) -> Vec<Part> {
    let machine = Fixture::new(cpus);
    let thread = |index| Thread { machine: &machine, index };
    let parts = scope(|threads| {
        let running: Vec<_> = (0..cpus)
            .map(|index| {
                threads.spawn(move || {
                    let cpu = thread(index);
                    if index == cpus - 1 && index >= enders {
                        // The start-up IPI that it waits for comes with the end.
                        cpu.wait(|| cpu.own().is_called.load(Ordering::SeqCst));
                    }
                    cpu.run((index < enders).then_some(entries + index % 2))
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(*machine.broken.lock().unwrap(), [""; 0]);
    assert_eq!((machine.clean.into_inner(), machine.left.into_inner()), (cpus, cpus));
    parts
}

#[test]
fn every_cpu_stands_before_anything_is_undone() {
    for entries in 0..30 {
        let parts = run(4, 1, entries);
        assert_eq!(parts, [Part::Leads { parked: 3 }, Part::Parked, Part::Parked, Part::Parked]);
    }
}

#[test]
fn one_of_several_that_end_the_guest_leads() {
    for entries in 0..30 {
        let parts = run(4, 3, entries);
        let leaders = parts.iter().filter(|part| **part == Part::Leads { parked: 3 }).count();
        assert_eq!((leaders, parts.len()), (1, 4), "{parts:?}");
    }
}

#[test]
fn a_cpu_alone_leads_nobody() {
    assert_eq!(run(1, 1, 1), [Part::Leads { parked: 0 }]);
}

/// Notes each act, and lets nobody come.
#[derive(Default)]
struct Alone {
    acts: Mutex<Vec<&'static str>>,
}

impl Alone {
    fn note(&self, act: &'static str) {
        self.acts.lock().unwrap().push(act);
    }
}

impl Cpu for Alone {
    fn rendezvous(&self, act: impl FnOnce()) {
        self.note("rendezvous");
        act();
    }
    fn join(&self) {}
    fn call_others(&self) {
        self.note("call");
    }
    fn others(&self) -> usize {
        3
    }
    fn clean_up(&self) {
        self.note("clean up");
    }
    fn leave_virtualization(&self) {
        self.note("leave");
    }
    fn wait(&self, is_done: impl Fn() -> bool) -> bool {
        self.note("wait");
        is_done()
    }
}

#[test]
fn the_leader_gives_up_a_cpu_that_never_comes() {
    let (ending, cpu) = (Ending::new(), Alone::default());
    assert!(!ending.attend(&cpu));
    assert_eq!(ending.end(&cpu), Part::Leads { parked: 0 });
    assert_eq!(*cpu.acts.lock().unwrap(), ["rendezvous", "call", "wait", "clean up", "leave"]);
    let late = Alone::default();
    assert_eq!(ending.end(&late), Part::Parked);
    assert_eq!(*late.acts.lock().unwrap(), ["clean up", "leave"]);
}
