//! A sorted set of numbers of which each change moves few others, however many there are.
//!
//! The numbers lie in chunks, which an array keeps in order. Two chunks that follow each other have at least a chunk's
//! worth of numbers together, so as many chunks as there are hold [`CAPACITY`] numbers in whatever order those come and
//! go. All zero is the empty set.

use core::ops::RangeInclusive;

use arrayvec::ArrayVec;

/// Most numbers.
pub(super) const CAPACITY: usize = 32768;
/// Numbers of a chunk.
const CHUNK: usize = 64;
/// What holds [`CAPACITY`] numbers at half a chunk each, and one more that is being split.
const CHUNKS: usize = 2 * CAPACITY / CHUNK + 2;

type Chunk = ArrayVec<u64, CHUNK>;

/// The set.
#[derive(Debug)]
pub(super) struct Boundaries {
    /// Chunks with numbers, in the order of these.
    order: ArrayVec<u16, CHUNKS>,
    chunks: [Chunk; CHUNKS],
    /// Chunks that were in use once and are empty; those from `untouched` on never were.
    spare: ArrayVec<u16, CHUNKS>,
    untouched: u16,
    len: usize,
}

impl Boundaries {
    pub(super) const fn new() -> Self {
        Self {
            order: ArrayVec::new_const(),
            chunks: [const { ArrayVec::new_const() }; CHUNKS],
            spare: ArrayVec::new_const(),
            untouched: 0,
            len: 0,
        }
    }

    /// Returns how many there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the largest number that is at most `limit`.
    pub(super) fn last_up_to(&self, limit: u64) -> Option<u64> {
        let chunk = self.chunk(self.position_before(limit)?);
        let behind = chunk.partition_point(|&number| number <= limit);
        behind.checked_sub(1).and_then(|last| chunk.get(last).copied())
    }

    /// Returns the smallest number above `limit`.
    pub(super) fn first_above(&self, limit: u64) -> Option<u64> {
        let Some(position) = self.position_before(limit) else { return self.first_of(0) };
        let chunk = self.chunk(position);
        let behind = chunk.partition_point(|&number| number <= limit);
        chunk.get(behind).copied().or_else(|| self.first_of(position + 1))
    }

    /// Returns all of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.order.iter().flat_map(|&chunk| self.chunks[usize::from(chunk)].iter().copied())
    }

    /// Returns how many lie in `range`; counts no further than `enough`.
    pub(super) fn count(&self, range: RangeInclusive<u64>, enough: usize) -> usize {
        let mut limit = *range.start();
        let mut count = usize::from(self.last_up_to(limit) == Some(limit));
        while count < enough
            && let Some(next) = self.first_above(limit).filter(|next| range.contains(next))
        {
            limit = next;
            count += 1;
        }
        count
    }

    /// Takes a number in that is not there; false where there is no room.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if self.len == CAPACITY {
            return false;
        }
        let position = match self.position_before(number) {
            Some(position) => position,
            None if self.order.is_empty() => {
                if !self.add_chunk(0, Chunk::new()) {
                    return false;
                }
                0
            }
            None => 0,
        };
        let is_split = self.chunk(position).is_full();
        if is_split {
            let upper = self.chunk_mut(position).drain(CHUNK / 2..).collect();
            if !self.add_chunk(position + 1, upper) {
                return false;
            }
        }
        let is_above = is_split && self.first_of(position + 1).is_some_and(|first| first <= number);
        let chunk = self.chunk_mut(position + usize::from(is_above));
        let place = chunk.partition_point(|&other| other < number);
        chunk.insert(place, number);
        self.len += 1;
        if is_split {
            // The halves with what is beyond them.
            self.join(position + 1);
            self.join(position);
        }
        true
    }

    /// Takes out what lies in `range`.
    pub(super) fn remove(&mut self, range: RangeInclusive<u64>) {
        while let Some(position) = self.position_holding(&range) {
            let chunk = self.chunk_mut(position);
            let first = chunk.partition_point(|number| number < range.start());
            let behind = chunk.partition_point(|number| number <= range.end());
            chunk.drain(first..behind);
            let is_empty = chunk.is_empty();
            self.len -= behind - first;
            if is_empty {
                self.drop_chunk(position);
                self.join(position.saturating_sub(1));
            } else {
                self.join(position);
            }
        }
    }

    /// Position of a chunk with a number in `range`.
    fn position_holding(&self, range: &RangeInclusive<u64>) -> Option<usize> {
        let at = self.last_up_to(*range.end()).filter(|number| range.contains(number))?;
        self.position_before(at)
    }

    /// Position of the last chunk whose first number is at most `limit`.
    fn position_before(&self, limit: u64) -> Option<usize> {
        let is_before =
            |&chunk: &u16| self.chunks[usize::from(chunk)].first().is_some_and(|first| *first <= limit);
        self.order.partition_point(is_before).checked_sub(1)
    }

    /// Joins the chunk at `position` with its neighbours, as long as one holds what two have.
    fn join(&mut self, position: usize) {
        for first in [position.saturating_sub(1), position, position.saturating_sub(1)] {
            if first + 1 < self.order.len() && self.chunk(first).len() + self.chunk(first + 1).len() < CHUNK {
                let upper = core::mem::take(self.chunk_mut(first + 1));
                self.chunk_mut(first).extend(upper);
                self.drop_chunk(first + 1);
            }
        }
    }

    fn add_chunk(&mut self, position: usize, numbers: Chunk) -> bool {
        let chunk = self.spare.pop().unwrap_or(self.untouched);
        let Some(place) = self.chunks.get_mut(usize::from(chunk)) else { return false };
        *place = numbers;
        self.untouched = self.untouched.max(chunk + 1);
        self.order.try_insert(position, chunk).is_ok()
    }

    fn drop_chunk(&mut self, position: usize) {
        if let Some(chunk) = self.order.pop_at(position) {
            self.spare.push(chunk);
        }
    }

    fn first_of(&self, position: usize) -> Option<u64> {
        let chunk = self.order.get(position)?;
        self.chunks[usize::from(*chunk)].first().copied()
    }

    fn chunk(&self, position: usize) -> &Chunk {
        &self.chunks[usize::from(self.order[position])]
    }

    fn chunk_mut(&mut self, position: usize) -> &mut Chunk {
        &mut self.chunks[usize::from(self.order[position])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Every two neighbours have a chunk's worth, but where there is one chunk alone.
    fn is_dense(set: &Boundaries) -> bool {
        let lengths: Vec<usize> = (0..set.order.len()).map(|position| set.chunk(position).len()).collect();
        lengths.iter().all(|&length| length > 0) && lengths.windows(2).all(|two| two[0] + two[1] >= CHUNK)
    }

    #[test]
    fn as_many_fit_as_promised_in_whatever_order_they_come() {
        let orders: [fn(u64) -> u64; 3] = [
            |index| index,
            |index| CAPACITY as u64 - index,
            // A permutation that jumps.
            |index| index * 20_011 % CAPACITY as u64,
        ];
        for order in orders {
            let mut set = Box::new(Boundaries::new());
            assert!((0..CAPACITY as u64).all(|index| set.insert(16 * order(index))));
            assert!(is_dense(&set) && !set.insert(1));
            // Nearly all out, in a way that leaves each chunk a few, and as many others in.
            (0..CAPACITY as u64)
                .filter(|index| index % 30 != 0)
                .for_each(|index| set.remove(16 * index..=16 * index));
            assert!(is_dense(&set));
            let left = set.len();
            assert!((0..(CAPACITY - left) as u64).all(|index| set.insert(16 * order(index) + 1)));
            assert!(is_dense(&set));
        }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_set(steps in proptest::collection::vec((0_u8..4, 0_u64..2000, 0_u64..40), 0..1000)) {
            let (mut set, mut model) = (Box::new(Boundaries::new()), BTreeSet::new());
            for (what, number, length) in steps {
                if what > 0 {
                    if model.insert(number) {
                        prop_assert!(set.insert(number));
                    }
                } else {
                    set.remove(number..=number + length);
                    model.retain(|other| !(number..=number + length).contains(other));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.last_up_to(number), model.range(..=number).next_back().copied());
                prop_assert_eq!(set.first_above(number), model.range(number + 1..).next().copied());
                let count = model.range(number..=number + length).count();
                prop_assert_eq!(set.count(number..=number + length, 3), count.min(3));
                prop_assert!(is_dense(&set));
            }
        }
    }
}
