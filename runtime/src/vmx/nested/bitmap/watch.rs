//! Watches of L1's pages on the machine.

use super::merged_page::Watcher;
use crate::machine::SECOND_LEVEL;
use crate::memory::guest_physical::GuestPhysical;
use crate::memory::watch::{self, Watch};
use crate::smp::shootdown;
use x86::address::GuestPhysAddr;

impl Watcher for GuestPhysical {
    #[inline]
    fn writes(&self) -> u64 {
        watch::writes()
    }

    fn watch(&self, page: GuestPhysAddr) -> Option<Watch> {
        let (watch, flush) = SECOND_LEVEL.lock().watch(page).ok()?;
        if flush.is_needed() {
            shootdown::flush(flush);
        }
        Some(watch)
    }

    fn watch_of(&self, page: GuestPhysAddr) -> Option<Watch> {
        SECOND_LEVEL.lock().watch_of(page)
    }
}
