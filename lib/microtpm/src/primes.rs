//! The search for a prime of an RSA key, in steps.
//!
//! A prime takes dozens of candidates, and no hypercall may keep a CPU for as long as one of them takes. Candidates are 3
//! modulo 4, where the test of Miller and Rabin is one exponentiation (HAC, "4.24 Algorithm Miller-Rabin probabilistic
//! primality test", with s of 1).

use crate::drbg::HmacDrbg;
use crate::exponentiation::Exponentiation;
use crate::public_key::EXPONENT;
use crypto_bigint::{Limb, NonZero, Odd, U1024};
use zeroize::Zeroizing;

/// Limbs of a prime.
pub(crate) const LIMBS: usize = U1024::LIMBS;
/// Bits of a prime: half the modulus.
pub(crate) const BITS: u32 = U1024::BITS;
/// Rounds of the test, as FIPS 186-5 has it for primes of 1024 bits.
const ROUNDS: u32 = 5;
/// Modular products of a step.
pub(crate) const STEP_PRODUCTS: u32 = 15;

/// Odd primes below this are tried as factors first.
const SMALL: usize = 4096;
const SMALL_PRIMES: [u16; 563] = small_primes();
/// As many of them have a product that a limb holds.
const GROUP: usize = 5;
/// Groups that a step tries.
const STEP_GROUPS: usize = 40;

/// A search, in progress.
#[derive(Clone)]
pub(crate) struct PrimeSearch {
    random: HmacDrbg,
    /// What was looked at last; zero where there is to be a new start.
    candidate: Zeroizing<U1024>,
    /// Rounds that the candidate passed.
    passed: u32,
    stage: Stage,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one, nearly always in the largest")]
enum Stage {
    /// The candidate has no factor among so many groups of small primes; where these are none, the next one is to be
    /// looked for.
    Sieve(usize),
    /// The candidate needs a base.
    Draw,
    /// A round is under way.
    Test(Exponentiation),
}

impl PrimeSearch {
    /// Begins; `random` decides what is found.
    pub(crate) fn new(random: HmacDrbg) -> Self {
        Self { random, candidate: Zeroizing::new(U1024::ZERO), passed: 0, stage: Stage::Sieve(0) }
    }

    /// Does a step, and gives a prime where it found one; the next step looks for another.
    pub(crate) fn step(&mut self) -> Option<Zeroizing<U1024>> {
        match &mut self.stage {
            Stage::Sieve(0) => self.next(),
            Stage::Sieve(groups) => {
                let groups = *groups;
                self.sieve(groups);
            }
            Stage::Draw => self.draw(),
            Stage::Test(round) => {
                let power = Zeroizing::new(round.step(STEP_PRODUCTS)?);
                self.stage = Stage::Draw;
                if *power != U1024::ONE && *power != self.candidate.wrapping_sub(&U1024::ONE) {
                    self.go_on();
                    return None;
                }
                self.passed += 1;
                if self.passed == ROUNDS {
                    let prime = core::mem::replace(&mut self.candidate, Zeroizing::new(U1024::ZERO));
                    self.go_on();
                    return Some(prime);
                }
            }
        }
        None
    }

    fn go_on(&mut self) {
        self.passed = 0;
        self.stage = Stage::Sieve(0);
    }

    /// The next number that is 3 modulo 4, from a random start on whose two top bits are set, so that the modulus has
    /// its length.
    fn next(&mut self) {
        let next = self.candidate.wrapping_add(&U1024::from_u8(4));
        let is_high = next.as_words().last().is_some_and(|word| word >> 62 == 3);
        if !is_high {
            let top = U1024::from_u8(3).shl_vartime(BITS - 2);
            *self.candidate = *self.number() | top | U1024::from_u8(3);
            return;
        }
        *self.candidate = next;
        self.sieve(0);
    }

    /// Tries the small primes behind the first `groups` groups.
    fn sieve(&mut self, groups: usize) {
        let mut rest = SMALL_PRIMES.chunks(GROUP).skip(groups).peekable();
        let is_left = rest.by_ref().take(STEP_GROUPS).all(|group| divides_not(group, &self.candidate));
        self.stage = match (is_left, rest.peek()) {
            (false, _) => Stage::Sieve(0),
            (true, Some(_)) => Stage::Sieve(groups + STEP_GROUPS),
            // Nor may the exponent divide what comes before it.
            (true, None) if remainder(&self.candidate, EXPONENT) == 1 => Stage::Sieve(0),
            (true, None) => Stage::Draw,
        };
    }

    fn draw(&mut self) {
        let base = self.number();
        let Some(modulus) = Odd::new(*self.candidate).into_option() else { return self.go_on() };
        let half = self.candidate.shr_vartime(1);
        self.stage = Stage::Test(Exponentiation::new(modulus, *base, half, BITS));
    }

    fn number(&mut self) -> Zeroizing<U1024> {
        let mut bytes = Zeroizing::new([0; 8 * LIMBS]);
        self.random.generate(&mut bytes[..]);
        Zeroizing::new(U1024::from_be_slice(&bytes[..]))
    }
}

/// None of the primes of `group` divides `candidate`.
fn divides_not(group: &[u16], candidate: &U1024) -> bool {
    let rest = remainder(candidate, group.iter().map(|&prime| u64::from(prime)).product());
    group.iter().all(|&prime| !rest.is_multiple_of(prime.into()))
}

/// `number` modulo `divisor`, 0 where that is 0.
pub(crate) fn remainder(number: &U1024, divisor: u64) -> u64 {
    NonZero::new(Limb(divisor)).into_option().map_or(0, |divisor| number.rem_limb(divisor).0)
}

/// The sieve of Eratosthenes.
#[expect(clippy::cast_possible_truncation, reason = "below 4096")]
const fn small_primes() -> [u16; 563] {
    let (mut primes, mut count) = ([0; 563], 0);
    let mut is_composite = [false; SMALL];
    let mut number = 3;
    while number < SMALL {
        if !is_composite[number] {
            primes[count] = number as u16;
            count += 1;
            let mut multiple = number * number;
            while multiple < SMALL {
                is_composite[multiple] = true;
                multiple += number;
            }
        }
        number += 2;
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto_bigint::BoxedUint;
    use crypto_primes::{Flavor, is_prime};

    fn found(search: &mut PrimeSearch) -> U1024 {
        *std::iter::repeat_with(|| search.step()).flatten().next().unwrap()
    }

    #[test]
    fn what_is_found_are_primes_that_differ() {
        let mut search = PrimeSearch::new(HmacDrbg::new(&[b"test"]));
        let primes = [found(&mut search), found(&mut search)];
        assert_ne!(primes[0], primes[1]);
        for prime in primes {
            assert!(is_prime(Flavor::Any, &BoxedUint::from(prime)));
            assert_eq!((prime.bit_width(), prime.as_words()[0] & 3), (1024, 3));
            assert!(prime.as_words()[15] >> 62 == 3 && remainder(&prime, EXPONENT) != 1);
        }
    }

    /// Whether the sieve lets `candidate` pass.
    fn is_left(candidate: U1024) -> bool {
        let mut search = PrimeSearch::new(HmacDrbg::new(&[b"test"]));
        *search.candidate = candidate;
        search.sieve(0);
        while let Stage::Sieve(groups @ 1..) = search.stage {
            search.sieve(groups);
        }
        matches!(search.stage, Stage::Draw)
    }

    #[test]
    fn small_factors_are_found() {
        assert_eq!((SMALL_PRIMES[0], SMALL_PRIMES[1], SMALL_PRIMES[562]), (3, 5, 4093));
        // 2^521 - 1 is a prime.
        let prime = U1024::MAX.shr_vartime(1024 - 521);
        assert!(is_left(prime));
        for factor in [3, 7, 509, 997, 1009, 3001, 4093] {
            assert!(!is_left(prime.wrapping_mul(&U1024::from_u64(factor))), "{factor}");
        }
    }

    #[test]
    fn a_prime_that_the_exponent_does_not_suit_is_none() {
        // 1 modulo the exponent, and a multiple of no small prime.
        let numbers = (1..).map(|factor| EXPONENT * 2 * factor + 1);
        let mut unsuited =
            numbers.filter(|number| SMALL_PRIMES.iter().all(|&prime| !number.is_multiple_of(prime.into())));
        let unsuited = unsuited.next().unwrap();
        assert!(!is_left(U1024::from_u64(unsuited)) && is_left(U1024::from_u64(4099)));
    }

    /// Has `candidate` tested, and gives how many rounds it passed and whether it was taken.
    fn tested(candidate: U1024) -> bool {
        let mut search = PrimeSearch::new(HmacDrbg::new(&[b"test"]));
        *search.candidate = candidate;
        search.stage = Stage::Draw;
        while !matches!(search.stage, Stage::Sieve(_)) {
            if let Some(prime) = search.step() {
                return *prime == candidate;
            }
        }
        false
    }

    #[test]
    fn primes_are_taken_and_products_of_primes_are_not() {
        let prime = U1024::MAX.shr_vartime(1024 - 521);
        assert!(tested(prime));
        assert!(!tested(prime.wrapping_add(&U1024::from_u8(4))));
        // A Carmichael number and a strong pseudoprime to the bases 2, 3, 5 and 7, both 3 modulo 4.
        for composite in [8911, 3_215_031_751] {
            assert!(!tested(U1024::from_u64(composite)), "{composite}");
        }
    }

    #[test]
    fn a_prime_passes_every_round_first() {
        let mut search = PrimeSearch::new(HmacDrbg::new(&[b"test"]));
        *search.candidate = U1024::MAX.shr_vartime(1024 - 521);
        search.stage = Stage::Draw;
        let mut rounds = 0;
        while search.step().is_none() {
            rounds += u32::from(matches!(search.stage, Stage::Draw));
        }
        // The last one is followed by no other.
        assert_eq!(rounds + 1, ROUNDS);
    }

    #[test]
    fn every_start_has_its_top_bits_and_is_3_modulo_4() {
        for seed in 0..64 {
            let mut search = PrimeSearch::new(HmacDrbg::new(&[&[seed]]));
            assert_eq!(search.step(), None);
            let words = search.candidate.as_words();
            assert_eq!((words[15] >> 62, words[0] & 3), (3, 3), "{seed}");
        }
    }

    #[test]
    fn a_start_that_runs_over_is_drawn_anew() {
        let mut search = PrimeSearch::new(HmacDrbg::new(&[b"test"]));
        *search.candidate = U1024::MAX;
        assert_eq!(search.step(), None);
        assert!(search.candidate.as_words()[15] >> 62 == 3 && *search.candidate != U1024::MAX);
    }
}
