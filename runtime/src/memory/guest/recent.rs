//! Translations that a view made before, as a processor's TLB has them.
//!
//! They live no longer than the view, which is a snapshot anyhow: software that changes its tables meanwhile has to
//! invalidate what processors cached of them.

use super::walk::{Access, Intent};
use core::cell::Cell;
use x86::address::{GuestLinearAddr, GuestPhysAddr};

const ENTRIES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Entry {
    linear: GuestLinearAddr,
    physical: GuestPhysAddr,
    access: Access,
}

/// The last translation of some pages, each by the low bits of its number.
#[derive(Debug)]
pub(super) struct Recent {
    entries: [Cell<Option<Entry>>; ENTRIES],
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self { entries: [const { Cell::new(None) }; ENTRIES] }
    }

    /// Returns where `address` is, if the same access to its page, or a write, was translated before.
    pub(super) fn find(&self, address: GuestLinearAddr, access: Access) -> Option<GuestPhysAddr> {
        let entry = self.entry(address).get().filter(|entry| entry.linear == page(address))?;
        let is_allowed = entry.access == access
            || access.intent == Intent::Read
                && entry.access == Access { intent: Intent::Write, privilege: access.privilege };
        is_allowed.then(|| GuestPhysAddr::new(entry.physical.get() + address.page_offset() as u64))
    }

    /// Keeps that `address` is at `physical`, for `access`.
    pub(super) fn keep(&self, address: GuestLinearAddr, physical: GuestPhysAddr, access: Access) {
        let entry = Entry { linear: page(address), physical: physical.page(), access };
        self.entry(address).set(Some(entry));
    }

    fn entry(&self, address: GuestLinearAddr) -> &Cell<Option<Entry>> {
        let number = usize::try_from(address.get() >> 12 & (ENTRIES as u64 - 1)).unwrap_or(0);
        &self.entries[number]
    }
}

fn page(address: GuestLinearAddr) -> GuestLinearAddr {
    GuestLinearAddr::new(address.get() & !0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::guest::Privilege;

    const fn user(intent: Intent) -> Access {
        Access { intent, privilege: Privilege::User }
    }

    #[test]
    fn a_page_is_found_for_its_access_and_for_reads_after_a_write() {
        let (recent, at) = (Recent::new(), GuestLinearAddr::new(0x7000_1234));
        let there = |offset: u64| Some(GuestPhysAddr::new(0x5_6000 + offset));
        assert_eq!(recent.find(at, user(Intent::Read)), None);
        recent.keep(at, GuestPhysAddr::new(0x5_6234), user(Intent::Write));
        let next = GuestLinearAddr::new(0x7000_1ff8);
        assert_eq!(recent.find(next, user(Intent::Write)), there(0xff8));
        assert_eq!(recent.find(next, user(Intent::Read)), there(0xff8));
        assert_eq!(recent.find(next, user(Intent::Fetch)), None);
        let system = Access { intent: Intent::Write, privilege: Privilege::Supervisor };
        assert_eq!(recent.find(next, system), None);
        assert_eq!(recent.find(GuestLinearAddr::new(0x7000_2000), user(Intent::Read)), None);
        recent.keep(at, GuestPhysAddr::new(0x5_6234), user(Intent::Read));
        assert_eq!(recent.find(next, user(Intent::Read)), there(0xff8));
        assert_eq!(recent.find(next, user(Intent::Write)), None);
    }

    #[test]
    fn pages_that_share_an_entry_take_it_from_each_other() {
        let (recent, read) = (Recent::new(), user(Intent::Read));
        let pages = [0x1000, 0x1000 + 0x1000 * ENTRIES as u64].map(GuestLinearAddr::new);
        recent.keep(pages[0], GuestPhysAddr::new(0x9000), read);
        assert_eq!(recent.find(pages[1], read), None);
        recent.keep(pages[1], GuestPhysAddr::new(0xa000), read);
        assert_eq!(
            (recent.find(pages[0], read), recent.find(pages[1], read)),
            (None, Some(GuestPhysAddr::new(0xa000)))
        );
    }
}
