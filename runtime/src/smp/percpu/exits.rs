//! How often a CPU's guest left it, by cause.

use super::PerCpu;
use core::sync::atomic::{AtomicU64, Ordering};

impl PerCpu {
    /// Counts an exit for the summary.
    #[inline]
    pub(crate) fn count_exit(&self, cause: u16) {
        if let Some(count) = self.exits.get(usize::from(cause)) {
            increment(count);
        }
    }

    /// Counts an exit of a guest of the guest, which [`Self::count_exit`] counts too.
    #[inline]
    pub(crate) fn count_nested_exit(&self) {
        increment(&self.nested_exits);
    }

    /// Counts an exit that a hypervisor in the guest is told of.
    #[inline]
    pub(crate) fn count_reflected_exit(&self) {
        increment(&self.reflected_exits);
    }

    /// Exits of guests of the guest, and those that their hypervisor was told of.
    pub(crate) fn nested_exits(&self) -> (u64, u64) {
        (self.nested_exits.load(Ordering::Relaxed), self.reflected_exits.load(Ordering::Relaxed))
    }

    /// Exits so far by cause; another CPU's figures may be a little old.
    pub(crate) fn exits(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let counts = self.exits.iter().map(|count| count.load(Ordering::Relaxed));
        (0u32..).zip(counts).filter(|(_, count)| *count != 0)
    }
}

/// Counts up what only the executing CPU writes: no locked instruction is needed.
#[inline]
fn increment(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
