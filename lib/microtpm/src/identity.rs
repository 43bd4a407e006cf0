//! The machine's key that signs quotes.

use crate::Error;
use crate::bank::Bank;
use crate::drbg::HmacDrbg;
use crate::keys::{ROOT_BYTES, identity_generator};
use crate::primes::Search;
use crate::public_key::{MODULUS_BYTES, PublicKey, padding};
use alloc::boxed::Box;
use alloc::sync::Arc;
use rsa::PrivateKey;
use rsa::traits::PublicKeyParts;

/// The identity: its key is looked for when it is first asked for, and follows from the root secret.
pub struct Identity(State);

enum State {
    Searching(Box<Search>),
    Found(Arc<SigningKey>),
}

/// The private key; the memory is zeroed when it goes.
pub struct SigningKey(PrivateKey);

impl Identity {
    /// The identity of a machine with this root secret.
    #[must_use]
    pub fn new(root: &[u8; ROOT_BYTES]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "at boot")]
        let search = Box::new(Search::new(identity_generator(root)));
        Self(State::Searching(search))
    }

    /// Returns the key, or one step towards it: a step is some milliseconds, a key some hundred steps.
    pub fn advance(&mut self) -> Option<Arc<SigningKey>> {
        if let State::Searching(search) = &mut self.0 {
            #[expect(clippy::disallowed_methods, reason = "once, in memory that is the microTPM's alone")]
            let key = Arc::new(SigningKey(search.step()?));
            self.0 = State::Found(key);
        }
        match &self.0 {
            State::Found(key) => Some(key.clone()),
            State::Searching(_) => None,
        }
    }
}

impl SigningKey {
    /// Returns the key that verifies what this one signs.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let mut modulus = [0; MODULUS_BYTES];
        let bytes = self.0.n().to_be_bytes();
        modulus.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
        PublicKey { modulus }
    }

    /// Signs `message` by PKCS #1 v1.5 with the hash of `bank`; `random` blinds the exponentiation.
    ///
    /// # Errors
    ///
    /// [`Error::Other`]: the computation went wrong.
    pub fn sign(
        &self,
        random: &mut HmacDrbg,
        bank: Bank,
        message: &[u8],
    ) -> Result<[u8; MODULUS_BYTES], Error> {
        let signature = self.0.sign_with_rng(random, padding(bank), &bank.hash(&[message]));
        signature.ok().and_then(|signature| signature.try_into().ok()).ok_or(Error::Other)
    }
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Identity")
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningKey")
    }
}

/// Returns a key that tests share: looking for one takes long without optimisation.
#[cfg(test)]
pub(crate) fn test_key() -> Arc<SigningKey> {
    static KEY: std::sync::OnceLock<Arc<SigningKey>> = std::sync::OnceLock::new();
    let search = || {
        let mut identity = Identity::new(&[0x5a; ROOT_BYTES]);
        std::iter::repeat_with(|| identity.advance()).flatten().next().unwrap()
    };
    KEY.get_or_init(search).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_and_nothing_else_does() {
        let (key, mut random) = (test_key(), HmacDrbg::new(&[b"blinding"]));
        let public = key.public_key();
        for (bank, other) in [(Bank::Sha1, Bank::Sha256), (Bank::Sha256, Bank::Sha1)] {
            let signature = key.sign(&mut random, bank, b"message").unwrap();
            assert!(public.verifies(bank, b"message", &signature));
            assert!(!public.verifies(other, b"message", &signature));
            assert!(!public.verifies(bank, b"massage", &signature));
            assert!(!public.verifies(bank, b"message", &signature[1..]));
            assert!(!PublicKey { modulus: [0xff; 256] }.verifies(bank, b"message", &signature));
        }
    }

    #[test]
    fn a_signature_has_one_value_however_it_is_blinded() {
        let sign = |seed: &[u8]| test_key().sign(&mut HmacDrbg::new(&[seed]), Bank::Sha1, b"message");
        assert_eq!(sign(b"one").unwrap(), sign(b"another").unwrap());
    }

    #[test]
    fn the_modulus_has_its_length_and_stays() {
        let mut found = Identity(State::Found(test_key()));
        let public = found.advance().unwrap().public_key();
        assert!(public.modulus[0] & 0x80 != 0);
        assert_eq!(public, found.advance().unwrap().public_key());
    }

    #[test]
    fn the_key_follows_from_the_root_secret() {
        let candidates = |byte| {
            let mut random = identity_generator(&[byte; ROOT_BYTES]);
            let mut start = [0; 128];
            random.generate(&mut start);
            start
        };
        assert_eq!(candidates(1), candidates(1));
        assert_ne!(candidates(1), candidates(2));
    }

    #[test]
    fn the_key_is_told_to_nobody() {
        let told = format!("{:?} {:?}", Identity(State::Found(test_key())), test_key());
        assert_eq!(told, "Identity SigningKey");
    }
}
