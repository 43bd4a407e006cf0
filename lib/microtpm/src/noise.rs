//! Entropy from what a processor has: RDSEED, RDRAND, and the time that memory takes.
//!
//! Each 32 bytes are the hash of all three, so that one bad source spoils nothing. They are given where one
//! alone is enough: 4 words of RDSEED, 32 of RDRAND (SP 800-90C counts half of what a generator gives), or
//! 4096 times of which no two neighbours' difference makes up more than half.

use crate::Error;
use crate::generator::Entropy;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

/// What a processor has.
pub trait Noise {
    /// RDSEED, once.
    fn seed_word(&self) -> Option<u64>;

    /// RDRAND, once.
    fn random_word(&self) -> Option<u64>;

    /// Returns the time-stamp counter, behind something that takes a varying time.
    fn time(&self) -> u64;
}

/// Entropy from noise.
#[derive(Debug)]
pub struct Conditioned<N>(pub N);

const BLOCK_BYTES: usize = 32;
/// Words of RDSEED that make a block.
const SEED_WORDS: usize = 4;
/// Words of RDRAND that make a block.
const RANDOM_WORDS: usize = 32;
/// Times that make a block; and that are taken in any case.
const TIMES: usize = 4096;
const TIMES_LEAST: usize = 64;
/// An instruction that gives nothing is asked so often.
const TRIES: usize = 100;

impl<N: Noise> Entropy for Conditioned<N> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        for block in bytes.chunks_mut(BLOCK_BYTES) {
            let mut full = self.block()?;
            block.copy_from_slice(&full[..block.len()]);
            full.zeroize();
        }
        Ok(())
    }
}

impl<N: Noise> Conditioned<N> {
    fn block(&self) -> Result<[u8; BLOCK_BYTES], Error> {
        let mut hash = Sha256::new();
        let has_seed = words(&mut hash, SEED_WORDS, || self.0.seed_word());
        let has_random = words(&mut hash, RANDOM_WORDS, || self.0.random_word());
        let is_enough = has_seed || has_random;
        let varies = self.times(&mut hash, if is_enough { TIMES_LEAST } else { TIMES });
        if is_enough || varies { Ok(hash.finalize().into()) } else { Err(Error::InsufficientEntropy) }
    }

    /// Takes times in; whether they vary enough to stand alone.
    fn times(&self, hash: &mut Sha256, count: usize) -> bool {
        let mut common = [0_usize; 256];
        let mut last = self.0.time();
        for _ in 0..count {
            let time = self.0.time();
            hash.update(time.to_le_bytes());
            // What varies is in the low bits.
            common[usize::from(time.wrapping_sub(last).to_le_bytes()[0])] += 1;
            last = time;
        }
        count == TIMES && common.iter().all(|&times| times <= count / 2)
    }
}

/// Takes words in; whether all came, and are not one word over and over, which is how a broken source looks.
fn words(hash: &mut Sha256, count: usize, source: impl Fn() -> Option<u64>) -> bool {
    let (mut last, mut came, mut equal) = (None, 0, 0);
    for _ in 0..count {
        let Some(word) = (0..TRIES).find_map(|_| source()) else { break };
        hash.update(word.to_le_bytes());
        equal += usize::from(last == Some(word));
        last = Some(word);
        came += 1;
    }
    came == count && equal == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A source that counts up from 1, one that stays, or none.
    #[derive(Clone, Copy)]
    enum Source {
        Counts,
        Stays,
        Absent,
    }

    struct Fixture {
        seed: Source,
        random: Source,
        times: Source,
        count: Cell<u64>,
    }

    impl Fixture {
        fn word(&self, source: Source) -> Option<u64> {
            self.count.set(self.count.get() + 1);
            match source {
                Source::Counts => Some(self.count.get()),
                Source::Stays => Some(u64::MAX),
                Source::Absent => None,
            }
        }
    }

    impl Noise for Fixture {
        fn seed_word(&self) -> Option<u64> {
            self.word(self.seed)
        }

        fn random_word(&self) -> Option<u64> {
            self.word(self.random)
        }

        fn time(&self) -> u64 {
            // Differences of all sizes, or of one.
            self.word(self.times).map_or(0, |count| count.wrapping_mul(count))
        }
    }

    fn bytes(seed: Source, random: Source, times: Source) -> Result<[u8; 40], Error> {
        let mut bytes = [0; 40];
        let machine = Fixture { seed, random, times, count: Cell::new(0) };
        Conditioned(machine).fill(&mut bytes).map(|()| bytes)
    }

    #[test]
    fn one_good_source_is_enough() {
        use Source::{Absent, Counts, Stays};
        for (seed, random, times) in [
            (Counts, Absent, Absent),
            (Absent, Counts, Absent),
            (Absent, Absent, Counts),
            (Stays, Counts, Absent),
            (Stays, Stays, Counts),
        ] {
            let bytes = bytes(seed, random, times).unwrap();
            let (first, second) = (&bytes[..8], &bytes[32..]);
            assert!(first != [0; 8] && second != [0; 8] && first != second);
        }
    }

    #[test]
    fn broken_and_absent_sources_are_noticed() {
        use Source::{Absent, Stays};
        for (seed, random, times) in
            [(Absent, Absent, Absent), (Stays, Absent, Absent), (Absent, Stays, Stays), (Stays, Stays, Stays)]
        {
            assert_eq!(bytes(seed, random, times), Err(Error::InsufficientEntropy));
        }
    }

    #[test]
    fn every_source_has_its_share() {
        use Source::{Counts, Stays};
        let all = bytes(Counts, Counts, Counts).unwrap();
        assert_ne!(bytes(Stays, Counts, Counts).unwrap(), all);
        assert_ne!(bytes(Counts, Stays, Counts).unwrap(), all);
        assert_ne!(bytes(Counts, Counts, Stays).unwrap(), all);
    }
}
