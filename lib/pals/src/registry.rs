//! All PALs: found by address space and entry, and by any page that they consist of.

use crate::layout::{Kind, Layout, Section, find_run};
use crate::machine::{Pages, Process};
use crate::pal::{Key, Pal, State};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use trustvisor::call::Failure;
use trustvisor::probe::PAL_NUMBER_LIMIT;
use trustvisor::section::CAPACITY;
use trustvisor::status::Status;

/// Most pages of a PAL, shared ones among them.
const PAGES_LIMIT: usize = 4096;
/// Bytes of the heap that a PAL counts for, beside its pages, sections and parameters.
const BYTES_A_PAL: usize = 1536;
const BYTES_A_SECTION: usize = 64;
const BYTES_A_PARAMETER: usize = 32;
/// With its place in the map of pages.
const BYTES_A_PAGE: usize = 64;

/// The registry. Locked for a look-up, never while pages are covered.
#[derive(Debug)]
pub struct Registry<T> {
    by_key: BTreeMap<Key, Arc<Pal<T>>>,
    by_page: BTreeMap<u64, Arc<Pal<T>>>,
    /// Bytes of the heap that PALs may still take.
    budget: usize,
    next_number: u32,
    next_serial: u64,
}

/// Why a PAL was not taken in.
#[derive(Debug)]
pub enum Conflict<T> {
    /// The process is told.
    Status(Status),
    /// A PAL that was revoked, or whose process is gone, stands in the way.
    Stale(Arc<Pal<T>>),
}

impl<T> Registry<T> {
    /// An empty registry that may take up to `budget` bytes of the heap.
    #[must_use]
    pub const fn new(budget: usize) -> Self {
        Self { by_key: BTreeMap::new(), by_page: BTreeMap::new(), budget, next_number: 1, next_serial: 1 }
    }

    /// Takes a PAL in: nobody else can register its pages from now on. It is in transit.
    ///
    /// # Errors
    ///
    /// [`Status::ALREADY_REGISTERED`], [`Status::SECTION_OVERLAP`], [`Status::PAGE_TAKEN`],
    /// [`Status::OUT_OF_MEMORY`], or a PAL that has to be revoked first.
    pub fn insert(&mut self, key: Key, layout: Layout, belongings: T) -> Result<Arc<Pal<T>>, Conflict<T>> {
        if let Some(old) = self.by_key.get(&key) {
            let found = old.lock();
            let is_same = found.state != State::Revoked && found.layout.entry_page() == layout.entry_page();
            drop(found);
            return Err(if is_same {
                Conflict::Status(Status::ALREADY_REGISTERED)
            } else {
                // The process that had this address space has gone, or has mapped something else there, or it is
                // a new beginning after a revocation.
                Conflict::Stale(old.clone())
            });
        }
        if let Some(owner) = layout.pages().find_map(|(page, _)| self.by_page.get(&page)) {
            let is_revoked = owner.lock().state == State::Revoked;
            return Err(if is_revoked {
                Conflict::Stale(owner.clone())
            } else {
                Conflict::Status(Status::PAGE_TAKEN)
            });
        }
        let bytes = heap_bytes(&layout);
        if bytes > self.budget {
            return Err(Conflict::Status(Status::OUT_OF_MEMORY));
        }
        let mut pages = layout.pages().map(|(page, _)| page).collect::<Vec<_>>();
        let count = pages.len();
        pages.sort_unstable();
        pages.dedup();
        if pages.len() != count {
            return Err(Conflict::Status(Status::SECTION_OVERLAP));
        }

        self.budget -= bytes;
        let number = self.take_number();
        let pal = Arc::new(Pal::new(number, key, self.take_serial(), layout, belongings));
        for page in pages {
            self.by_page.insert(page, pal.clone());
        }
        self.by_key.insert(key, pal.clone());
        Ok(pal)
    }

    /// The PAL of this address space and entry.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<Arc<Pal<T>>> {
        self.by_key.get(&key).cloned()
    }

    /// The PAL that has the page.
    #[must_use]
    pub fn find_page(&self, page: u64) -> Option<Arc<Pal<T>>> {
        self.by_page.get(&page).cloned()
    }

    /// Forgets a PAL, whose pages have been given back.
    pub fn remove(&mut self, pal: &Arc<Pal<T>>) {
        if self.by_key.get(&pal.key).is_some_and(|found| Arc::ptr_eq(found, pal)) {
            self.by_key.remove(&pal.key);
            let inner = pal.lock();
            for (page, _) in inner.layout.pages() {
                self.by_page.remove(&page);
            }
            self.budget += heap_bytes(&inner.layout);
        }
    }

    /// Leaves a PAL its key and the page of its entry alone: its other pages have been given back.
    pub fn retire(&mut self, pal: &Arc<Pal<T>>) {
        let mut inner = pal.lock();
        for (page, _) in inner.layout.pages() {
            self.by_page.remove(&page);
        }
        self.budget += heap_bytes(&inner.layout);
        inner.layout.keep_entry_page();
        self.budget = self.budget.saturating_sub(heap_bytes(&inner.layout));
        if let Some(page) = inner.layout.entry_page() {
            self.by_page.insert(page, pal.clone());
        }
        inner.state = State::Revoked;
    }

    /// A PAL of which only the entry is left.
    #[must_use]
    pub fn find_revoked(&self) -> Option<Arc<Pal<T>>> {
        self.all().find(|pal| pal.lock().state == State::Revoked).cloned()
    }

    /// Gives a PAL more pages, which its process keeps. Nobody else can register them meanwhile.
    ///
    /// # Errors
    ///
    /// [`Status::BUSY`], [`Status::SECTION_COUNT`], [`Status::SECTION_OVERLAP`], [`Status::PAGE_TAKEN`] or
    /// [`Status::OUT_OF_MEMORY`].
    pub fn share(&mut self, pal: &Arc<Pal<T>>, more: Vec<Section>) -> Result<(), Status> {
        let mut inner = pal.lock();
        match inner.state {
            State::Idle => {}
            State::Faulted | State::Revoked => return Err(Status::DEAD),
            _ => return Err(Status::BUSY),
        }
        let layout = &inner.layout;
        if layout.all_sections().count() + more.len() > CAPACITY {
            return Err(Status::SECTION_COUNT);
        }
        let overlaps = |one: &Section, other: &Section| one.start < other.end() && other.start < one.end();
        let inside = |(index, one): (usize, &Section)| more[..index].iter().any(|other| overlaps(one, other));
        let outside = |one: &Section| layout.all_sections().any(|other| overlaps(one, other));
        if more.iter().enumerate().any(inside) || more.iter().any(outside) {
            return Err(Status::SECTION_OVERLAP);
        }
        let pages: Vec<u64> = more.iter().flat_map(|section| section.pages.iter().copied()).collect();
        if layout.pages().count() + pages.len() > PAGES_LIMIT {
            return Err(Status::SECTION_SIZE);
        }
        let bytes = more.len() * BYTES_A_SECTION + pages.len() * BYTES_A_PAGE;
        if bytes > self.budget {
            return Err(Status::OUT_OF_MEMORY);
        }
        self.claim(pal, &pages)?;
        self.budget -= bytes;
        inner.layout.shared.extend(more);
        inner.serial = self.take_serial();
        Ok(())
    }

    /// Looks again where a PAL's shared pages are: its process may have others there by now.
    ///
    /// # Errors
    ///
    /// [`Failure::BAD_POINTER`]: the process cannot write them any more, or they are another PAL's.
    pub fn refresh(
        &mut self,
        pal: &Arc<Pal<T>>,
        process: &impl Process,
        memory: &impl Pages,
    ) -> Result<(), Failure> {
        let mut inner = pal.lock();
        if !matches!(inner.state, State::Idle | State::Suspended(_)) {
            return Ok(());
        }
        for index in 0..inner.layout.shared.len() {
            let section = &inner.layout.shared[index];
            let (start, count) = (section.start, section.pages.len() as u64);
            let pages = find_run(process, memory, Kind::Shared, start, count);
            let pages = pages.map_err(|_| Failure::BAD_POINTER)?;
            if pages == section.pages {
                continue;
            }
            for page in &section.pages {
                self.by_page.remove(page);
            }
            if self.claim(pal, &pages).is_err() {
                let _ = self.claim(pal, &section.pages);
                return Err(Failure::BAD_POINTER);
            }
            inner.layout.shared[index].pages = pages;
            inner.serial = self.take_serial();
        }
        Ok(())
    }

    /// Makes pages a PAL's, all or none.
    fn claim(&mut self, pal: &Arc<Pal<T>>, pages: &[u64]) -> Result<(), Status> {
        for (index, page) in pages.iter().enumerate() {
            if self.by_page.contains_key(page) {
                pages[..index].iter().for_each(|page| {
                    self.by_page.remove(page);
                });
                return Err(Status::PAGE_TAKEN);
            }
            self.by_page.insert(*page, pal.clone());
        }
        Ok(())
    }

    /// Every PAL.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Pal<T>>> {
        self.by_key.values()
    }

    /// Number of PALs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// A serial for a layout that a PAL has from now on.
    pub const fn take_serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    /// A number that no other PAL has, as long as fewer than 2^31 were ever registered.
    const fn take_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = if number + 1 == PAL_NUMBER_LIMIT { 1 } else { number + 1 };
        number
    }
}

/// Bytes of the heap that a PAL counts for.
fn heap_bytes(layout: &Layout) -> usize {
    let pages = layout.pages().count();
    let sections = layout.all_sections().count();
    BYTES_A_PAL
        + sections * BYTES_A_SECTION
        + layout.parameters.len() * BYTES_A_PARAMETER
        + pages * BYTES_A_PAGE
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
