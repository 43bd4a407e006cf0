//! A PAL's signed header: who made it, which product and version it is, and what it is registered as.
//!
//! All little-endian: "XMHF SIG", u32 form, u32 [flags](crate::flags), u32 product, u32 security version, u32 pages of
//! the stack, u32 zero; then register 0 of the SHA-256 bank as it is right after the registration (32 bytes), the
//! signer's public key (Ed25519, 32 bytes), and its signature over all that (64 bytes). The register says entry,
//! parameters, flags, and every section with its size and contents; the rest is what a registration needs to know
//! beforehand.

use crate::section::PAGES_LIMIT;

/// Bytes of a signed header.
pub const BYTES: usize = 160;
/// Bytes of it that are signed.
pub const SIGNED_BYTES: usize = 96;

const MAGIC: [u8; 8] = *b"XMHF SIG";
/// Version of this form.
const FORM: u32 = 1;

/// A signed header. Whether the signature is good is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    /// What the PAL is registered with.
    pub flags: u32,
    /// Which of the signer's products it is: what one seals for its signer, another does not open.
    pub product: u32,
    /// Its security version, which grows with each fault that was mended.
    pub version: u32,
    /// Pages of its stack.
    pub stack_pages: u32,
    /// Register 0 of the SHA-256 bank, as the registration makes it.
    pub measurement: [u8; 32],
    /// The signer's public key.
    pub public_key: [u8; 32],
    /// The signature over all of this.
    pub signature: [u8; 64],
}

impl SignedHeader {
    /// The header in `bytes`; `None` where it is none of this form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (numbers, rest) = rest.split_first_chunk::<24>()?;
        let (measurement, rest) = rest.split_first_chunk()?;
        let (public_key, rest) = rest.split_first_chunk()?;
        let signature = rest.first_chunk()?;
        let mut words = [0; 6];
        words
            .iter_mut()
            .zip(numbers.as_chunks().0)
            .for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
        let [form, flags, product, version, stack_pages, zero] = words;
        let is_sound = *head == MAGIC && form == FORM && zero == 0;
        let has_stack = stack_pages != 0 && u64::from(stack_pages) <= PAGES_LIMIT;
        (is_sound && has_stack).then_some(Self {
            flags,
            product,
            version,
            stack_pages,
            measurement: *measurement,
            public_key: *public_key,
            signature: *signature,
        })
    }

    /// Returns the header as it stands in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let words = [FORM, self.flags, self.product, self.version, self.stack_pages];
        for (place, word) in bytes[8..].chunks_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..64].copy_from_slice(&self.measurement);
        bytes[64..SIGNED_BYTES].copy_from_slice(&self.public_key);
        bytes[SIGNED_BYTES..].copy_from_slice(&self.signature);
        bytes
    }

    /// Returns what the signature is over.
    #[must_use]
    pub fn signed_bytes(&self) -> [u8; SIGNED_BYTES] {
        let mut signed = [0; SIGNED_BYTES];
        signed.copy_from_slice(&self.to_bytes()[..SIGNED_BYTES]);
        signed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SignedHeader {
        SignedHeader {
            flags: 5,
            product: 0x0102_0304,
            version: 6,
            stack_pages: 4,
            measurement: [7; 32],
            public_key: [8; 32],
            signature: [9; 64],
        }
    }

    #[test]
    fn a_header_has_the_documented_layout() {
        let bytes = header().to_bytes();
        assert_eq!(bytes[..16], *b"XMHF SIG\x01\0\0\0\x05\0\0\0");
        assert_eq!(bytes[16..32], [4, 3, 2, 1, 6, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((bytes[32], bytes[63], bytes[64], bytes[95], bytes[96], bytes[159]), (7, 7, 8, 8, 9, 9));
        assert_eq!(SignedHeader::from_bytes(&bytes), Some(header()));
        assert_eq!(header().signed_bytes()[..], bytes[..96]);
    }

    #[test]
    fn what_is_of_no_form_that_is_known_is_none() {
        // Magic, form, and the number that is zero.
        for place in (0..12).chain(28..32) {
            let mut bytes = header().to_bytes();
            bytes[place] ^= 0x40;
            assert_eq!(SignedHeader::from_bytes(&bytes), None, "byte {place}");
        }
        for stack_pages in [0, 4097, u32::MAX] {
            let bytes = SignedHeader { stack_pages, ..header() }.to_bytes();
            assert_eq!(SignedHeader::from_bytes(&bytes), None, "{stack_pages} pages");
        }
    }
}
