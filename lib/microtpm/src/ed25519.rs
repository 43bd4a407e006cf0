//! Verification of an Ed25519 signature (RFC 8032, "Verify"), a part at a time.
//!
//! The double-scalar multiplication at its heart takes longer than a processor may go without interrupts; so it goes by
//! bits of both scalars, some in each step. Everything here is public, and takes time by its value.

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use sha2::{Digest, Sha512};

/// Bytes of a public key.
pub const ED25519_KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub const ED25519_SIGNATURE_BYTES: usize = 64;

/// Bits of a scalar.
const BITS: usize = 256;
/// Bits that a step takes: at most as many doublings and additions.
const STEP_BITS: usize = 8;

/// A verification under way.
#[derive(Clone, Debug)]
pub struct Ed25519Verification {
    /// By bits of the signature's scalar (1) and of the hash (2): the base point, the key's inverse, their sum.
    table: [EdwardsPoint; 3],
    scalar: [u8; 32],
    hash: [u8; 32],
    sum: EdwardsPoint,
    /// What the sum has to come to.
    commitment: [u8; 32],
    /// Bits that are left.
    left: usize,
}

impl Ed25519Verification {
    /// Begins with `signature` by `key` over `message`; `None` where that can be no signature at all: the key is no
    /// point of the curve or one of the few that sign anything, or the scalar is not below the group's order.
    // Of this crate's size, not of its caller's speed.
    #[inline(never)]
    #[must_use]
    pub fn new(
        key: &[u8; ED25519_KEY_BYTES],
        message: &[u8],
        signature: &[u8; ED25519_SIGNATURE_BYTES],
    ) -> Option<Self> {
        let (commitment, scalar) = signature.split_first_chunk::<32>()?;
        let scalar = Scalar::from_canonical_bytes(scalar.try_into().ok()?).into_option()?;
        let point = CompressedEdwardsY(*key).decompress().filter(|point| !point.is_small_order())?;
        let hash = Sha512::new().chain_update(commitment).chain_update(key).chain_update(message).finalize();
        let inverse = -point;
        Some(Self {
            table: [ED25519_BASEPOINT_POINT, inverse, ED25519_BASEPOINT_POINT + inverse],
            scalar: scalar.to_bytes(),
            hash: Scalar::from_bytes_mod_order_wide(&hash.into()).to_bytes(),
            sum: EdwardsPoint::identity(),
            commitment: *commitment,
            left: BITS,
        })
    }

    /// Does a step; says whether the signature is good where it was the last one.
    #[inline(never)]
    pub fn step(&mut self) -> Option<bool> {
        for _ in 0..STEP_BITS.min(self.left) {
            self.left -= 1;
            self.sum += self.sum;
            let index =
                usize::from(bit(&self.scalar, self.left)) + 2 * usize::from(bit(&self.hash, self.left));
            if let Some(point) = index.checked_sub(1).and_then(|index| self.table.get(index)) {
                self.sum += point;
            }
        }
        (self.left == 0)
            .then(|| self.sum.compress().to_bytes() == self.commitment && !self.sum.is_small_order())
    }
}

fn bit(bytes: &[u8; 32], index: usize) -> bool {
    bytes[index / 8] >> (index % 8) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;
    use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
    use proptest::prelude::*;

    fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let verification = Ed25519Verification::new(key, message, signature);
        verification.is_some_and(|mut verification| {
            let mut steps = 0;
            loop {
                steps += 1;
                if let Some(is_good) = verification.step() {
                    assert_eq!(steps, BITS / STEP_BITS);
                    return is_good;
                }
            }
        })
    }

    /// What the crate that many use makes of it.
    fn peer_verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(key);
        key.is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    #[test]
    fn a_signature_of_rfc_8032_is_good() {
        // "Test Vectors for Ed25519", TEST 3.
        let key = hex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
        let signature = hex(
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
             4a7c15e9716ed28dc027beceea1ec40a",
        );
        assert!(verifies(&key.try_into().unwrap(), &[0xaf, 0x82], &signature.try_into().unwrap()));
    }

    #[test]
    fn keys_that_sign_anything_are_refused() {
        // RFC 8032's group has eight points of small order; the neutral one and two encodings of others.
        let signature = [&[1][..], &[0; 63]].concat().try_into().unwrap();
        for (first, last) in [(1, 0), (1, 0x80), (0, 0), (0, 0x80)] {
            let mut key = [0; 32];
            (key[0], key[31]) = (first, last);
            assert!(!verifies(&key, b"anything", &signature), "{first} {last}");
        }
    }

    #[test]
    fn a_scalar_that_wraps_is_refused() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let mut signature = key.sign(b"message").to_bytes();
        // The group's order added to the scalar gives the same point (RFC 8032, "Verify", step 1).
        let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (byte, more) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(!verifies(&key.verifying_key().to_bytes(), b"message", &signature));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_agrees_with_another_verifier(
            secret: [u8; 32],
            message in proptest::collection::vec(any::<u8>(), 0..200),
            place in 0_usize..128,
            change: u8,
        ) {
            let key = SigningKey::from_bytes(&secret);
            let mut public = key.verifying_key().to_bytes();
            let mut signature = key.sign(&message).to_bytes();
            prop_assert!(verifies(&public, &message, &signature));
            match place {
                0..64 => signature[place] ^= change,
                64..96 => public[place - 64] ^= change,
                _ => {}
            }
            let is_good = peer_verifies(&public, &message, &signature);
            prop_assert_eq!(verifies(&public, &message, &signature), is_good);
            prop_assert_eq!(is_good, change == 0 || place >= 96);
        }

        #[test]
        fn anything_is_refused_without_a_panic(key: [u8; 32], signature: [[u8; 32]; 2], message: [u8; 8]) {
            let signature = signature.concat().try_into().unwrap();
            prop_assert_eq!(verifies(&key, &message, &signature), peer_verifies(&key, &message, &signature));
        }
    }
}
