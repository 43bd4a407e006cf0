//! What a test's code warns of.

use core::cell::RefCell;
use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    /// Each test has a thread.
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Told;

impl Log for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        TOLD.with_borrow_mut(|told| told.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Does `work` and returns the messages that it logs.
pub(crate) fn warnings(work: impl FnOnce()) -> Vec<String> {
    // The second test finds the logger set.
    let _ = log::set_logger(&Told);
    log::set_max_level(LevelFilter::Trace);
    TOLD.take();
    work();
    TOLD.take()
}
