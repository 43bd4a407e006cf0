//! A PAL's file: an ELF executable, linked to fixed addresses, whose segments are the PAL's sections.
//!
//! What is registered is what is in the file, at the addresses in the file, so that the measurement of a PAL
//! hangs on its file alone.

use crate::PAGE_SIZE;
use core::fmt;
use elf::ElfBytes;
use elf::abi::{EM_386, EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::AnyEndian;
use elf::file::Class;
use trustvisor::parameter::{HEADER_BYTES, ParameterRecord, ParameterType, WordSize};
use trustvisor::section::SectionType;
use trustvisor::signature::{self, SignedHeader};

/// Most segments of a file.
pub const SEGMENTS_LIMIT: usize = 8;
/// Pages of stack of a PAL that nobody signed.
pub const DEFAULT_STACK_PAGES: u32 = 4;

/// A PAL's file, understood.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Address of its function.
    pub entry: u64,
    /// Size of its words.
    pub word_size: WordSize,
    /// What its signer says, behind the rest of the file.
    pub signed: Option<SignedHeader>,
    segments: [Option<Segment<'a>>; SEGMENTS_LIMIT],
}

/// Pages of a PAL that the file has content for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Code or data.
    pub kind: SectionType,
    /// Address of its first page.
    pub start: u64,
    /// Number of its pages.
    pub pages: u32,
    /// Its first bytes; those behind are zero.
    pub bytes: &'a [u8],
}

/// What is wrong with a PAL's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// No ELF executable for this family of processors, or a damaged one.
    NotExecutable,
    /// A segment is not aligned to a page, executable and writable at once, or behind one that is above it.
    Segment {
        /// Its address.
        address: u64,
    },
    /// There are more segments than [`SEGMENTS_LIMIT`], or none.
    SegmentCount,
    /// The entry is in no executable segment.
    Entry,
    /// The file is for programs of the other word size.
    WordSize,
}

impl<'a> Image<'a> {
    /// Understands a file of either word size.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(|_| ImageError::NotExecutable)?;
        let word_size = match (elf.ehdr.class, elf.ehdr.e_machine) {
            (Class::ELF64, EM_X86_64) => WordSize::Bits64,
            (Class::ELF32, EM_386) => WordSize::Bits32,
            _ => return Err(ImageError::NotExecutable),
        };
        let headers =
            elf.segments().filter(|_| elf.ehdr.e_type == ET_EXEC).ok_or(ImageError::NotExecutable)?;
        let mut segments = [None; SEGMENTS_LIMIT];
        let mut end = PAGE_SIZE as u64;
        let loaded = headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0);
        for (index, header) in loaded.enumerate() {
            let wrong = ImageError::Segment { address: header.p_vaddr };
            let bytes = elf.segment_data(&header).map_err(|_| wrong)?;
            let segment = Segment::new(header.p_flags, header.p_vaddr, header.p_memsz, bytes);
            let segment = segment.filter(|segment| segment.start >= end).ok_or(wrong)?;
            end = segment.end();
            *segments.get_mut(index).ok_or(ImageError::SegmentCount)? = Some(segment);
        }
        let signed = file.last_chunk::<{ signature::BYTES }>().and_then(SignedHeader::from_bytes);
        let image = Self { entry: elf.ehdr.e_entry, word_size, signed, segments };
        let is_entry = |segment: Segment<'_>| {
            segment.kind == SectionType::Code && (segment.start..segment.end()).contains(&image.entry)
        };
        match image.segments().next() {
            None => Err(ImageError::SegmentCount),
            Some(_) if image.segments().any(is_entry) => Ok(image),
            Some(_) => Err(ImageError::Entry),
        }
    }

    /// The segments in the order of their addresses, which is that of the section list.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        self.segments.into_iter().flatten()
    }

    /// Address of the first page.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.segments().next().map_or(0, |segment| segment.start)
    }

    /// Pages of its stack.
    #[must_use]
    pub fn stack_pages(&self) -> u32 {
        self.signed.map_or(DEFAULT_STACK_PAGES, |header| header.stack_pages)
    }

    /// Where the pages end that the file has content for.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments().last().map_or(0, |segment| segment.end())
    }
}

impl<'a> Segment<'a> {
    fn new(flags: u32, start: u64, size: u64, bytes: &'a [u8]) -> Option<Self> {
        let kind = match flags & (PF_W | PF_X) {
            PF_W => SectionType::Data,
            flags if flags == PF_W | PF_X => return None,
            _ => SectionType::Code,
        };
        let pages = u32::try_from(size.div_ceil(PAGE_SIZE as u64)).ok()?;
        start.checked_add(u64::from(pages) * PAGE_SIZE as u64)?;
        let is_sound = start.is_multiple_of(PAGE_SIZE as u64) && bytes.len() as u64 <= size;
        is_sound.then_some(Self { kind, start, pages, bytes })
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.pages) * PAGE_SIZE as u64
    }
}

/// Pages of the parameter section that `parameters` need, as the hypapp lays them out.
#[must_use]
pub fn parameter_pages(parameters: &[ParameterRecord], word_size: WordSize) -> u32 {
    use trustvisor::call::{PARAMETER_HEADER_BYTES, PARAMETER_RECORD_WORDS};
    let is_pointer = |record: &ParameterRecord| record.kind == ParameterType::Pointer as u32;
    let words = parameters.iter().fold(0u64, |words, record| {
        let data = if is_pointer(record) { record.words } else { 0 };
        words.saturating_add(PARAMETER_RECORD_WORDS).saturating_add(data)
    });
    let bytes = words.saturating_mul(word_size.bytes()).saturating_add(PARAMETER_HEADER_BYTES);
    u32::try_from(bytes.max(HEADER_BYTES as u64).div_ceil(PAGE_SIZE as u64)).unwrap_or(u32::MAX)
}

impl fmt::Display for ImageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExecutable => {
                formatter.write_str("no ELF executable for x86; have the build script make it")
            }
            Self::Segment { address } => write!(
                formatter,
                "the segment at {address:#x} is not on a page of its own, or both writable and executable; link \
                 with pal.ld"
            ),
            Self::SegmentCount => {
                write!(formatter, "1 to {SEGMENTS_LIMIT} segments make a PAL; link with pal.ld")
            }
            Self::Entry => formatter.write_str("no function pal_entry; xmhf_pal::entry! makes it"),
            Self::WordSize => {
                formatter.write_str("made for the other word size; build it for this program's")
            }
        }
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
