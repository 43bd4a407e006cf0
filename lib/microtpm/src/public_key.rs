//! The key that quotes are checked with: 2048 bits of modulus, exponent 65537.

use crate::Error;
use crate::bank::Bank;
use arrayvec::ArrayVec;
use crypto_bigint::BoxedUint;
use rsa::Pkcs1v15Sign;
use sha1::Sha1;
use sha2::Sha256;

/// Bytes of the modulus, and of a signature.
pub const MODULUS_BYTES: usize = 256;
/// Bytes of the key's DER encoding.
pub const PUBLIC_KEY_BYTES: usize = DER_HEAD.len() + MODULUS_BYTES + DER_TAIL.len();

/// The exponent.
pub(crate) const EXPONENT: u64 = 65537;

/// RSAPublicKey (RFC 8017, "RSA Public Key Syntax") before a modulus of 2048 bits: SEQUENCE, INTEGER, and the
/// zero that keeps it positive.
const DER_HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
/// What follows it: INTEGER 65537.
const DER_TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// A public key, as programs get it.
pub type KeyBytes = ArrayVec<u8, PUBLIC_KEY_BYTES>;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The modulus, its most significant byte first.
    pub modulus: [u8; MODULUS_BYTES],
}

impl PublicKey {
    /// Returns the key in `bytes`: DER as [`Self::to_der`] has it, or the bare modulus.
    ///
    /// # Errors
    ///
    /// [`Error::BadParameter`]: neither.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let modulus = bytes.strip_prefix(&DER_HEAD).and_then(|rest| rest.strip_suffix(&DER_TAIL));
        let modulus = modulus.unwrap_or(bytes).try_into().map_err(|_| Error::BadParameter)?;
        Ok(Self { modulus })
    }

    /// Returns the key as PKCS #1 encodes it.
    #[must_use]
    pub fn to_der(&self) -> KeyBytes {
        DER_HEAD.iter().chain(&self.modulus).chain(&DER_TAIL).copied().collect()
    }

    /// Returns what ID_GETPUB gives to a program with room for `room` bytes: DER, as the original's later versions, or
    /// the bare modulus where only that fits, as its earlier ones.
    ///
    /// # Errors
    ///
    /// Neither fits: the bytes needed.
    pub fn for_room(&self, room: usize) -> Result<KeyBytes, usize> {
        match room {
            PUBLIC_KEY_BYTES.. => Ok(self.to_der()),
            MODULUS_BYTES.. => Ok(self.modulus.into_iter().collect()),
            _ => Err(PUBLIC_KEY_BYTES),
        }
    }

    /// Returns whether `signature` is this key's of `message`, by PKCS #1 v1.5 with the hash of `bank`.
    #[must_use]
    pub fn verifies(&self, bank: Bank, message: &[u8], signature: &[u8]) -> bool {
        let padding = match bank {
            Bank::Sha1 => Pkcs1v15Sign::new::<Sha1>(),
            Bank::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        };
        let modulus = BoxedUint::from_be_slice_vartime(&self.modulus);
        let Ok(key) = rsa::PublicKey::new(modulus, BoxedUint::from(EXPONENT)) else { return false };
        key.verify(padding, &bank.hash(&[message]), signature).is_ok()
    }
}

/// What is signed of `digest` by `bank`: 0, 1, bytes 0xff, 0, the hash's name, the digest (RFC 8017,
/// "EMSA-PKCS1-v1_5").
pub(crate) fn encoded(bank: Bank, digest: &[u8]) -> [u8; MODULUS_BYTES] {
    let mut bytes = [0xff; MODULUS_BYTES];
    bytes[..2].copy_from_slice(&[0, 1]);
    let tail = digest.iter().rev().chain(hash_name(bank).iter().rev()).chain(&[0]);
    bytes.iter_mut().rev().zip(tail).for_each(|(to, from)| *to = *from);
    bytes
}

/// DER of the DigestInfo of a hash, without the digest.
const fn hash_name(bank: Bank) -> &'static [u8] {
    match bank {
        Bank::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
        Bank::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    // A key and its signatures of "message", by Python's cryptography.
    const MODULUS: &str = "
        dd340f1b23074cf01af045a35002f5e1212a673c5ec2fa938fa5e52a10cc0f029344524e2a38626179e612309295ad27
        899d5a54235f4a38fec6bff698523ea2cd9e8304fb73511752d69c812d371f5ca82f99211e62798bbc56060bf638ad82
        4a4868031475ecbf8b2e8b1c79c9c988283b2740a94983e9ae52b017fde582eb7c7b317d33e6b4ada640c043b803589b
        cf8a8b21b1616cb316c3be1f7bd0aa742c7ae01ebb34bc5538089a6a2824c752d4925a205a838394aa8083655d0962b5
        2cbf671dc9b659a3ab8fed4f34ef37031fc65bee1b4462af4fb2de4e221c264ff25f801d1a06e59dde90e9ff41d0ec44
        8c8b4de9f63649d8a5bec11aa7b4337f";
    const SHA1_SIGNATURE: &str = "
        b41afacb951931b0c63c87ede7a13df568b587263d73568fdc31a753bb1dafecb222be4564c35802aeedd1ac91b73828
        1f68b2540dea60c26ff0a5850f919b00cb54dfe9320bfa75ce488264d630fe0aaffd25453bd7594dda6ec10f343fece1
        00886d8fccc291ea7e75e21dc21c199c754086c5c4da4ad4f54a3350789d6ff32876017a6c3efde85814d8b1b5fa63cc
        6b25e5f11afa025e39bbbca4c60d192316c829db1d42265f054804f627ee3de03e0f0b46fdb3dcc206088182f83babbd
        9d30f77df8fb947430d2f6d5d7a746f332a4e41fc98dbf39d9366c1517a6687f1e1a7a16bbebd5829f3588c14b324ad3
        5bf27a10d750338b0bdc6992789c32f6";
    const SHA256_SIGNATURE: &str = "
        7e7980886ba2cb46aa151585952880ebfe299beb510f6cdd47c570f221c377e70f15f60e877b40c0ee166dbf8ed04e1b
        5d0c1fff2823ac128dad604633e3ac5ca7919925fc83ec7a72a1c52fe1226f72798e7a8416183d22c51ef12e38ae5fda
        92a3f5021b77e7db5b259ffc704efb3a7da64c759a131fcb237a657a8706677021553bc5c96ab171b00a4d8a0757e2b9
        1a2e2cdd3cbd88209be00fb3a68fe741c3d6e3d55e900eb20f790f33643ad2ae1c7311d7baa52acd5207bc4d216d6ef0
        ac8abbd368e3a906deaf27bd4217899ab46768e3a55bf3e08b356479ba22cd1ea68af6cfa2792de34120d532f6957d89
        786102b4b64263feecbd3d167ca48395";

    #[test]
    fn signatures_that_were_made_elsewhere_verify() {
        let key = PublicKey::from_bytes(&hex(MODULUS)).unwrap();
        for (bank, signature) in [(Bank::Sha1, SHA1_SIGNATURE), (Bank::Sha256, SHA256_SIGNATURE)] {
            assert!(key.verifies(bank, b"message", &hex(signature)), "{bank:?}");
            assert!(!key.verifies(bank, b"Message", &hex(signature)), "{bank:?}");
        }
    }

    #[test]
    fn a_key_reads_as_it_was_written() {
        let key = PublicKey { modulus: [0xa5; MODULUS_BYTES] };
        assert_eq!(PublicKey::from_bytes(&key.to_der()), Ok(key.clone()));
        assert_eq!(PublicKey::from_bytes(&key.modulus), Ok(key.clone()));
        assert_eq!(PublicKey::from_bytes(&key.to_der()[1..]), Err(Error::BadParameter));
        assert_eq!(PublicKey::from_bytes(&[]), Err(Error::BadParameter));
    }

    #[test]
    fn a_program_gets_what_it_has_room_for() {
        let key = PublicKey { modulus: [0xa5; MODULUS_BYTES] };
        assert_eq!(key.for_room(1000), Ok(key.to_der()));
        assert_eq!(key.for_room(270), Ok(key.to_der()));
        assert_eq!(key.for_room(269), Ok(key.modulus.into_iter().collect()));
        assert_eq!(key.for_room(256), Ok(key.modulus.into_iter().collect()));
        assert_eq!(key.for_room(255), Err(270));
        assert_eq!(key.for_room(0), Err(270));
    }
}
