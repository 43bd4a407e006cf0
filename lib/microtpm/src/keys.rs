//! The machine's secret, and the keys that come from it.

use crate::Error;
use crate::drbg::HmacDrbg;
use crate::generator::Entropy;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Bytes of the root secret.
pub const ROOT_BYTES: usize = 32;

/// Where the machine's secret comes from: what it seals, the same secret opens, and the key of its quotes
/// follows from it.
pub trait RootSecret {
    /// Returns the secret.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientEntropy`]: there is none.
    fn root_secret(&mut self) -> Result<Zeroizing<[u8; ROOT_BYTES]>, Error>;
}

/// A secret that is random in each boot: what was sealed is lost with the next one.
#[derive(Debug)]
pub struct PerBootRoot<E>(pub E);

impl<E: Entropy> RootSecret for PerBootRoot<E> {
    fn root_secret(&mut self) -> Result<Zeroizing<[u8; ROOT_BYTES]>, Error> {
        let mut secret = Zeroizing::new([0; ROOT_BYTES]);
        self.0.fill(&mut secret[..])?;
        Ok(secret)
    }
}

/// Keys of sealed data. Each is HKDF-Expand of the root secret (RFC 5869, SHA-256, no salt) with a label.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SealKeys {
    /// AES-256-GCM.
    pub(crate) gcm: [u8; 32],
    /// AES-128-CBC, of the original's blobs.
    pub(crate) cbc: [u8; 16],
    /// HMAC-SHA1, of the original's blobs.
    pub(crate) mac: [u8; 20],
}

impl SealKeys {
    /// The keys that follow from `root`.
    #[must_use]
    pub fn new(root: &[u8; ROOT_BYTES]) -> Self {
        let mut keys = Self { gcm: [0; 32], cbc: [0; 16], mac: [0; 20] };
        expand(root, b"xmhf microtpm seal aes-256-gcm", &mut keys.gcm);
        expand(root, b"xmhf microtpm seal aes-128-cbc", &mut keys.cbc);
        expand(root, b"xmhf microtpm seal hmac-sha1", &mut keys.mac);
        keys
    }
}

impl core::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SealKeys")
    }
}

/// The generator that the identity key is drawn from: the same key from the same secret.
pub(crate) fn identity_generator(root: &[u8; ROOT_BYTES]) -> HmacDrbg {
    let mut seed = Zeroizing::new([0; 48]);
    expand(root, b"xmhf microtpm identity rsa-2048", &mut seed[..]);
    HmacDrbg::new(&[&seed[..]])
}

fn expand(root: &[u8; ROOT_BYTES], label: &[u8], key: &mut [u8]) {
    let expanded = Hkdf::<Sha256>::new(None, root).expand(label, key);
    debug_assert!(expanded.is_ok(), "no key is longer than 255 digests");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    /// Entropy that a test gives.
    struct Given(Result<u8, Error>);

    impl Entropy for Given {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            bytes.fill(self.0?);
            Ok(())
        }
    }

    #[test]
    fn keys_are_as_hkdf_has_them() {
        let keys = SealKeys::new(&[0x5a; 32]);
        // From HKDF of Python's cryptography.
        assert_eq!(keys.gcm[..], hex("8a386f1fea8cce2adfdefb7219b5f79ff1195ca1b792508d22ad87dc7161c0cb"));
        assert_eq!(keys.cbc[..], hex("bd0c4470c43b1d80cb1b48a86134ce0a"));
        assert_eq!(keys.mac[..], hex("fee5c4400a2bfc109f2b41b1c19bf7f773a573b7"));
    }

    #[test]
    fn a_boots_secret_is_its_entropy_or_none() {
        assert_eq!(PerBootRoot(Given(Ok(3))).root_secret().unwrap()[..], [3; 32]);
        let failed = PerBootRoot(Given(Err(Error::InsufficientEntropy))).root_secret();
        assert_eq!(failed.err(), Some(Error::InsufficientEntropy));
    }

    #[test]
    fn keys_do_not_show_in_a_log() {
        assert_eq!(format!("{:?}", SealKeys::new(&[1; 32])), "SealKeys");
    }
}
