//! The microTPM that each PAL has: registers that say what it is, sealed data, quotes and random bytes.
//!
//! Everything here works on bytes and is the same on the host. What belongs to a PAL is [`PcrBanks`]; what the
//! machine has once are [`SealKeys`], an [`Identity`] and a [`Generator`], all three from one secret
//! ([`RootSecret`]). [`Header`] and [`SectionMeasurement`] tell what a PAL's first register will hold, so the host can
//! say what it has to be. Structures and numbers are those of the original TrustVisor, whose SHA-1 registers keep
//! their meaning; a SHA-256 bank, quotes of it, and blobs under AES-256-GCM stand beside them.
//!
//! Numbers in structures are little-endian, unless it says otherwise.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests may stop, and know their sizes"
    )
)]

extern crate alloc;

mod bank;
mod bytes;
mod credentials;
mod deprecated;
mod drbg;
mod ed25519;
mod error;
mod exponentiation;
mod generator;
mod header;
mod identity;
mod keys;
mod measurement;
mod noise;
mod pcr;
mod policy;
mod primes;
mod public_key;
mod quote;
mod quote_file;
mod seal;
mod selection;
mod signing_key;

pub use bank::{Bank, Digest};
pub use credentials::{Credentials, Signer};
pub use deprecated::{DEPRECATED_PCRS_LIMIT, DeprecatedSelection, deprecated_policy, quote_deprecated};
pub use drbg::HmacDrbg;
pub use ed25519::{ED25519_KEY_BYTES, ED25519_SIGNATURE_BYTES, Ed25519Verification};
pub use error::Error;
pub use generator::{Entropy, Generator, RANDOM_BYTES_LIMIT};
pub use header::{Header, HeaderMeasurement, HeaderSection};
pub use identity::{Identity, Signature};
pub use keys::{PerBootRoot, ROOT_BYTES, RootSecret, SealKeys};
pub use measurement::{SectionDigests, SectionMeasurement};
pub use noise::{Conditioned, Noise};
pub use pcr::{PCRS, PcrBanks, PcrIndex};
pub use policy::{PCR_INFO_BYTES_LIMIT, PcrInfo, Policy};
pub use public_key::{KeyBytes, MODULUS_BYTES, PUBLIC_KEY_BYTES, PublicKey};
pub use quote::{NONCE_BYTES_LIMIT, Quote, QuoteInfo, quote};
pub use quote_file::QuoteFile;
pub use seal::{BLOB_BYTES_LIMIT, SEAL_BYTES_LIMIT, Unsealed, seal, seal_to_signer, unseal};
pub use selection::{Composite, SELECTION_BYTES, Selection};
