//! Places that several things lie in, each of which counts once for whoever came there first, until its last thing goes:
//! regions of memory, which cost a second-level table of small pages each, and page tables that are watched.

use crate::page_map::PageMap;
use crate::quota::{Accounts, Amounts};
use trustvisor::status::Status;

/// Places by their numbers.
#[derive(Debug)]
pub(crate) struct Places {
    by_number: PageMap<Place>,
    /// What one of them takes.
    unit: Amounts,
}

#[derive(Debug)]
struct Place {
    /// The address space that it counts for.
    space: u64,
    /// Things in it.
    count: usize,
}

impl Places {
    /// Makes places of which each takes `unit`; none can be entered yet.
    pub(crate) const fn new(unit: Amounts) -> Self {
        Self { by_number: PageMap::new(), unit }
    }

    /// Takes the memory for `capacity` places.
    pub(crate) fn start(&mut self, capacity: usize, random: u64) -> Result<(), Status> {
        self.by_number.start(capacity, random).map_err(|_| Status::OUT_OF_MEMORY)
    }

    /// One thing more; a new place is taken from what `space` may have.
    ///
    /// # Errors
    ///
    /// [`Status::OUT_OF_MEMORY`] or [`Status::QUOTA`]; nothing changed then.
    pub(crate) fn enter(&mut self, number: u64, accounts: &mut Accounts, space: u64) -> Result<(), Status> {
        if let Some(place) = self.by_number.get_mut(number) {
            place.count += 1;
            return Ok(());
        }
        accounts.take(space, self.unit)?;
        self.by_number.insert(number, Place { space, count: 1 }).map_err(|_| Status::OUT_OF_MEMORY)
    }

    /// One thing less; returns whether it was the last.
    pub(crate) fn leave(&mut self, number: u64, accounts: &mut Accounts) -> bool {
        let Some(place) = self.by_number.get_mut(number) else { return false };
        place.count -= 1;
        if place.count != 0 {
            return false;
        }
        let space = place.space;
        self.by_number.remove(number);
        accounts.give_back(space, self.unit);
        true
    }

    /// Returns whether something is in a place.
    pub(crate) fn is_used(&self, number: u64) -> bool {
        self.by_number.get(number).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::ONE_REGION;

    const LIMIT: Amounts = Amounts { pals: 8, pages: 8, runs: 8, regions: 4, tables: 4, bytes: 8 };

    #[test]
    fn a_region_counts_once_until_its_last_page_goes() {
        let (mut regions, mut accounts) = (Places::new(ONE_REGION), Accounts::new());
        assert_eq!((regions.start(LIMIT.regions, 7), accounts.start(LIMIT)), (Ok(()), Ok(())));
        for region in [0, 0, 1] {
            assert_eq!(regions.enter(region, &mut accounts, 1), Ok(()));
        }
        assert_eq!(accounts.taken().regions, 2);
        // It goes on counting for the first, whoever is left in it.
        assert_eq!(regions.enter(0, &mut accounts, 2), Ok(()));
        assert_eq!([0, 0].map(|region| regions.leave(region, &mut accounts)), [false; 2]);
        assert_eq!((accounts.taken().regions, regions.is_used(0)), (2, true));
        assert_eq!(regions.enter(2, &mut accounts, 1), Ok(()));
        assert_eq!(regions.enter(3, &mut accounts, 1), Err(Status::QUOTA));
        assert_eq!(regions.enter(3, &mut accounts, 2), Ok(()));
        assert_eq!(regions.enter(4, &mut accounts, 2), Err(Status::OUT_OF_MEMORY));
        let left = [0, 1, 2, 3, 3].map(|region| regions.leave(region, &mut accounts));
        assert_eq!((left, regions.is_used(0)), ([true, true, true, true, false], false));
        assert_eq!(accounts.taken(), Amounts::default());
    }
}
