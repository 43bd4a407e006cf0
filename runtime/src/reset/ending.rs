//! The end of the guest, as an order of acts: nothing is undone before every CPU stands in the hypervisor for good.
//!
//! The first CPU that finds the guest at its end leads. It calls every other CPU out of its guest; each that
//! has come cleans up and leaves virtualization, and the leader does so last. What the acts are is the
//! machine's: `reset` on the bare one, threads in the tests.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A CPU at the end, and how it reaches the others.
pub(crate) trait Cpu {
    /// Runs `act` while no other CPU executes guest code, nor would again without [`Ending::attend`].
    fn rendezvous(&self, act: impl FnOnce());
    /// Does what other CPUs wait for on this one: it stands still while another holds a rendezvous, and drops its
    /// translations while another waits for that.
    fn join(&self);
    /// Calls every other CPU to [`Ending::attend`], one that waits for a start-up IPI too.
    fn call_others(&self);
    /// Returns the number of the other CPUs.
    fn others(&self) -> usize;
    /// Lets the hypapp clean up on this CPU.
    fn clean_up(&self);
    /// Gives up what it takes to run a guest on this CPU.
    fn leave_virtualization(&self);
    /// Waits for `is_done`, as long as it is worth while, and says whether it came true.
    fn wait(&self, is_done: impl Fn() -> bool) -> bool;
}

/// How far the end has come.
#[derive(Debug)]
pub(crate) struct Ending {
    is_led: AtomicBool,
    /// No CPU runs guest code, and none will.
    has_begun: AtomicBool,
    parked: AtomicUsize,
}

/// A CPU's part in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It resets the machine; so many others have come to their end.
    Leads {
        /// CPUs that have come to their end.
        parked: usize,
    },
    /// It has come to its end.
    Parked,
}

impl Ending {
    pub(crate) const fn new() -> Self {
        let is_led = AtomicBool::new(false);
        Self { is_led, has_begun: AtomicBool::new(false), parked: AtomicUsize::new(0) }
    }

    /// Ends the guest, or takes part where another CPU does so already.
    pub(crate) fn end(&self, cpu: &impl Cpu) -> Part {
        if self.is_led.swap(true, Ordering::SeqCst) {
            while !self.attend(cpu) {
                cpu.join();
                core::hint::spin_loop();
            }
            return Part::Parked;
        }
        // While no other CPU is in its guest: none enters again without finding that it has begun.
        cpu.rendezvous(|| self.has_begun.store(true, Ordering::SeqCst));
        cpu.call_others();
        let parked = || self.parked.load(Ordering::SeqCst);
        cpu.wait(|| {
            // A CPU that was about to call for a rendezvous of its own waits for this one before it parks.
            cpu.join();
            parked() == cpu.others()
        });
        cpu.clean_up();
        cpu.leave_virtualization();
        Part::Leads { parked: parked() }
    }

    /// Called by each CPU before it enters its guest: whether the guest is at its end, and never entered again.
    pub(crate) fn attend(&self, cpu: &impl Cpu) -> bool {
        if !self.has_begun.load(Ordering::SeqCst) {
            return false;
        }
        cpu.clean_up();
        cpu.leave_virtualization();
        // Last: the leader resets the machine once all are counted.
        self.parked.fetch_add(1, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
