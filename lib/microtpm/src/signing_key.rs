//! The private RSA key, and signatures by it, a part at a time.
//!
//! By the Chinese remainder theorem (RFC 8017, "RSASP1"): a power modulo each prime, then the number that has both
//! remainders. Modulo each prime it is raised to the public exponent before anybody sees it: one that was computed
//! wrongly would give the primes away.

use crate::Error;
use crate::bank::{Bank, Digest};
use crate::drbg::HmacDrbg;
use crate::exponentiation::Exponentiation;
use crate::primes::{BITS, LIMBS, PrimeSearch, STEP_PRODUCTS, remainder};
use crate::public_key::{EXPONENT, MODULUS_BYTES, PublicKey, encoded};
use crypto_bigint::{Limb, NonZero, Odd, U1024, U2048, Uint};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Bits of the public exponent.
const EXPONENT_BITS: u32 = u64::BITS - EXPONENT.leading_zeros();

/// Modular products of a step: fewer than in a search, for what is signed is hashed in each step.
const SIGNING_PRODUCTS: u32 = 6;

/// The private key; the memory is zeroed when it goes.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct SigningKey {
    #[zeroize(skip)]
    modulus: Odd<U2048>,
    /// The larger one first.
    primes: [Prime; 2],
    /// The inverse of the second prime modulo the first.
    coefficient: U1024,
}

/// A prime, and the private exponent modulo the number before it.
#[derive(Clone, ZeroizeOnDrop)]
struct Prime {
    prime: Odd<U1024>,
    exponent: U1024,
}

/// The search for a key, in progress.
#[derive(Clone)]
pub(crate) struct KeySearch {
    primes: PrimeSearch,
    first: Option<Zeroizing<U1024>>,
    /// Both primes, and the first coefficient on its way.
    last: Option<([Prime; 2], Exponentiation)>,
}

/// What a signature is of.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) bank: Bank,
    pub(crate) digest: Digest,
}

/// A signature on its way.
#[derive(Clone)]
pub(crate) struct Signing {
    message: U2048,
    /// What is signed, modulo each prime.
    messages: Zeroizing<[U1024; 2]>,
    /// The signature, modulo each prime.
    powers: Zeroizing<[U1024; 2]>,
    signature: Zeroizing<U2048>,
    stage: Stage,
}

#[derive(Clone)]
enum Stage {
    /// The power modulo a prime is to be found.
    Begin(usize),
    Private(usize, Exponentiation),
    /// Both are known.
    Combine,
    /// The signature is to be raised modulo a prime.
    BeginCheck(usize),
    Public(usize, Exponentiation),
}

impl KeySearch {
    /// Begins; `random` decides what is found.
    pub(crate) fn new(random: HmacDrbg) -> Self {
        Self { primes: PrimeSearch::new(random), first: None, last: None }
    }

    /// Does a step, and gives the key where it was the last one.
    pub(crate) fn step(&mut self) -> Option<SigningKey> {
        if let Some((primes, coefficient)) = &mut self.last {
            let coefficient = coefficient.step(STEP_PRODUCTS)?;
            return SigningKey::new(primes.clone(), coefficient);
        }
        let prime = self.primes.step()?;
        let Some(first) = self.first.take() else {
            self.first = Some(prime);
            return None;
        };
        // They are too near each other if not even their first bits differ (FIPS 186-5, "Criteria for IFC Key Pairs").
        if first.as_words()[LIMBS - 1] != prime.as_words()[LIMBS - 1] {
            let mut primes = [first, prime];
            primes.sort_unstable_by(|one, other| other.cmp(one));
            let [first, prime] = primes;
            let primes = [Prime::new(*first)?, Prime::new(*prime)?];
            // By Fermat's little theorem.
            let less = primes[0].prime.wrapping_sub(&U1024::from_u8(2));
            let inverse = Exponentiation::new(primes[0].prime, *prime, less, BITS);
            self.last = Some((primes, inverse));
        }
        None
    }
}

impl Prime {
    fn new(prime: U1024) -> Option<Self> {
        let exponent = inverse_of_exponent(&prime.wrapping_sub(&U1024::ONE));
        Some(Self { prime: Odd::new(prime).into_option()?, exponent })
    }

    /// `number`, modulo this prime.
    fn remainder(&self, number: &U2048) -> U1024 {
        number.rem(self.prime.as_nz_ref())
    }
}

impl SigningKey {
    fn new(primes: [Prime; 2], coefficient: U1024) -> Option<Self> {
        let modulus = Odd::new(product(&primes)).into_option()?;
        Some(Self { modulus, primes, coefficient })
    }

    /// The key that verifies what this one signs.
    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey { modulus: bytes(&self.modulus) }
    }

    /// Begins to sign.
    pub(crate) fn sign(&self, signed: &Signed) -> Signing {
        Signing {
            message: U2048::from_be_slice(&encoded(signed.bank, &signed.digest)),
            messages: Zeroizing::default(),
            powers: Zeroizing::default(),
            signature: Zeroizing::default(),
            stage: Stage::Begin(0),
        }
    }

    /// The modulus is the product of the primes, all as they were.
    fn is_sound(&self) -> bool {
        product(&self.primes) == *self.modulus
    }

    /// The number with these remainders modulo the primes; the second one is below both.
    fn combined(&self, [first, second]: &[U1024; 2]) -> U2048 {
        let [p, q] = &self.primes;
        let p = p.prime.as_nz_ref();
        let difference = first.sub_mod(second, p);
        let multiple = difference.mul_mod(&self.coefficient, p);
        let product: U2048 = q.prime.concatenating_mul(&multiple);
        product.wrapping_add(&second.resize())
    }
}

impl Signing {
    /// Does a step, and gives the signature where it was the last one.
    pub(crate) fn step(&mut self, key: &SigningKey) -> Option<Result<[u8; MODULUS_BYTES], Error>> {
        self.stage = match &mut self.stage {
            Stage::Begin(index) => {
                let (index, prime) = (*index, &key.primes[*index]);
                self.messages[index] = prime.remainder(&self.message);
                let base = self.messages[index];
                Stage::Private(index, Exponentiation::new(prime.prime, base, prime.exponent, BITS))
            }
            Stage::Private(index, power) => {
                self.powers[*index] = power.step(SIGNING_PRODUCTS)?;
                if *index == 0 { Stage::Begin(1) } else { Stage::Combine }
            }
            Stage::Combine => {
                *self.signature = key.combined(&self.powers);
                Stage::BeginCheck(0)
            }
            Stage::BeginCheck(index) => {
                let (index, prime) = (*index, &key.primes[*index]);
                let base = prime.remainder(&self.signature);
                let exponent = U1024::from_u64(EXPONENT);
                Stage::Public(index, Exponentiation::new(prime.prime, base, exponent, EXPONENT_BITS))
            }
            Stage::Public(index, power) => {
                let is_good = power.step(SIGNING_PRODUCTS)? == self.messages[*index] && key.is_sound();
                match (is_good, *index) {
                    (false, _) => return Some(Err(Error::Other)),
                    (true, 0) => Stage::BeginCheck(1),
                    (true, _) => return Some(Ok(bytes(&self.signature))),
                }
            }
        };
        None
    }
}

fn product([p, q]: &[Prime; 2]) -> U2048 {
    p.prime.concatenating_mul(&*q.prime)
}

fn bytes(number: &U2048) -> [u8; MODULUS_BYTES] {
    let mut bytes = [0; MODULUS_BYTES];
    bytes.copy_from_slice(number.to_be_bytes().as_slice());
    bytes
}

/// The public exponent's inverse modulo `number`, which the exponent, a prime, does not divide: the one multiple of
/// `number` below `number` times the exponent that ends in -1 modulo the exponent, plus 1, by the exponent.
fn inverse_of_exponent(number: &U1024) -> U1024 {
    // By Fermat's little theorem, to the power of the exponent less 2, whose bits are all ones.
    let (mut square, mut inverse) = (remainder(number, EXPONENT), 1);
    for _ in 1..EXPONENT_BITS {
        inverse = inverse * square % EXPONENT;
        square = square * square % EXPONENT;
    }
    let multiple = number.resize::<{ LIMBS + 1 }>().wrapping_mul(&Uint::<1>::from_u64(EXPONENT - inverse));
    let divisor = NonZero::new(Limb(EXPONENT)).into_option();
    let sum: Uint<{ LIMBS + 1 }> = multiple.wrapping_add(&Uint::ONE);
    divisor.map_or(U1024::ZERO, |divisor| sum.div_rem_limb(divisor).0.resize())
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningKey")
    }
}

/// A key that tests share: looking for one takes long without optimisation.
#[cfg(test)]
pub(crate) fn test_key() -> SigningKey {
    static KEY: std::sync::OnceLock<SigningKey> = std::sync::OnceLock::new();
    let search = || {
        let mut search = KeySearch::new(HmacDrbg::new(&[b"a key that tests share"]));
        std::iter::repeat_with(|| search.step()).flatten().next().unwrap()
    };
    KEY.get_or_init(search).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsa::{BoxedUint, PrivateKey};

    fn signature(key: &SigningKey, bank: Bank, message: &[u8]) -> Result<[u8; MODULUS_BYTES], Error> {
        let mut signing = key.sign(&Signed { bank, digest: bank.hash(&[message]) });
        std::iter::repeat_with(|| signing.step(key)).flatten().next().unwrap()
    }

    fn peer() -> PrivateKey {
        let [p, q] = test_key().primes.clone().map(|prime| BoxedUint::from(*prime.prime));
        PrivateKey::from_p_q(p, q, BoxedUint::from(EXPONENT)).unwrap()
    }

    #[test]
    fn signatures_are_those_of_another_implementation() {
        for (bank, padding) in [
            (Bank::Sha1, rsa::Pkcs1v15Sign::new::<sha1::Sha1>()),
            (Bank::Sha256, rsa::Pkcs1v15Sign::new::<sha2::Sha256>()),
        ] {
            for message in [&b"message"[..], b"", b"another"] {
                let digest = bank.hash(&[message]);
                let ours = signature(&test_key(), bank, message).unwrap();
                assert_eq!(ours[..], peer().sign(padding.clone(), &digest).unwrap());
            }
        }
    }

    #[test]
    fn a_signature_that_was_computed_wrongly_is_not_told() {
        for fault in 0..5 {
            let mut key = test_key();
            match fault {
                0 => key.primes[0].exponent = U1024::ONE,
                1 => key.primes[1].exponent = U1024::ONE,
                2 => key.coefficient = U1024::ONE,
                3 => {
                    key.primes[0].prime =
                        Odd::new(key.primes[0].prime.wrapping_add(&U1024::from_u8(8))).unwrap()
                }
                _ => key.modulus = Odd::new(key.modulus.wrapping_add(&U2048::from_u8(8))).unwrap(),
            }
            assert_eq!(signature(&key, Bank::Sha256, b"message"), Err(Error::Other), "{fault}");
        }
    }

    #[test]
    fn the_exponents_inverse_is_one() {
        for number in [U1024::from_u64(1_000_003), U1024::MAX.wrapping_sub(&U1024::ONE)] {
            let number_nz = NonZero::new(number).unwrap();
            let inverse = inverse_of_exponent(&number);
            assert!(inverse < number);
            assert_eq!(inverse.mul_mod(&U1024::from_u64(EXPONENT), &number_nz), U1024::ONE);
        }
    }

    #[test]
    fn primes_that_are_alike_are_not_taken() {
        let mut search = KeySearch::new(HmacDrbg::new(&[b"a key that tests share"]));
        let first = std::iter::repeat_with(|| search.primes.step()).flatten().next().unwrap();
        let mut again = KeySearch::new(HmacDrbg::new(&[b"a key that tests share"]));
        again.first = Some(first);
        while again.first.is_some() {
            assert!(again.step().is_none());
        }
        assert!(again.last.is_none(), "the same prime twice");
    }
}
