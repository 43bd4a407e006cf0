//! The search for an RSA key, in steps.
//!
//! A key takes hundreds of candidates, and no hypercall may keep a CPU for as long as that: each step tests one.

use crate::drbg::HmacDrbg;
use crate::public_key::EXPONENT;
use crypto_bigint::BoxedUint;
use crypto_primes::hazmat::{SetBits, SieveFactory, SmallFactorsSieve, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime};
use rsa::PrivateKey;
use zeroize::Zeroizing;

/// Bits of each of the two primes: half the modulus.
const PRIME_BITS: u32 = 1024;

/// A search, in progress.
pub(crate) struct Search {
    random: HmacDrbg,
    sieve: Option<SmallFactorsSieve<BoxedUint>>,
    first: Option<Zeroizing<BoxedUint>>,
}

impl Search {
    /// Begins; `random` decides what is found.
    pub(crate) fn new(random: HmacDrbg) -> Self {
        Self { random, sieve: None, first: None }
    }

    /// Looks at one more candidate.
    pub(crate) fn step(&mut self) -> Option<PrivateKey> {
        let prime = self.candidate().filter(|candidate| is_prime(Flavor::Any, &**candidate))?;
        // Each prime has a sieve of its own, from a random start.
        self.sieve = None;
        let Some(first) = self.first.take() else {
            self.first = Some(prime);
            return None;
        };
        // Refused where the two are one, or the exponent divides; then both are looked for anew.
        PrivateKey::from_p_q((*first).clone(), (*prime).clone(), BoxedUint::from(EXPONENT)).ok()
    }

    /// Returns the next number without small factors; the two top bits are set, so that the modulus has its length.
    fn candidate(&mut self) -> Option<Zeroizing<BoxedUint>> {
        if self.sieve.is_none() {
            let factory = SmallFactorsSieveFactory::new(Flavor::Any, PRIME_BITS, SetBits::TwoMsb);
            self.sieve = factory.and_then(|mut factory| factory.make_sieve(&mut self.random, None)).ok()?;
        }
        let candidate = self.sieve.as_mut()?.next();
        if candidate.is_none() {
            self.sieve = None;
        }
        candidate.map(Zeroizing::new)
    }
}
