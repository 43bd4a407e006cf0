//! How often VMREAD and VMWRITE were executed, by all processors, in images that count it.

use core::sync::atomic::{AtomicU64, Ordering};

static READS: AtomicU64 = AtomicU64::new(0);
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Executions since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmcsAccesses {
    /// VMREAD.
    pub reads: u64,
    /// VMWRITE.
    pub writes: u64,
}

/// Executions so far.
#[must_use]
pub fn so_far() -> VmcsAccesses {
    VmcsAccesses { reads: READS.load(Ordering::Relaxed), writes: WRITES.load(Ordering::Relaxed) }
}

/// VMREAD was executed.
#[inline(always)]
pub(super) fn count_read() {
    READS.fetch_add(1, Ordering::Relaxed);
}

/// VMWRITE was executed.
#[inline(always)]
pub(super) fn count_write() {
    WRITES.fetch_add(1, Ordering::Relaxed);
}
