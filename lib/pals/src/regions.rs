//! Regions of memory that have pages of PALs: each costs a second-level table of small pages, and counts once for whoever
//! came there first, until its last page goes.

use crate::page_map::PageMap;
use crate::quota::{Accounts, Amounts};
use trustvisor::status::Status;

/// Bytes of a region: what one table of small pages maps.
const REGION: u64 = 2 << 20;
const ONE: Amounts = Amounts { pals: 0, pages: 0, runs: 0, regions: 1, bytes: 0 };

/// Regions with covered pages.
#[derive(Debug)]
pub(crate) struct Regions(PageMap<Region>);

#[derive(Debug)]
struct Region {
    /// The address space that it counts for.
    space: u64,
    /// Covered pages in it.
    count: usize,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Self(PageMap::new())
    }

    /// Takes the memory for `capacity` regions.
    pub(crate) fn start(&mut self, capacity: usize, random: u64) -> Result<(), Status> {
        self.0.start(capacity, random).map_err(|_| Status::OUT_OF_MEMORY)
    }

    /// One covered page more, at `page`; a new region is taken from what `space` may have.
    ///
    /// # Errors
    ///
    /// [`Status::OUT_OF_MEMORY`] or [`Status::QUOTA`]; nothing changed then.
    pub(crate) fn enter(&mut self, page: u64, accounts: &mut Accounts, space: u64) -> Result<(), Status> {
        if let Some(region) = self.0.get_mut(page / REGION) {
            region.count += 1;
            return Ok(());
        }
        accounts.take(space, ONE)?;
        self.0.insert(page / REGION, Region { space, count: 1 }).map_err(|_| Status::OUT_OF_MEMORY)
    }

    /// One covered page less.
    pub(crate) fn leave(&mut self, page: u64, accounts: &mut Accounts) {
        let Some(region) = self.0.get_mut(page / REGION) else { return };
        region.count -= 1;
        if region.count != 0 {
            return;
        }
        let space = region.space;
        self.0.remove(page / REGION);
        accounts.give_back(space, ONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Amounts = Amounts { pals: 8, pages: 8, runs: 8, regions: 4, bytes: 8 };

    #[test]
    fn a_region_counts_once_until_its_last_page_goes() {
        let (mut regions, mut accounts) = (Regions::new(), Accounts::new());
        assert_eq!((regions.start(LIMIT.regions, 7), accounts.start(LIMIT)), (Ok(()), Ok(())));
        for page in [0, REGION - 4096, REGION] {
            assert_eq!(regions.enter(page, &mut accounts, 1), Ok(()));
        }
        assert_eq!(accounts.taken().regions, 2);
        // It goes on counting for the first, whoever is left in it.
        assert_eq!(regions.enter(4096, &mut accounts, 2), Ok(()));
        [0, REGION - 4096].into_iter().for_each(|page| regions.leave(page, &mut accounts));
        assert_eq!(accounts.taken().regions, 2);
        assert_eq!(regions.enter(2 * REGION, &mut accounts, 1), Ok(()));
        assert_eq!(regions.enter(3 * REGION, &mut accounts, 1), Err(Status::QUOTA));
        assert_eq!(regions.enter(3 * REGION, &mut accounts, 2), Ok(()));
        assert_eq!(regions.enter(4 * REGION, &mut accounts, 2), Err(Status::OUT_OF_MEMORY));
        let pages = [4096, REGION, 2 * REGION, 3 * REGION, 3 * REGION];
        pages.into_iter().for_each(|page| regions.leave(page, &mut accounts));
        assert_eq!(accounts.taken(), Amounts::default());
    }
}
