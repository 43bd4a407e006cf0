//! All PALs: found by address space and entry, and by any page that they consist of.
//!
//! Everything that a registry needs is taken when it starts: the PALs themselves, a table of pages, and accounts. So
//! that a process can exhaust or fragment nothing but what it may take.

use crate::fallible::{put, reserved};
use crate::layout::{Layout, Step};
use crate::page_map::PageMap;
use crate::pal::{Key, Pal, State};
use crate::quota::{Accounts, Amounts};
use crate::regions::Regions;
use alloc::sync::Arc;
use alloc::vec::Vec;
use trustvisor::probe::PAL_NUMBER_LIMIT;
use trustvisor::status::Status;

/// The registry. Locked for a look-up or a step, never while pages are covered or looked at.
#[derive(Debug)]
pub struct Registry<T> {
    /// In ascending order of their keys, a word each: taking one in or out moves half of them.
    by_key: Vec<Arc<Pal<T>>>,
    pub(crate) by_page: PageMap<Claim<T>>,
    regions: Regions,
    /// PALs that nobody has; some may still be looked at.
    spare: Vec<Arc<Pal<T>>>,
    pub(crate) accounts: Accounts,
    next_number: u32,
    next_serial: u64,
}

/// Whose a page is.
#[derive(Debug)]
pub(crate) struct Claim<T> {
    pub(crate) pal: Arc<Pal<T>>,
    /// The process has it too, and may give it away.
    pub(crate) is_shared: bool,
}

/// Why a PAL, or pages of it, were not taken in.
#[derive(Debug)]
pub enum Conflict<T> {
    /// The process is told.
    Status(Status),
    /// A PAL that is at its end, or whose process is gone, stands in the way.
    Stale(Arc<Pal<T>>),
    /// What stands in the way is about to go.
    Busy,
}

impl<T> From<Status> for Conflict<T> {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl<T> Registry<T> {
    /// Makes a registry that takes nothing in.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            by_key: Vec::new(),
            by_page: PageMap::new(),
            regions: Regions::new(),
            spare: Vec::new(),
            accounts: Accounts::new(),
            next_number: 1,
            next_serial: 1,
        }
    }

    /// Takes the memory for as much as `limit` says; `random` is a number that nobody knows, and `belongings` makes
    /// what belongs to a PAL that is none yet.
    ///
    /// # Errors
    ///
    /// [`Status::OUT_OF_MEMORY`].
    pub fn start(&mut self, limit: Amounts, random: u64, belongings: impl Fn() -> T) -> Result<(), Status> {
        self.by_key = reserved(limit.pals)?;
        self.spare = reserved(limit.pals)?;
        self.by_page.start(limit.pages, random).map_err(|_| Status::OUT_OF_MEMORY)?;
        self.regions.start(limit.regions, random)?;
        self.accounts.start(limit)?;
        for _ in 0..limit.pals {
            let pal = Pal::new(0, Key::default(), 0, Layout::empty(), belongings());
            #[expect(clippy::disallowed_methods, reason = "at boot")]
            put(&mut self.spare, Arc::new(pal))?;
        }
        Ok(())
    }

    /// Takes a PAL in, that has no page yet: it is in transit. The page of its entry is at `entry_page`.
    ///
    /// # Errors
    ///
    /// [`Status::ALREADY_REGISTERED`], [`Status::OUT_OF_MEMORY`], [`Status::QUOTA`], or a PAL that has to go first.
    pub fn insert(
        &mut self,
        key: Key,
        entry_page: u64,
        layout: Layout,
        belongings: T,
    ) -> Result<Arc<Pal<T>>, Conflict<T>> {
        let place = match self.position(key) {
            Ok(found) => return Err(conflict(&self.by_key[found], entry_page)),
            Err(place) => place,
        };
        let free = |pal: &mut Arc<Pal<T>>| Arc::get_mut(pal).is_some();
        // Of those that are spare, CPUs look at one each at most.
        let spare = self.spare.iter_mut().rposition(free).ok_or(Status::OUT_OF_MEMORY)?;
        let amounts = Amounts::of(&layout);
        // Paid for before anything changes: whoever cannot pay leaves all as it was.
        self.accounts.take(key.address_space, amounts)?;
        let (number, serial) = (self.take_number(), self.take_serial());
        let mut pal = self.spare.swap_remove(spare);
        if let Some(place) = Arc::get_mut(&mut pal) {
            *place = Pal::new(number, key, serial, layout, belongings);
        }
        pal.lock().amounts = amounts;
        #[expect(clippy::disallowed_methods, reason = "there is room for as many as there are")]
        self.by_key.insert(place, pal.clone());
        Ok(pal)
    }

    /// Makes the pages of a step the PAL's, all or none; `before` is its last page so far. Nobody else can register
    /// them from now on.
    ///
    /// A page that another PAL shares with its process is taken from that one: the process that asks can write it, so
    /// the other's has given it away, or shares it with this one.
    ///
    /// # Errors
    ///
    /// [`Status::SECTION_OVERLAP`], [`Status::PAGE_TAKEN`], [`Status::OUT_OF_MEMORY`], [`Status::QUOTA`], or a PAL
    /// that has to go first.
    pub fn claim(&mut self, pal: &Arc<Pal<T>>, step: &Step, before: Option<u64>) -> Result<(), Conflict<T>> {
        let mut last = before;
        let mut runs = 0;
        for found in step {
            runs += usize::from(last.is_none_or(|last| last + crate::layout::PAGE != found.page));
            last = Some(found.page);
        }
        let more = Amounts { runs, ..Amounts::default() };
        self.accounts.take(pal.key.address_space, more)?;
        for (index, found) in step.iter().enumerate() {
            if let Err(conflict) = self.claim_page(pal, found.page, false) {
                step[..index].iter().for_each(|claimed| self.unclaim(pal, claimed.page));
                self.accounts.give_back(pal.key.address_space, more);
                return Err(conflict);
            }
        }
        let mut inner = pal.lock();
        inner.amounts = inner.amounts.and(more);
        Ok(())
    }

    /// Makes a page a PAL's.
    pub(crate) fn claim_page(
        &mut self,
        pal: &Arc<Pal<T>>,
        page: u64,
        is_shared: bool,
    ) -> Result<(), Conflict<T>> {
        if let Some(claim) = self.by_page.get(page) {
            if Arc::ptr_eq(&claim.pal, pal) {
                return Err(Status::SECTION_OVERLAP.into());
            }
            let state = claim.pal.lock().state;
            match state {
                State::Revoked | State::Ending(_) => return Err(Conflict::Stale(claim.pal.clone())),
                State::Running(_) | State::InTransit if claim.is_shared && !is_shared => {
                    return Err(Conflict::Busy);
                }
                _ if claim.is_shared && !is_shared => drop(self.by_page.remove(page)),
                _ => return Err(Status::PAGE_TAKEN.into()),
            }
        }
        if !is_shared {
            self.regions.enter(page, &mut self.accounts, pal.key.address_space)?;
        }
        let claim = Claim { pal: pal.clone(), is_shared };
        if self.by_page.insert(page, claim).is_ok() {
            return Ok(());
        }
        if !is_shared {
            self.regions.leave(page, &mut self.accounts);
        }
        Err(Status::OUT_OF_MEMORY.into())
    }

    /// Gives up the PAL's claim on a page, where it has one.
    pub fn unclaim(&mut self, pal: &Arc<Pal<T>>, page: u64) {
        if self.owns(pal, page)
            && let Some(claim) = self.by_page.remove(page)
            && !claim.is_shared
        {
            self.regions.leave(page, &mut self.accounts);
        }
    }

    /// Returns whether the page is the PAL's.
    pub(crate) fn owns(&self, pal: &Arc<Pal<T>>, page: u64) -> bool {
        self.by_page.get(page).is_some_and(|claim| Arc::ptr_eq(&claim.pal, pal))
    }

    /// Returns the PAL of this address space and entry.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<Arc<Pal<T>>> {
        self.position(key).ok().map(|position| self.by_key[position].clone())
    }

    /// Returns the PAL that has the page.
    #[must_use]
    pub fn find_page(&self, page: u64) -> Option<Arc<Pal<T>>> {
        self.by_page.get(page).map(|claim| claim.pal.clone())
    }

    /// Forgets a PAL, whose pages have been given back.
    pub fn remove(&mut self, pal: &Arc<Pal<T>>) {
        let Ok(position) = self.position(pal.key) else { return };
        if !Arc::ptr_eq(&self.by_key[position], pal) {
            return;
        }
        let mut inner = pal.lock();
        inner.layout = Layout::empty();
        // Some CPU may have it in hand still, and is to come again.
        inner.state = State::InTransit;
        self.accounts.give_back(pal.key.address_space, inner.amounts);
        drop(inner);
        let pal = self.by_key.remove(position);
        // There is room for as many as there are.
        let _ = put(&mut self.spare, pal);
    }

    /// Leaves a PAL its key and the page of its entry alone: its other pages have been given back.
    pub fn retire(&mut self, pal: &Arc<Pal<T>>) {
        let mut inner = pal.lock();
        inner.layout.keep_entry_page();
        let kept = Amounts { runs: 1, ..Amounts::of(&inner.layout) };
        self.accounts.give_back(pal.key.address_space, inner.amounts.without(kept));
        inner.amounts = kept;
        inner.state = State::Revoked;
    }

    /// Returns a PAL of which only the entry is left.
    #[must_use]
    pub fn find_revoked(&self) -> Option<Arc<Pal<T>>> {
        self.all().find(|pal| pal.lock().state == State::Revoked).cloned()
    }

    /// Returns every PAL.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Pal<T>>> {
        self.by_key.iter()
    }

    /// Returns the number of PALs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Returns a serial for a layout that a PAL has from now on.
    pub const fn take_serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    fn position(&self, key: Key) -> Result<usize, usize> {
        self.by_key.binary_search_by_key(&key, |pal| pal.key)
    }

    /// Returns a number that no other PAL has, as long as fewer than 2^31 were ever registered.
    const fn take_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = if number + 1 == PAL_NUMBER_LIMIT { 1 } else { number + 1 };
        number
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the PAL that has a key is in the way of another one with it, whose entry is at `entry_page`.
fn conflict<T>(old: &Arc<Pal<T>>, entry_page: u64) -> Conflict<T> {
    let found = old.lock();
    match found.state {
        State::InTransit => Conflict::Busy,
        // The process that had this address space has gone, or has mapped something else there, or asks for something
        // else, or it is a new beginning after an end.
        State::Building(_) | State::Ending(_) | State::Revoked => Conflict::Stale(old.clone()),
        _ if found.layout.entry_page() != Some(entry_page) => Conflict::Stale(old.clone()),
        _ => Status::ALREADY_REGISTERED.into(),
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
