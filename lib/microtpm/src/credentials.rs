//! What a PAL is beside its registers: whose it is, and whether it is one to be looked into.

use sha2::{Digest, Sha256};

/// Who signed a PAL, as what, where the signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signer {
    /// SHA-256 of the public key.
    pub digest: [u8; 32],
    /// Which of the signer's products.
    pub product: u32,
    /// The product's security version, which grows with each fault that was mended.
    pub version: u32,
}

impl Signer {
    /// The owner of `public_key`, who signed version `version` of `product`.
    #[must_use]
    pub fn new(public_key: &[u8; 32], product: u32, version: u32) -> Self {
        Self { digest: Sha256::digest(public_key).into(), product, version }
    }
}

/// What a PAL is beside its registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// It was registered to be debugged: it may print, and has no secrets of those that may not.
    pub is_debug: bool,
    /// Its signer.
    pub signer: Option<Signer>,
}
