//! The hash functions that registers are kept in.

use arrayvec::ArrayVec;
use sha1::Sha1;
use sha2::Sha256;

/// Most bytes of a digest.
pub(crate) const DIGEST_BYTES_LIMIT: usize = 32;

/// A digest of either bank.
pub type Digest = ArrayVec<u8, DIGEST_BYTES_LIMIT>;

/// A set of registers, named by its hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// The original's.
    Sha1,
    /// Ours.
    Sha256,
}

impl Bank {
    /// Returns the number of bytes of a digest, and of a register.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Returns the digest of `parts`, one behind the other.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha1 => digest::<Sha1>(parts),
            Self::Sha256 => digest::<Sha256>(parts),
        }
    }
}

fn digest<H: sha2::Digest>(parts: &[&[u8]]) -> Digest {
    let mut hash = H::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    #[test]
    fn digests_are_as_fips_180_4_has_them() {
        let sha1 = hex("a9993e364706816aba3e25717850c26c9cd0d89d");
        let sha256 = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Bank::Sha1.hash(&[b"a", b"bc"])[..], sha1[..]);
        assert_eq!(Bank::Sha256.hash(&[b"ab", b"", b"c"])[..], sha256[..]);
    }

    #[test]
    fn the_length_is_told() {
        for bank in [Bank::Sha1, Bank::Sha256] {
            assert_eq!(bank.hash(&[]).len(), bank.digest_bytes());
        }
    }
}
