//! What a process shares with its PAL: the lists of it, and whose the pages are.

use crate::fallible::{put, reserved};
use crate::layout::{Kind, PAGE, Section, find_run};
use crate::lists::check_range;
use crate::machine::{Inaccessible, Pages, Process};
use crate::pal::{Inner, Pal, State};
use crate::quota::Amounts;
use crate::registry::{Conflict, Registry};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use trustvisor::call::Failure;
use trustvisor::flags::ACCEPTS_SHARE;
use trustvisor::parameter::WordSize;
use trustvisor::section::{self, SectionType};
use trustvisor::status::Status;

/// Most pages that a PAL shares: they are looked for at each of its calls.
pub const SHARED_PAGES_LIMIT: usize = 64;
/// Pages below a PAL's stack that cannot be shared.
const GUARD_PAGES: u64 = 16;

/// Where a PAL's shared pages are.
pub type SharedPages = ArrayVec<u64, SHARED_PAGES_LIMIT>;

impl<T> Inner<T> {
    /// Returns where the process has the shared pages by now; `None` where a call runs, which has them.
    ///
    /// # Errors
    ///
    /// [`Failure::BAD_POINTER`]: the process cannot write them any more.
    pub fn shared_now(
        &self,
        process: &impl Process,
        memory: &impl Pages,
    ) -> Result<Option<SharedPages>, Failure> {
        if !matches!(self.state, State::Idle | State::Suspended(_)) {
            return Ok(None);
        }
        let mut pages = SharedPages::new();
        for section in &self.layout.shared {
            for linear in (0..u64::from(section.count)).map(|index| section.start + index * PAGE) {
                let page = process.page(linear, Kind::Shared.wanted()).map_err(|_| Failure::BAD_POINTER)?;
                let is_taken = memory.is_memory(page) && pages.try_push(page).is_ok();
                is_taken.then_some(()).ok_or(Failure::BAD_POINTER)?;
            }
        }
        Ok(Some(pages))
    }
}

impl<T> Registry<T> {
    /// Gives a PAL more pages, which its process keeps.
    ///
    /// # Errors
    ///
    /// [`Status::BUSY`], [`Status::DEAD`], [`Status::NO_SHARE`], [`Status::STACK_GUARD`], [`Status::SECTION_COUNT`],
    /// [`Status::SECTION_SIZE`], [`Status::SECTION_OVERLAP`], [`Status::PAGE_TAKEN`], [`Status::OUT_OF_MEMORY`] or
    /// [`Status::QUOTA`].
    pub fn share(&mut self, pal: &Arc<Pal<T>>, more: Vec<Section>) -> Result<(), Status> {
        // Whoever else has the pages is asked for its state, so this PAL is not locked meanwhile.
        let before = core::mem::replace(&mut pal.lock().state, State::InTransit);
        let result = self.try_share(pal, before, more);
        pal.lock().state = before;
        result
    }

    fn try_share(&mut self, pal: &Arc<Pal<T>>, state: State, more: Vec<Section>) -> Result<(), Status> {
        match state {
            State::Idle => {}
            State::Faulted | State::Revoked => return Err(Status::DEAD),
            _ => return Err(Status::BUSY),
        }
        check(&pal.lock().layout, &more)?;
        let pages = more.iter().map(|section| section.pages.len()).sum();
        let mut whole = reserved(pal.lock().layout.shared.len() + more.len())?;
        let amounts = Amounts { pals: 0, pages, runs: 0, regions: 0, bytes: 96 * more.len() + 8 * pages };
        self.accounts.take(pal.key.address_space, amounts)?;
        if let Err(status) =
            self.claim_shared(pal, more.iter().flat_map(|section| section.pages.iter().copied()))
        {
            self.accounts.give_back(pal.key.address_space, amounts);
            return Err(status);
        }
        let mut inner = pal.lock();
        for section in core::mem::take(&mut inner.layout.shared).into_iter().chain(more) {
            put(&mut whole, section)?;
        }
        inner.layout.shared = whole;
        inner.amounts = inner.amounts.and(amounts);
        inner.serial = self.take_serial();
        Ok(())
    }

    /// Moves a PAL's shared pages to where the process has them by now.
    ///
    /// # Errors
    ///
    /// [`Failure::BAD_POINTER`]: they are another PAL's.
    pub fn settle(&mut self, pal: &Arc<Pal<T>>, pages: &SharedPages) -> Result<(), Failure> {
        let old: SharedPages = {
            let inner = pal.lock();
            let shared = inner.layout.shared.iter().flat_map(|section| &section.pages);
            shared.copied().take(SHARED_PAGES_LIMIT).collect()
        };
        if old == *pages && pages.iter().all(|&page| self.owns(pal, page)) {
            return Ok(());
        }
        // The old ones are given up first: a page that stays would be claimed twice, and refused.
        old.iter().for_each(|&page| self.unclaim(pal, page));
        if self.claim_shared(pal, pages.iter().copied()).is_err() {
            return Err(Failure::BAD_POINTER);
        }
        let mut inner = pal.lock();
        let mut pages = pages.iter();
        for section in &mut inner.layout.shared {
            section.pages.iter_mut().zip(pages.by_ref()).for_each(|(to, from)| *to = *from);
        }
        // Another layout: no compartment that is filled for the old one is entered for this.
        inner.serial = self.take_serial();
        Ok(())
    }

    /// Makes pages a PAL's that its process has too, all or none.
    fn claim_shared(
        &mut self,
        pal: &Arc<Pal<T>>,
        pages: impl Iterator<Item = u64> + Clone,
    ) -> Result<(), Status> {
        for (index, page) in pages.clone().enumerate() {
            if let Err(conflict) = self.claim_page(pal, page, true) {
                pages.take(index).for_each(|page| self.unclaim(pal, page));
                return Err(match conflict {
                    Conflict::Status(status) => status,
                    Conflict::Stale(_) | Conflict::Busy => Status::PAGE_TAKEN,
                });
            }
        }
        Ok(())
    }
}

/// Returns what is wrong with more pages for this PAL.
fn check(layout: &crate::layout::Layout, more: &[Section]) -> Result<(), Status> {
    if layout.flags & ACCEPTS_SHARE == 0 {
        return Err(Status::NO_SHARE);
    }
    if layout.all_sections().count() + more.len() > section::CAPACITY {
        return Err(Status::SECTION_COUNT);
    }
    let overlaps = |one: &Section, other: &Section| one.start < other.end() && other.start < one.end();
    let inside = |(index, one): (usize, &Section)| more[..index].iter().any(|other| overlaps(one, other));
    let outside = |one: &Section| layout.all_sections().any(|other| overlaps(one, other));
    if more.iter().enumerate().any(inside) || more.iter().any(outside) {
        return Err(Status::SECTION_OVERLAP);
    }
    let stack = layout.section(SectionType::Stack).map_or(0, |stack| stack.start);
    let is_guard =
        |section: &Section| section.start < stack && section.end() > stack.saturating_sub(GUARD_PAGES * PAGE);
    if more.iter().any(is_guard) {
        return Err(Status::STACK_GUARD);
    }
    let shared = layout.shared.iter().chain(more).map(|section| u64::from(section.count)).sum::<u64>();
    if shared > SHARED_PAGES_LIMIT as u64 {
        return Err(Status::SECTION_SIZE);
    }
    Ok(())
}

/// Reads and checks what a process shares: `count` u32 addresses and as many u32 lengths.
///
/// # Errors
///
/// What is wrong with them.
pub fn read_shared(
    process: &impl Process,
    memory: &impl Pages,
    word: WordSize,
    [addresses, lengths, count]: [u64; 3],
) -> Result<Vec<Section>, Status> {
    let count = usize::try_from(count).ok().filter(|count| (1..=section::CAPACITY).contains(count));
    let count = count.ok_or(Status::SECTION_COUNT)?;
    let number = |array: u64, index: usize| -> Result<u64, Status> {
        let mut bytes = [0; 4];
        let address = array.checked_add(4 * index as u64).ok_or(Status::BAD_ADDRESS)?;
        process.read(address, &mut bytes).map_err(|Inaccessible| Status::BAD_ADDRESS)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    let mut sections = reserved(count)?;
    let mut all = 0;
    for index in 0..count {
        let (start, length) = (number(addresses, index)?, number(lengths, index)?);
        if !length.is_multiple_of(PAGE) {
            return Err(Status::SECTION_SIZE);
        }
        let count = u32::try_from(length / PAGE).map_err(|_| Status::SECTION_SIZE)?;
        check_range(word, start, count.into())?;
        all += u64::from(count);
        if all > SHARED_PAGES_LIMIT as u64 {
            return Err(Status::SECTION_SIZE);
        }
        let pages = find_run(process, memory, Kind::Shared, start, count.into())?;
        put(&mut sections, Section { kind: Kind::Shared, start, count, pages })?;
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, PARAMETERS};

    const SHARED: u64 = 0x90_0000;
    const LENGTHS: u64 = PARAMETERS + PAGE;

    /// What is read of `lists`, addresses with lengths, where 70 pages from [`SHARED`] on are the process's.
    fn read(lists: &[(u64, u64)], count: u64) -> Result<Vec<Section>, Status> {
        let fake = Fake::with_pal(&[]);
        (0..70).for_each(|index| fake.map(SHARED + index * PAGE, true, false));
        for (offset, (start, length)) in (0..).step_by(4).zip(lists) {
            fake.poke(PARAMETERS + offset, &start.to_le_bytes()[..4]);
            fake.poke(LENGTHS + offset, &length.to_le_bytes()[..4]);
        }
        read_shared(&fake, &fake, WordSize::Bits64, [PARAMETERS, LENGTHS, count])
    }

    #[test]
    fn each_list_gives_its_pages_in_order() {
        let lists = [(SHARED, PAGE), (SHARED + 3 * PAGE, 3 * PAGE), (SHARED + 9 * PAGE, 2 * PAGE)];
        let section = |start, count: u32| {
            let pages = (0..u64::from(count)).map(|index| (start + index * PAGE) * 16).collect();
            Section { kind: Kind::Shared, start, count, pages }
        };
        let expected = vec![section(SHARED, 1), section(SHARED + 3 * PAGE, 3), section(SHARED + 9 * PAGE, 2)];
        assert_eq!(read(&lists, 3), Ok(expected));
    }

    #[test]
    fn lists_have_limits_and_lengths_whole_pages() {
        let largest = [(SHARED, 4 * PAGE), (SHARED + 4 * PAGE, 60 * PAGE)];
        assert_eq!(read(&largest, 2).map(|sections| sections.len()), Ok(2));
        let larger = [(SHARED, 4 * PAGE), (SHARED + 4 * PAGE, 61 * PAGE)];
        assert_eq!(read(&larger, 2), Err(Status::SECTION_SIZE));
        for length in [0, 1, PAGE - 1, PAGE + 8, 0xffff_f000] {
            assert_eq!(read(&[(SHARED, length)], 1), Err(Status::SECTION_SIZE), "{length:#x}");
        }
        let pages: Vec<_> = (0..70).map(|index| (SHARED + index * PAGE, PAGE)).collect();
        let most = section::CAPACITY as u64;
        assert_eq!(read(&pages, most).map(|sections| sections.len() as u64), Ok(most));
        for count in [0, most + 1, u64::MAX] {
            assert_eq!(read(&pages, count), Err(Status::SECTION_COUNT), "{count}");
        }
        assert_eq!(read(&[(SHARED + 70 * PAGE, PAGE)], 1), Err(Status::SECTION_NOT_MAPPED));
        assert_eq!(read(&[(SHARED + 1, PAGE)], 1), Err(Status::SECTION_ADDRESS));
    }

    #[test]
    fn lists_that_cannot_be_read_are_refused() {
        let fake = Fake::with_pal(&[]);
        for (addresses, lengths) in [(0, LENGTHS), (PARAMETERS, 0), (u64::MAX - 3, LENGTHS)] {
            let lists = [addresses, lengths, 2];
            assert_eq!(read_shared(&fake, &fake, WordSize::Bits64, lists), Err(Status::BAD_ADDRESS));
        }
    }
}
