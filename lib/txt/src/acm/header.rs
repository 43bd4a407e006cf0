//! A module's header (SDM, "Authenticated Code Module": "Authenticated Code Module Format").

use super::AcmError;
use crate::bytes::{array, part, u16_at, u32_at};
use bitflags::bitflags;

/// Bytes before the key.
const FIXED_SIZE: usize = 128;
/// Module type of authenticated code for a chipset.
const CHIPSET: u16 = 2;
const INTEL: u32 = 0x8086;
/// GETSEC\[SENTER\] takes multiples of this.
const UNIT: u32 = 64;

/// The first part of a module, by which the processor authenticates and enters it. Sizes are in bytes here, where the
/// module itself counts words of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// 2: authenticated code for a chipset.
    pub module_type: u16,
    /// 1: can execute at reset.
    pub subtype: u16,
    /// Bytes of header, key and signature.
    pub length: u32,
    /// Format.
    pub version: HeaderVersion,
    /// The chipset it was made for, as its maker counts.
    pub chipset: u16,
    /// See there.
    pub flags: Flags,
    /// PCI vendor of who made it.
    pub vendor: u32,
    /// Day, as the decimal digits of year, month and day, each in four bits.
    pub date: u32,
    /// Bytes of the module.
    pub size: u32,
    /// Security version of TXT.
    pub txt_svn: u16,
    /// Security version of SGX.
    pub sgx_svn: u16,
    /// Control flags.
    pub code_control: u32,
    /// Limit of the descriptor table: its bytes, less one.
    pub gdt_limit: u32,
    /// Offset of the descriptor table.
    pub gdt_base: u32,
    /// Selector of the code segment; the data segment's comes behind it.
    pub selector: u32,
    /// Offset of the first instruction.
    pub entry_point: u32,
    /// Bytes of scratch memory behind the signature.
    pub scratch_size: u32,
    /// The public key's modulus, its lowest byte first.
    pub key: &'a [u8],
    /// The public key's exponent.
    pub exponent: u32,
    /// The signature, its lowest byte first.
    pub signature: &'a [u8],
}

/// Format of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderVersion {
    /// 0.x: RSA with an exponent of its own, SHA-256.
    V0,
    /// 3.x: RSA with the exponent 65537, SHA-384.
    V3,
    /// 4.x: as 3.x, and a hash-based signature behind.
    V4,
}

bitflags! {
    /// Flags of a header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// Made before production.
        const PRE_PRODUCTION = 1 << 14;
        /// Signed by the debug key: production chipsets refuse it.
        const DEBUG_SIGNED = 1 << 15;
        /// What is reserved.
        const _ = !0;
    }
}

impl<'a> Header<'a> {
    /// Reads the header at the start of `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, AcmError> {
        let fixed: [u8; FIXED_SIZE] = array(bytes, 0).ok_or(AcmError::TooShort)?;
        let half = |at| u16_at(&fixed, at).ok_or(AcmError::TooShort);
        let word = |at| u32_at(&fixed, at).ok_or(AcmError::TooShort);
        if half(0)? != CHIPSET {
            return Err(AcmError::NotOfChipset(half(0)?));
        }
        if word(16)? != INTEL {
            return Err(AcmError::ForeignVendor(word(16)?));
        }
        let version = HeaderVersion::of(word(8)?)?;
        let words = word(4)?;
        let wrong_length = AcmError::HeaderLength(words);
        let in_bytes = |words: u32| words.checked_mul(4);
        let length = in_bytes(words).ok_or(wrong_length)?;
        let key_size = in_bytes(word(120)?).ok_or(wrong_length)? as usize;
        let exponent_size = if version == HeaderVersion::V0 { 4 } else { 0 };
        let needed = key_size.checked_mul(2).and_then(|keys| keys.checked_add(FIXED_SIZE + exponent_size));
        if needed.is_none_or(|needed| needed > length as usize) {
            return Err(wrong_length);
        }
        let behind = FIXED_SIZE + key_size;
        let key = part(bytes, FIXED_SIZE, key_size).ok_or(AcmError::TooShort)?;
        let signature = part(bytes, behind + exponent_size, key_size).ok_or(AcmError::TooShort)?;
        let exponent = match version {
            HeaderVersion::V0 => u32_at(bytes, behind).ok_or(AcmError::TooShort)?,
            HeaderVersion::V3 | HeaderVersion::V4 => 0x1_0001,
        };
        Ok(Self {
            module_type: half(0)?,
            subtype: half(2)?,
            length,
            version,
            chipset: half(12)?,
            flags: Flags::from_bits_retain(half(14)?),
            vendor: word(16)?,
            date: word(20)?,
            size: in_bytes(word(24)?)
                .ok_or(AcmError::Truncated { module: u64::from(word(24)?) * 4, file: bytes.len() as u64 })?,
            txt_svn: half(28)?,
            sgx_svn: half(30)?,
            code_control: word(32)?,
            gdt_limit: word(40)?,
            gdt_base: word(44)?,
            selector: word(48)?,
            entry_point: word(52)?,
            scratch_size: in_bytes(word(124)?).ok_or(wrong_length)?,
            key,
            exponent,
            signature,
        })
    }

    /// Checks the sizes against the module's.
    pub(super) const fn check(&self, size: usize) -> Result<(), AcmError> {
        if !self.size.is_multiple_of(UNIT) || self.size == 0 {
            return Err(AcmError::UnevenSize(self.size));
        }
        if self.length as usize > size {
            return Err(AcmError::HeaderLength(self.length / 4));
        }
        Ok(())
    }

    /// Offset of the user area, which starts with the information table.
    pub(super) fn information_at(&self) -> Result<usize, AcmError> {
        let at = self.length.checked_add(self.scratch_size).ok_or(AcmError::NoInformation)?;
        Ok(at as usize)
    }
}

impl HeaderVersion {
    const fn of(version: u32) -> Result<Self, AcmError> {
        match version >> 16 {
            0 => Ok(Self::V0),
            3 => Ok(Self::V3),
            4 => Ok(Self::V4),
            _ => Err(AcmError::HeaderVersion(version)),
        }
    }
}
