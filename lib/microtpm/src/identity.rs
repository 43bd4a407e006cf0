//! The machine's identity: the key that signs quotes, and the signatures by it.
//!
//! Both take so long that they go by steps, and whoever asks makes one: for the key, which is looked for when it is
//! first asked for and follows from the root secret, and for the signature that is under way, whosever it is. So one that
//! is asked for no longer holds up nobody for long. Signatures are made in the order in which they were first asked for;
//! one that is ready waits for whoever asks for it again; of a message there is only one (PKCS #1 v1.5 draws nothing).

use crate::Error;
use crate::bank::Bank;
use crate::keys::{ROOT_BYTES, identity_generator};
use crate::public_key::{MODULUS_BYTES, PublicKey};
use crate::signing_key::{KeySearch, Signed, Signing, SigningKey};
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::task::{Poll, ready};

/// Messages that wait to be signed; whoever asks for one more finds no place yet.
const ASKED_LIMIT: usize = 16;
/// Signatures that wait for whoever asked for them; more than that, and the first one is forgotten.
const WAITING_LIMIT: usize = 2 * ASKED_LIMIT;

/// A signature by PKCS #1 v1.5.
pub type Signature = [u8; MODULUS_BYTES];

/// The identity.
#[derive(Clone)]
pub struct Identity {
    key: Key,
    asked: ArrayVec<Signed, ASKED_LIMIT>,
    under_way: Option<Box<(Signed, Signing)>>,
    waiting: Vec<(Signed, Result<Signature, Error>)>,
}

#[derive(Clone)]
enum Key {
    Searched(Box<KeySearch>),
    Found(Box<SigningKey>),
}

impl Identity {
    /// The identity of a machine with this root secret.
    #[must_use]
    pub fn new(root: &[u8; ROOT_BYTES]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "at boot")]
        let search = Box::new(KeySearch::new(identity_generator(root)));
        Self::of(Key::Searched(search))
    }

    fn of(key: Key) -> Self {
        #[expect(clippy::disallowed_methods, reason = "at boot")]
        let waiting = Vec::with_capacity(WAITING_LIMIT);
        Self { key, asked: ArrayVec::new_const(), under_way: None, waiting }
    }

    /// The key that verifies what is signed, or a step towards it.
    pub fn public_key(&mut self) -> Poll<PublicKey> {
        self.key.find().map(|key| key.public_key())
    }

    /// Signs `message` by PKCS #1 v1.5 with the hash of `bank`, or makes a step towards that.
    ///
    /// # Errors
    ///
    /// [`Error::Other`]: the computation went wrong.
    pub fn sign(&mut self, bank: Bank, message: &[u8]) -> Poll<Result<Signature, Error>> {
        let key = ready!(self.key.find());
        let asked = Signed { bank, digest: bank.hash(&[message]) };
        if let Some(index) = self.waiting.iter().position(|(signed, _)| *signed == asked) {
            return Poll::Ready(self.waiting.remove(index).1);
        }
        let is_under_way = self.under_way.as_ref().is_some_and(|work| work.0 == asked);
        if !is_under_way && !self.asked.contains(&asked) && !self.asked.is_full() {
            self.asked.push(asked.clone());
        }
        let Some(work) = &mut self.under_way else {
            self.under_way = self.asked.pop_at(0).map(|signed| begin(key, signed));
            return Poll::Pending;
        };
        let Some(signature) = work.1.step(key) else { return Poll::Pending };
        let signed = work.0.clone();
        self.under_way = None;
        if signed == asked {
            return Poll::Ready(signature);
        }
        if self.waiting.len() == WAITING_LIMIT {
            self.waiting.remove(0).1.ok();
        }
        #[expect(clippy::disallowed_methods, reason = "there is room")]
        self.waiting.push((signed, signature));
        Poll::Pending
    }
}

#[inline(never)]
fn begin(key: &SigningKey, signed: Signed) -> Box<(Signed, Signing)> {
    let signing = key.sign(&signed);
    #[expect(clippy::disallowed_methods, reason = "in memory that is the microTPM's alone")]
    Box::new((signed, signing))
}

impl Key {
    /// The key, or a step towards it: a key is some ten thousand steps.
    fn find(&mut self) -> Poll<&SigningKey> {
        if let Self::Searched(search) = self
            && let Some(key) = search.step()
        {
            #[expect(clippy::disallowed_methods, reason = "once, in memory that is the microTPM's alone")]
            let key = Box::new(key);
            *self = Self::Found(key);
        }
        match self {
            Self::Searched(_) => Poll::Pending,
            Self::Found(key) => Poll::Ready(key),
        }
    }
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Identity")
    }
}

/// An identity that tests share.
#[cfg(test)]
pub(crate) fn test_identity() -> Identity {
    Identity::of(Key::Found(Box::new(crate::signing_key::test_key())))
}

/// What `poll` gives in the end.
#[cfg(test)]
pub(crate) fn in_the_end<T>(mut poll: impl FnMut() -> Poll<T>) -> T {
    loop {
        if let Poll::Ready(result) = poll() {
            return result;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drbg::HmacDrbg;

    /// Asks once, in the name of a message.
    fn ask(identity: &mut Identity, message: u8) -> Option<Signature> {
        match identity.sign(Bank::Sha256, &[message]) {
            Poll::Ready(signature) => Some(signature.unwrap()),
            Poll::Pending => None,
        }
    }

    fn is_good(signature: &Signature, message: u8) -> bool {
        in_the_end(|| test_identity().public_key()).verifies(Bank::Sha256, &[message], signature)
    }

    #[test]
    fn a_signature_verifies_and_nothing_else_does() {
        let mut identity = test_identity();
        let public = in_the_end(|| identity.public_key());
        for (bank, other) in [(Bank::Sha1, Bank::Sha256), (Bank::Sha256, Bank::Sha1)] {
            let signature = in_the_end(|| identity.sign(bank, b"message")).unwrap();
            assert!(public.verifies(bank, b"message", &signature));
            assert!(!public.verifies(other, b"message", &signature));
            assert!(!public.verifies(bank, b"massage", &signature));
            assert!(!public.verifies(bank, b"message", &signature[1..]));
            assert!(!PublicKey { modulus: [0xff; 256] }.verifies(bank, b"message", &signature));
        }
    }

    #[test]
    fn whoever_asks_gets_a_signature_whatever_others_ask_for() {
        let mut identity = test_identity();
        let mut got = [0; 5];
        // In turn, each for the next one when it has one.
        for round in 0..30_000 {
            let asker = round % got.len();
            let message = (asker * 50 + got[asker]) as u8;
            if let Some(signature) = ask(&mut identity, message) {
                assert!(is_good(&signature, message), "{asker}");
                got[asker] += 1;
            }
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(*least > 5 && most - least <= 2, "{got:?}");
    }

    #[test]
    fn a_signature_that_is_asked_for_no_longer_holds_up_nobody() {
        let mut identity = test_identity();
        assert_eq!(ask(&mut identity, 1), None);
        let mut steps = 0;
        while ask(&mut identity, 2).is_none() {
            steps += 1;
        }
        assert!(steps < 1200, "{steps}");
        assert_eq!(identity.waiting.len(), 1);
        // It waits for whoever asks after all.
        assert!(ask(&mut identity, 1).is_some_and(|signature| is_good(&signature, 1)));
        assert_eq!(identity.waiting.len(), 0);
    }

    #[test]
    fn of_many_that_wait_the_first_makes_way() {
        let mut identity = test_identity();
        for number in 0..WAITING_LIMIT as u8 + 1 {
            // One asks once, and another until it has its own, which is behind it.
            assert_eq!(ask(&mut identity, number), None);
            in_the_end(|| identity.sign(Bank::Sha1, b"another")).unwrap();
            assert_eq!(identity.waiting.len(), WAITING_LIMIT.min(usize::from(number) + 1));
        }
        assert_eq!(ask(&mut identity, 0), None, "the first is made anew");
        assert!((1..=WAITING_LIMIT as u8).all(|number| ask(&mut identity, number).is_some()));
    }

    #[test]
    fn who_finds_no_place_gets_one_later() {
        let mut identity = test_identity();
        for number in 0..=ASKED_LIMIT as u8 + 4 {
            assert_eq!(ask(&mut identity, number), None);
        }
        assert!(identity.asked.is_full());
        assert!(is_good(&in_the_end(|| identity.sign(Bank::Sha256, &[0xee])).unwrap(), 0xee));
    }

    #[test]
    fn the_modulus_has_its_length_and_stays() {
        let mut found = test_identity();
        let public = in_the_end(|| found.public_key());
        assert!(public.modulus[0] & 0x80 != 0);
        assert_eq!(found.public_key(), Poll::Ready(public));
    }

    #[test]
    fn the_key_follows_from_the_root_secret() {
        let candidates = |byte| {
            let mut random: HmacDrbg = identity_generator(&[byte; ROOT_BYTES]);
            let mut start = [0; 128];
            random.generate(&mut start);
            start
        };
        assert_eq!(candidates(1), candidates(1));
        assert_ne!(candidates(1), candidates(2));
    }

    #[test]
    fn the_key_is_told_to_nobody() {
        let told = format!("{:?} {:?}", test_identity(), crate::signing_key::test_key());
        assert_eq!(told, "Identity SigningKey");
    }
}
