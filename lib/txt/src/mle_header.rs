//! The header of a measured launched environment, by which SINIT finds its entry (TXT guide, "MLE Header Format").

use crate::bytes::{array, put, u32_at};
use crate::capabilities::Capabilities;
use core::fmt;

/// 9082AC5A-476F-74A7-5C0F-55A2CB51B642, as it stands in memory.
pub const UUID: [u8; 16] =
    [0x5a, 0xac, 0x82, 0x90, 0x6f, 0x47, 0xa7, 0x74, 0x0f, 0x5c, 0x55, 0xa2, 0xcb, 0x51, 0xb6, 0x42];
/// Bytes of a header of version 2.1 and later, which names the command line.
pub const SIZE: usize = 52;
/// Bytes of a header of version 2.0.
const SIZE_WITHOUT_COMMAND_LINE: usize = 44;
/// First version that names the command line.
const WITH_COMMAND_LINE: u32 = 0x2_0001;
/// First version that this crate reads.
const OLDEST: u32 = 0x2_0000;

/// A header. Offsets are from the start of the MLE as its page tables map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MleHeader {
    /// Version: major number above bit 16, minor below.
    pub version: u32,
    /// Offset of the first instruction.
    pub entry_point: u32,
    /// Offset of the first page that is mapped.
    pub first_valid_page: u32,
    /// Offset of the first byte that is measured.
    pub start: u32,
    /// Offset of the first byte behind what is measured.
    pub end: u32,
    /// What the MLE can do.
    pub capabilities: Capabilities,
    /// Offsets of the command line's first byte and the one behind its last, from version 2.1 on; both 0 for none.
    pub command_line: Option<(u32, u32)>,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MleHeaderError {
    /// The bytes end before it.
    TooShort,
    /// It does not start with [`UUID`].
    NoUuid,
    /// Older than 2.0.
    Version(u32),
    /// Its length is less than its version's.
    Length(u32),
    /// Start and end are not in order.
    Range {
        /// Offset of the first byte.
        start: u32,
        /// Offset behind the last.
        end: u32,
    },
    /// The entry point lies outside of what is measured.
    EntryPoint(u32),
    /// The command line's offsets are not in order, or lie outside of what is measured.
    CommandLine,
}

impl MleHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`MleHeaderError`]: the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, MleHeaderError> {
        let uuid: [u8; 16] = array(bytes, 0).ok_or(MleHeaderError::TooShort)?;
        if uuid != UUID {
            return Err(MleHeaderError::NoUuid);
        }
        let word = |at| u32_at(bytes, at).ok_or(MleHeaderError::TooShort);
        let (length, version) = (word(16)?, word(20)?);
        if version < OLDEST {
            return Err(MleHeaderError::Version(version));
        }
        let has_command_line = version >= WITH_COMMAND_LINE;
        if (length as usize) < if has_command_line { SIZE } else { SIZE_WITHOUT_COMMAND_LINE } {
            return Err(MleHeaderError::Length(length));
        }
        let header = Self {
            version,
            entry_point: word(24)?,
            first_valid_page: word(28)?,
            start: word(32)?,
            end: word(36)?,
            capabilities: Capabilities::from_bits_retain(word(40)?),
            command_line: if has_command_line { Some((word(44)?, word(48)?)) } else { None },
        };
        header.check()?;
        Ok(header)
    }

    /// Finds the header in a file, where it stands at a multiple of 16 bytes; gives its offset too.
    ///
    /// # Errors
    ///
    /// As [`MleHeader::parse`]; [`MleHeaderError::NoUuid`] where there is none.
    pub fn find(file: &[u8]) -> Result<(usize, Self), MleHeaderError> {
        let mut places = file.chunks_exact(16).enumerate();
        let (index, _) = places.find(|(_, bytes)| *bytes == UUID).ok_or(MleHeaderError::NoUuid)?;
        let at = index * 16;
        Self::parse(file.get(at..).unwrap_or_default()).map(|header| (at, header))
    }

    /// Writes the header to the start of `bytes`; gives how many it has.
    ///
    /// # Errors
    ///
    /// [`MleHeaderError::TooShort`] where `bytes` cannot hold it, else as [`MleHeader::parse`]: what cannot be read back is
    /// not written.
    pub fn write(&self, bytes: &mut [u8]) -> Result<usize, MleHeaderError> {
        if self.version < OLDEST || self.command_line.is_some() != (self.version >= WITH_COMMAND_LINE) {
            return Err(MleHeaderError::Version(self.version));
        }
        self.check()?;
        let (size, length) =
            if self.command_line.is_some() { (SIZE, 52_u32) } else { (SIZE_WITHOUT_COMMAND_LINE, 44) };
        let bytes = bytes.get_mut(..size).ok_or(MleHeaderError::TooShort)?;
        let Self { version, entry_point, first_valid_page, start, end, capabilities, command_line } = *self;
        let words = [length, version, entry_point, first_valid_page, start, end, capabilities.bits()];
        let line = command_line.map_or([None; 2], |(from, to)| [Some(from), Some(to)]);
        put(bytes, 0, &UUID).ok_or(MleHeaderError::TooShort)?;
        for (index, word) in words.into_iter().chain(line.into_iter().flatten()).enumerate() {
            put(bytes, UUID.len() + 4 * index, &word.to_le_bytes()).ok_or(MleHeaderError::TooShort)?;
        }
        Ok(size)
    }

    fn check(&self) -> Result<(), MleHeaderError> {
        let Self { start, end, entry_point, command_line, .. } = *self;
        if start >= end {
            return Err(MleHeaderError::Range { start, end });
        }
        if !(start..end).contains(&entry_point) {
            return Err(MleHeaderError::EntryPoint(entry_point));
        }
        match command_line {
            Some((from, to)) if from > to || to > end || (from < start && to != 0) => {
                Err(MleHeaderError::CommandLine)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for MleHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("too few bytes for an MLE header"),
            Self::NoUuid => f.write_str("no MLE header"),
            Self::Version(version) => {
                write!(f, "MLE header of version {}.{}", version >> 16, version & 0xffff)
            }
            Self::Length(length) => write!(f, "MLE header of {length} bytes"),
            Self::Range { start, end } => write!(f, "the MLE ends at {end:#x} and starts at {start:#x}"),
            Self::EntryPoint(at) => write!(f, "the MLE's entry point {at:#x} is not measured"),
            Self::CommandLine => f.write_str("the MLE's command line is not measured"),
        }
    }
}

impl core::error::Error for MleHeaderError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: MleHeader = MleHeader {
        version: 0x2_0003,
        entry_point: 0x80,
        first_valid_page: 0,
        start: 0,
        end: 0x1_0000,
        capabilities: Capabilities::WAKES,
        command_line: Some((0, 0)),
    };

    fn written(header: &MleHeader) -> Result<Vec<u8>, MleHeaderError> {
        let mut bytes = vec![0xee; 64];
        let size = header.write(&mut bytes)?;
        bytes.truncate(size);
        Ok(bytes)
    }

    #[test]
    fn a_header_is_found_where_it_stands() {
        let mut file = vec![0; 0x230];
        file.splice(0x120.., written(&HEADER).unwrap());
        assert_eq!(MleHeader::find(&file), Ok((0x120, HEADER)));
        assert_eq!(MleHeader::find(&file[1..]), Err(MleHeaderError::NoUuid));
        assert_eq!(MleHeader::find(&file[..0x130]), Err(MleHeaderError::TooShort));
        assert_eq!(MleHeader::find(&[]), Err(MleHeaderError::NoUuid));
    }

    #[test]
    fn what_is_wrong_with_a_header_is_named() {
        let refused = |at: usize, value: u32| {
            let mut bytes = written(&HEADER).unwrap();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            MleHeader::parse(&bytes).unwrap_err()
        };
        assert_eq!(refused(0, 0), MleHeaderError::NoUuid);
        assert_eq!(refused(16, 51), MleHeaderError::Length(51));
        assert_eq!(refused(20, 0x1_ffff), MleHeaderError::Version(0x1_ffff));
        assert_eq!(refused(24, 0x1_0000), MleHeaderError::EntryPoint(0x1_0000));
        assert_eq!(refused(36, 0), MleHeaderError::Range { start: 0, end: 0 });
        assert_eq!(refused(44, 1), MleHeaderError::CommandLine);
        assert_eq!(refused(48, 0x1_0001), MleHeaderError::CommandLine);
        assert_eq!(MleHeader::parse(&written(&HEADER).unwrap()[..51]), Err(MleHeaderError::TooShort));
        assert_eq!(HEADER.write(&mut [0; 51]), Err(MleHeaderError::TooShort));
        let old = MleHeader { version: 0x2_0000, ..HEADER };
        assert_eq!(written(&old), Err(MleHeaderError::Version(0x2_0000)));
        let old = MleHeader { command_line: None, ..old };
        assert_eq!(MleHeader::parse(&written(&old).unwrap()), Ok(old));
    }

    #[test]
    fn a_command_line_is_measured_or_there_is_none() {
        let at = |from, to| {
            let header = MleHeader { start: 0x40, end: 0x1000, command_line: Some((from, to)), ..HEADER };
            written(&header).map(drop)
        };
        for (from, to) in [(0, 0), (0x40, 0x40), (0x40, 0x1000), (0x1000, 0x1000)] {
            assert_eq!(at(from, to), Ok(()), "{from:#x} {to:#x}");
        }
        for (from, to) in [(0, 1), (0x3f, 0x80), (0x41, 0x40), (0x40, 0x1001), (0x1001, 0x1001)] {
            assert_eq!(at(from, to), Err(MleHeaderError::CommandLine), "{from:#x} {to:#x}");
        }
    }

    #[test]
    fn each_error_says_what_is_wrong() {
        for (error, text) in [
            (MleHeaderError::TooShort, "too few bytes for an MLE header"),
            (MleHeaderError::NoUuid, "no MLE header"),
            (MleHeaderError::Version(0x2_0004), "MLE header of version 2.4"),
            (MleHeaderError::Length(51), "MLE header of 51 bytes"),
            (MleHeaderError::Range { start: 2, end: 1 }, "the MLE ends at 0x1 and starts at 0x2"),
            (MleHeaderError::EntryPoint(9), "the MLE's entry point 0x9 is not measured"),
            (MleHeaderError::CommandLine, "the MLE's command line is not measured"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn a_header_that_is_written_is_read(
            version in 0x1_fffe_u32..0x2_0005,
            entry_point in 0_u32..64,
            first_valid_page: u32,
            start in 0_u32..64,
            end in 0_u32..64,
            capabilities: u32,
            line in proptest::option::of((0_u32..70, 0_u32..70)),
        ) {
            let capabilities = Capabilities::from_bits_retain(capabilities);
            let header = MleHeader { version, entry_point, first_valid_page, start, end, capabilities, command_line: line };
            if let Ok(bytes) = written(&header) {
                prop_assert_eq!(MleHeader::parse(&bytes), Ok(header));
                prop_assert!(start < end && (start..end).contains(&entry_point));
            }
        }

        #[test]
        fn any_bytes_are_no_fault(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut header = UUID.to_vec();
            header.extend(&bytes);
            let _ = (MleHeader::parse(&bytes), MleHeader::parse(&header), MleHeader::find(&header));
        }
    }
}
