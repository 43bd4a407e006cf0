//! Counted checks and the verdict.

use core::fmt::{Debug, Display};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::println;

static CHECKS: AtomicUsize = AtomicUsize::new(0);
static FAILURES: AtomicUsize = AtomicUsize::new(0);
static LACK: spin::Once<&'static str> = spin::Once::new();
static NAME: spin::Once<&'static str> = spin::Once::new();

/// Counts a check; prints what was to hold where it does not.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($what:tt)+) => {
        $crate::check::holds($condition, format_args!($($what)+))
    };
}

/// Counts a check that `seen` equals `expected`; prints both where they differ.
#[macro_export]
macro_rules! check_eq {
    ($seen:expr, $expected:expr, $($what:tt)+) => {
        $crate::check::equals(&$seen, &$expected, format_args!($($what)+))
    };
}

/// Ends the guest where the processor does not have what it is about: its verdict says so, and that it has shown nothing.
#[macro_export]
macro_rules! needs {
    ($condition:expr, $what:literal) => {
        if !$condition {
            return $crate::check::lacks($what);
        }
    };
}

/// Counts a check. Called by [`check!`].
pub fn holds(condition: bool, what: impl Display) -> bool {
    CHECKS.fetch_add(1, Ordering::Relaxed);
    if !condition {
        FAILURES.fetch_add(1, Ordering::Relaxed);
        println!("check failed: {what}");
    }
    condition
}

/// Counts a check of equality. Called by [`check_eq!`].
pub fn equals<T: Debug + PartialEq<U>, U: Debug>(seen: &T, expected: &U, what: impl Display) -> bool {
    let is_equal = seen == expected;
    holds(is_equal, format_args!("{what}: seen {seen:x?}, expected {expected:x?}"))
}

/// Notes what the processor does not have. Called by [`needs!`].
pub fn lacks(what: &'static str) {
    LACK.call_once(|| what);
}

/// Number of failed checks so far.
pub fn failures() -> usize {
    FAILURES.load(Ordering::Relaxed)
}

/// Names the guest. Called by `guest!`.
pub fn begin(name: &'static str) {
    NAME.call_once(|| name);
}

/// Prints the verdict: a guest without a check has shown nothing.
pub(crate) fn verdict() {
    let checks = CHECKS.load(Ordering::Relaxed);
    if let Some(what) = LACK.get() {
        return println!("FAIL {}: the processor has no {what}", name());
    }
    match (failures(), checks) {
        (_, 0) => println!("FAIL {}: no check was made", name()),
        (0, _) => println!("PASS {} checks={checks}", name()),
        (failed, _) => println!("FAIL {}: {failed} of {checks} checks failed", name()),
    }
}

pub(crate) fn name() -> &'static str {
    NAME.get().copied().unwrap_or("guest")
}
