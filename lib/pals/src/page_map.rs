//! What belongs to numbered things: a hash table whose memory is taken once, so that no entry ever lacks it.
//!
//! Numbers come from whoever may choose them, so the hash has a key of this boot: nobody can fill one chain.

use crate::fallible::{filled, put, reserved};
use alloc::vec::Vec;

/// No node.
const NONE: u32 = u32::MAX;

/// A table of as many entries as it was started with.
#[derive(Debug)]
pub struct PageMap<V> {
    key: u64,
    buckets: Vec<u32>,
    nodes: Vec<Node<V>>,
    free: u32,
    used: usize,
}

#[derive(Debug)]
struct Node<V> {
    number: u64,
    next: u32,
    value: Option<V>,
}

/// All entries are in use, or there is no memory for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<V> PageMap<V> {
    /// Makes a table of no entries.
    #[must_use]
    pub const fn new() -> Self {
        Self { key: 0, buckets: Vec::new(), nodes: Vec::new(), free: NONE, used: 0 }
    }

    /// Takes the memory for `capacity` entries; `key` is random.
    ///
    /// # Errors
    ///
    /// [`Full`]: there is not as much.
    pub fn start(&mut self, capacity: usize, key: u64) -> Result<(), Full> {
        let buckets = capacity.next_power_of_two();
        self.buckets = filled(buckets, NONE).map_err(|_| Full)?;
        self.nodes = reserved(capacity).map_err(|_| Full)?;
        for index in 0..u32::try_from(capacity).map_err(|_| Full)? {
            put(&mut self.nodes, Node { number: 0, next: self.free, value: None }).map_err(|_| Full)?;
            self.free = index;
        }
        self.key = key | 1;
        Ok(())
    }

    /// Returns what belongs to `number`.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&V> {
        self.node(self.find(number)?)?.value.as_ref()
    }

    /// Returns what belongs to `number`, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut V> {
        let index = self.find(number)?;
        self.nodes.get_mut(position(index))?.value.as_mut()
    }

    /// Gives `number`, which has nothing, something.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn insert(&mut self, number: u64, value: V) -> Result<(), Full> {
        let (index, bucket) = (self.free, self.bucket(number));
        let first = *self.buckets.get(bucket).ok_or(Full)?;
        let node = self.nodes.get_mut(position(index)).ok_or(Full)?;
        self.free = node.next;
        *node = Node { number, next: first, value: Some(value) };
        self.buckets[bucket] = index;
        self.used += 1;
        Ok(())
    }

    /// Takes what `number` has.
    pub fn remove(&mut self, number: u64) -> Option<V> {
        let bucket = self.bucket(number);
        let mut index = *self.buckets.get(bucket)?;
        let mut before = None;
        while self.node(index)?.number != number {
            before = Some(index);
            index = self.node(index)?.next;
        }
        let node = self.nodes.get_mut(position(index))?;
        let (next, value) = (node.next, node.value.take());
        node.next = self.free;
        self.free = index;
        match before {
            Some(before) => self.nodes[position(before)].next = next,
            None => self.buckets[bucket] = next,
        }
        self.used -= 1;
        value
    }

    /// Entries in use.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// There are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn find(&self, number: u64) -> Option<u32> {
        let mut index = *self.buckets.get(self.bucket(number))?;
        while self.node(index)?.number != number {
            index = self.node(index)?.next;
        }
        Some(index)
    }

    fn node(&self, index: u32) -> Option<&Node<V>> {
        self.nodes.get(position(index))
    }

    /// Multiplication by a random odd number; its middle bits hang on all of the number.
    fn bucket(&self, number: u64) -> usize {
        let mixed = number.wrapping_mul(self.key);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(self.key.rotate_left(31) | 1) >> 24;
        usize::try_from(mixed & 0xffff_ffff).unwrap_or(0) & self.buckets.len().saturating_sub(1)
    }
}

impl<V> Default for PageMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// [`NONE`] is no position.
fn position(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn map(capacity: usize) -> PageMap<u32> {
        let mut map = PageMap::new();
        map.start(capacity, 0x9e37_79b9_7f4a_7c15).unwrap();
        map
    }

    #[test]
    fn every_entry_promised_is_there_however_they_come_and_go() {
        let mut map = map(100);
        for round in 0..10_u64 {
            let numbers = || (0..100).map(|index| (round * 1000 + index * 7) << 12);
            assert!(numbers().all(|number| map.insert(number, 1) == Ok(())));
            assert_eq!((map.insert(1, 1), map.len(), map.is_empty()), (Err(Full), 100, false));
            assert!(numbers().rev().all(|number| map.remove(number) == Some(1)));
            assert!(map.is_empty());
        }
    }

    #[test]
    fn numbers_a_step_apart_spread_and_otherwise_by_another_key() {
        const COUNT: usize = 1024;
        let spread = |key, shift| {
            let mut map = PageMap::<u32>::new();
            map.start(COUNT, key).unwrap();
            (0..COUNT as u64).map(|index| map.bucket(index << shift)).collect::<Vec<_>>()
        };
        let keys = [0x9e37_79b9_7f4a_7c15, 0x0123_4567_89ab_cdee];
        for shift in [0, 12, 21, 30, 39] {
            let spreads = keys.map(|key| spread(key, shift));
            for (key, buckets) in keys.iter().zip(&spreads) {
                let mut lengths = [0; COUNT];
                buckets.iter().for_each(|&bucket| lengths[bucket] += 1);
                // With random numbers the longest chain has about six.
                assert!(lengths.iter().all(|&length| length <= 8), "{key:#x}, {shift}");
            }
            assert_ne!(spreads[0], spreads[1], "{shift}");
        }
    }

    #[test]
    fn a_table_that_was_not_started_has_nothing() {
        let mut map = PageMap::new();
        assert_eq!(map.insert(1, 2), Err(Full));
        assert_eq!((map.remove(1), map.get(1)), (None, None));
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps: Vec<(bool, u8, u32)>) {
            let (mut map, mut model) = (map(64), BTreeMap::new());
            for (is_removed, number, value) in steps {
                let number = u64::from(number) << 12;
                if is_removed {
                    prop_assert_eq!(map.remove(number), model.remove(&number));
                } else if let (Some(old), Some(known)) = (map.get_mut(number), model.get_mut(&number)) {
                    (*old, *known) = (value, value);
                } else if !model.contains_key(&number) {
                    let expected = if model.len() < 64 { Ok(()) } else { Err(Full) };
                    prop_assert_eq!(map.insert(number, value), expected);
                    if expected.is_ok() {
                        model.insert(number, value);
                    }
                }
                prop_assert_eq!((map.get(number), map.len()), (model.get(&number), model.len()));
            }
        }
    }
}
