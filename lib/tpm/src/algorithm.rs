//! Digests by the TCG's numbers (TCG Algorithm Registry, "TPM_ALG_ID").

use core::fmt;

/// Bytes of the longest digest.
pub const DIGEST_LIMIT: usize = 64;

/// A hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SM3-256.
    Sm3,
}

impl Algorithm {
    /// All that are known.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Sm3];

    /// The TCG's number.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Sha1 => 0x4,
            Self::Sha256 => 0xb,
            Self::Sha384 => 0xc,
            Self::Sha512 => 0xd,
            Self::Sm3 => 0x12,
        }
    }

    /// The algorithm of this number, where it is known.
    #[must_use]
    pub fn of_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// Bytes of a digest.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Sm3 => "SM3-256",
        })
    }
}

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; DIGEST_LIMIT],
}

impl Digest {
    /// The digest of these bytes; `None` where they are not as many as the algorithm's.
    #[must_use]
    pub fn new(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        let mut bytes = [0; DIGEST_LIMIT];
        let place = bytes.get_mut(..digest.len()).filter(|place| place.len() == algorithm.size())?;
        place.copy_from_slice(digest);
        Some(Self { algorithm, bytes })
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.size()).unwrap_or_default()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_its_algorithm_s_bytes() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::of_number(algorithm.number()), Some(algorithm));
            let bytes = vec![7; algorithm.size()];
            assert_eq!(Digest::new(algorithm, &bytes).unwrap().bytes(), bytes);
            assert!(Digest::new(algorithm, &bytes[1..]).is_none());
            assert!(Digest::new(algorithm, &[0; DIGEST_LIMIT + 1]).is_none());
        }
        assert_eq!(Algorithm::of_number(0x10), None);
        let digest = Digest::new(Algorithm::Sha1, &[0xab; 20]).unwrap();
        assert_eq!(format!("{digest:?}"), format!("SHA-1:{}", "ab".repeat(20)));
    }
}
