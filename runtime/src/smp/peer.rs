//! A CPU as the others see it who wait for it: what the rendezvous and the end of stale translations are written over.
//!
//! On the machine a peer is [`PerCpu`](super::percpu::PerCpu); where every interleaving is explored it is a thread of the
//! explorer's.

use core::fmt::Debug;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A flag that several CPUs see change in one order, the same for all flags.
pub(crate) trait Flag: Debug {
    /// Returns its value.
    fn get(&self) -> bool;
    /// Gives it a value.
    fn set(&self, value: bool);
    /// Gives it a value and returns the one before, at once.
    fn swap(&self, value: bool) -> bool;
}

/// A number of CPUs, which all see change in one order with flags.
pub(crate) trait Count: Debug {
    /// Returns the number.
    fn get(&self) -> usize;
    /// Counts one more.
    fn add(&self);
    /// Counts one less.
    fn remove(&self);
}

/// A CPU of the machine.
pub(crate) trait Peer: Sized {
    /// What is shared between CPUs.
    type Flag: Flag;
    /// How long one CPU has waited for another.
    type Patience: Default;

    /// Returns all CPUs but this.
    fn others(&self) -> impl Iterator<Item = &Self>;
    /// Guest code runs here, or may at any moment.
    fn is_running(&self) -> bool;
    /// The rendezvous counts on this CPU's arrival.
    fn awaited(&self) -> &Self::Flag;
    /// Translations cached by this CPU are stale.
    fn stale(&self) -> &Self::Flag;
    /// Makes this CPU look around before its guest goes on, and leave it for that.
    fn wake(&self);
    /// Spins once while this CPU, which executes this, waits for `other`, which is called again when it is late.
    fn wait_for(&self, other: &Self, patience: &mut Self::Patience);
    /// Spins once.
    fn relax();
    /// Drops the executing CPU's translations, which this is the data of.
    fn invalidate(&self);
    /// Halts the executing CPU where the hypervisor stops.
    fn heed_stop(&self);

    /// Drops the executing CPU's translations if that is asked for.
    fn drop_translations(&self) {
        // Taken back first, so that a wish which comes meanwhile is met by another round. Whoever waits for the mark to
        // go may go on before the translations are dropped: this CPU is not in its guest, whose entry comes after them.
        if self.stale().swap(false) {
            self.invalidate();
        }
    }
}

impl Flag for AtomicBool {
    #[inline]
    fn get(&self) -> bool {
        self.load(Ordering::SeqCst)
    }

    #[inline]
    fn set(&self, value: bool) {
        self.store(value, Ordering::SeqCst);
    }

    #[inline]
    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::SeqCst)
    }
}

impl Count for AtomicUsize {
    fn get(&self) -> usize {
        self.load(Ordering::SeqCst)
    }

    fn add(&self) {
        self.fetch_add(1, Ordering::SeqCst);
    }

    fn remove(&self) {
        self.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Flag};
    use core::sync::atomic::{AtomicBool, AtomicUsize};

    #[test]
    fn the_flags_and_counts_of_the_machine_are_atomics() {
        let flag = AtomicBool::new(false);
        Flag::set(&flag, true);
        assert!(Flag::get(&flag));
        assert_eq!((Flag::swap(&flag, false), Flag::swap(&flag, true)), (true, false));
        let count = AtomicUsize::new(0);
        (0..3).for_each(|_| count.add());
        assert_eq!(Count::get(&count), 3);
        count.remove();
        assert_eq!(Count::get(&count), 2);
    }
}
