//! HMAC_DRBG with SHA-256 (NIST SP 800-90A Rev. 1, "HMAC_DRBG").
//!
//! No maintained crate offers one that can be seeded again.

use core::convert::Infallible;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::{TryCryptoRng, TryRng};
use sha2::Sha256;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The working state.
#[derive(Clone, ZeroizeOnDrop)]
pub struct HmacDrbg {
    /// The key, as the hash begins with it; it zeroes itself.
    #[zeroize(skip)]
    key: Hmac<Sha256>,
    value: [u8; 32],
}

impl HmacDrbg {
    /// Instantiates, from seed material: entropy input, nonce and personalization string, in this order.
    #[must_use]
    pub fn new(seed: &[&[u8]]) -> Self {
        let mut generator = Self { key: keyed(&[0; 32]), value: [1; 32] };
        generator.reseed(seed);
        generator
    }

    /// Mixes in more seed material.
    pub fn reseed(&mut self, seed: &[&[u8]]) {
        self.update(0, seed);
        if seed.iter().any(|part| !part.is_empty()) {
            self.update(1, seed);
        }
    }

    /// Fills `bytes`: one request, without additional input.
    pub fn generate(&mut self, bytes: &mut [u8]) {
        for block in bytes.chunks_mut(self.value.len()) {
            self.next_value();
            block.copy_from_slice(&self.value[..block.len()]);
        }
        self.update(0, &[]);
    }

    fn next_value(&mut self) {
        self.value = self.key.clone().chain_update(self.value).finalize().into_bytes().into();
    }

    fn update(&mut self, round: u8, provided: &[&[u8]]) {
        let mut hmac = self.key.clone().chain_update(self.value).chain_update([round]);
        provided.iter().for_each(|part| hmac.update(part));
        self.key = keyed(&Zeroizing::new(hmac.finalize().into_bytes().into()));
        self.next_value();
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    // A block of the hash is longer than the key, so it is the key followed by zeros.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    Hmac::new(&block.into())
}

impl core::fmt::Debug for HmacDrbg {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HmacDrbg")
    }
}

impl TryRng for HmacDrbg {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.generate(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.generate(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.generate(bytes);
        Ok(())
    }
}

impl TryCryptoRng for HmacDrbg {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    // Known answers: NIST CAVP, drbgvectors, HMAC_DRBG.rsp, [SHA-256], COUNT = 0; the second request counts.

    #[test]
    fn the_known_answer_without_reseeding() {
        let entropy = hex("ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488");
        let nonce = hex("659ba96c601dc69fc902940805ec0ca8");
        let mut drbg = HmacDrbg::new(&[&entropy, &nonce]);
        let mut bytes = [0; 128];
        drbg.generate(&mut bytes);
        drbg.generate(&mut bytes);
        let expected = hex("
            e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89
            d54fbb978a15b5c443c9ec21036d2460b6f73ebad0dc2aba6e624abf07745bc1
            07694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668
            961df86803482cb37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8");
        assert_eq!(bytes[..], expected);
    }

    #[test]
    fn the_known_answer_with_reseeding() {
        let entropy = hex("06032cd5eed33f39265f49ecb142c511da9aff2af71203bffaf34a9ca5bd9c0d");
        let nonce = hex("0e66f71edc43e42a45ad3c6fc6cdc4df");
        let again = hex("01920a4e669ed3a85ae8a33b35a74ad7fb2a6bb4cf395ce00334a9c9a5a5d552");
        let mut drbg = HmacDrbg::new(&[&entropy, &nonce]);
        let mut bytes = [0; 128];
        drbg.reseed(&[&again]);
        drbg.generate(&mut bytes);
        drbg.generate(&mut bytes);
        let expected = hex("
            76fc79fe9b50beccc991a11b5635783a83536add03c157fb30645e611c2898bb
            2b1bc215000209208cd506cb28da2a51bdb03826aaf2bd2335d576d519160842
            e7158ad0949d1a9ec3e66ea1b1a064b005de914eac2e9d4f2d72a8616a802254
            22918250ff66a41bd2f864a6a38cc5b6499dc43f7f2bd09e1e0f8f5885935124");
        assert_eq!(bytes[..], expected);
    }

    #[test]
    fn numbers_are_the_bytes_of_a_request_of_their_own_lowest_first() {
        let mut numbers = HmacDrbg::new(&[b"seed"]);
        let mut bytes = numbers.clone();
        let mut four = [0; 4];
        bytes.generate(&mut four);
        assert_eq!(numbers.try_next_u32(), Ok(u32::from_le_bytes(four)));
        let mut eight = [0; 8];
        bytes.generate(&mut eight);
        assert_eq!(numbers.try_next_u64(), Ok(u64::from_le_bytes(eight)));
        let mut filled = [0; 5];
        assert_eq!(numbers.try_fill_bytes(&mut filled), Ok(()));
        let mut five = [0; 5];
        bytes.generate(&mut five);
        assert_eq!(filled, five);
    }

    #[test]
    fn its_state_is_told_to_nobody() {
        assert_eq!(format!("{:?}", HmacDrbg::new(&[b"seed"])), "HmacDrbg");
    }
}
