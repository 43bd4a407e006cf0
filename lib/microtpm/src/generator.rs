//! Random bytes for PALs, and for what seals and signs.

use crate::Error;
use crate::bytes::zeros;
use crate::drbg::HmacDrbg;
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// Most bytes that a PAL gets at once.
pub const RANDOM_BYTES_LIMIT: usize = 4096;

/// Requests between two seedings. SP 800-90A allows 2^48; entropy is cheap.
const RESEED_INTERVAL: u32 = 4096;

/// A source of true randomness.
pub trait Entropy {
    /// Fills `bytes` with full entropy.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientEntropy`]: the source has failed.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error>;
}

/// A deterministic generator that its source of entropy seeds again now and then.
#[derive(Debug)]
pub struct Generator<E> {
    source: E,
    drbg: HmacDrbg,
    requests_left: u32,
}

impl<E: Entropy> Generator<E> {
    /// Seeds a generator.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientEntropy`]: the source has failed.
    pub fn new(mut source: E) -> Result<Self, Error> {
        // Entropy input and nonce.
        let mut seed = Zeroizing::new([0; 48]);
        source.fill(&mut seed[..])?;
        let drbg = HmacDrbg::new(&[&seed[..], b"xmhf microtpm random"]);
        Ok(Self { source, drbg, requests_left: RESEED_INTERVAL })
    }

    /// Returns a generator that is good for one command.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientEntropy`]: it was time for another seed, and the source has failed.
    pub fn ready(&mut self) -> Result<&mut HmacDrbg, Error> {
        if self.requests_left == 0 {
            let mut seed = Zeroizing::new([0; 32]);
            self.source.fill(&mut seed[..])?;
            self.drbg.reseed(&[&seed[..]]);
            self.requests_left = RESEED_INTERVAL;
        }
        self.requests_left -= 1;
        Ok(&mut self.drbg)
    }

    /// `length` random bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: more than [`RANDOM_BYTES_LIMIT`]; [`Error::InsufficientEntropy`] as above.
    pub fn random(&mut self, length: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        if length > RANDOM_BYTES_LIMIT {
            return Err(Error::BadParameter);
        }
        let mut bytes = Zeroizing::new(zeros(length)?);
        self.ready()?.generate(&mut bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a number of seeds, each of another byte, then fails.
    struct Seeds(u8);

    impl Entropy for Seeds {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.0 = self.0.checked_sub(1).ok_or(Error::InsufficientEntropy)?;
            bytes.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn bytes_differ_and_their_number_has_a_limit() {
        let mut generator = Generator::new(Seeds(1)).unwrap();
        assert_ne!(generator.random(32).unwrap(), generator.random(32).unwrap());
        assert_eq!(generator.random(4096).unwrap().len(), 4096);
        assert_eq!(generator.random(0).unwrap().len(), 0);
        assert_eq!(generator.random(4097), Err(Error::BadParameter));
    }

    #[test]
    fn without_entropy_there_are_no_bytes() {
        assert_eq!(Generator::new(Seeds(0)).err(), Some(Error::InsufficientEntropy));
    }

    #[test]
    fn a_source_that_fails_later_is_noticed_at_the_next_seeding() {
        let mut generator = Generator::new(Seeds(2)).unwrap();
        for _ in 0..2 * RESEED_INTERVAL {
            assert!(generator.ready().is_ok());
        }
        assert_eq!(generator.random(1), Err(Error::InsufficientEntropy));
        assert_eq!(generator.random(1), Err(Error::InsufficientEntropy));
    }

    #[test]
    fn another_seed_makes_other_bytes() {
        let mut reseeded = Generator::new(Seeds(2)).unwrap();
        let mut plain = reseeded.drbg.clone();
        for _ in 0..RESEED_INTERVAL {
            reseeded.ready().unwrap();
        }
        let mut bytes = [0; 16];
        plain.generate(&mut bytes);
        assert_ne!(reseeded.random(16).unwrap()[..], bytes);
    }
}
