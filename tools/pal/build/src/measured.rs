//! What TrustVisor will measure of a PAL, from its file.
//!
//! The SDK registers an ELF file's segments at their addresses, then parameters, a page of nobody's and a stack of
//! zeros.

use anyhow::{Context, Result};
use microtpm::{Header, HeaderSection, PcrBanks, PcrIndex, SectionDigests, SectionMeasurement};
use std::fmt;
use xmhf_pal::Image;
use xmhf_pal::image::parameter_pages;
use xmhf_pal::trustvisor::parameter::ParameterRecord;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Names of the types of sections, by number; there is no number 0.
pub const KINDS: [&str; 6] = ["", "code", "data", "parameters", "stack", "shared-code"];
/// Number of the type `parameters`.
pub const PARAMETERS: u32 = 3;
/// Number of the type `stack`.
pub const STACK: u32 = 4;

/// A whole PAL, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pal {
    /// Bytes of a word.
    pub word_bytes: u32,
    /// Where it is entered.
    pub entry: u64,
    /// What it is registered with.
    pub flags: u32,
    /// Types and sizes in words of its parameters.
    pub parameters: Vec<(u32, u64)>,
    /// Its sections, in the order of the list.
    pub sections: Vec<Section>,
}

/// A section, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Number of its type.
    pub kind: u32,
    /// Address of its first page.
    pub start: u64,
    /// All its pages.
    pub contents: Vec<u8>,
}

impl Pal {
    /// The PAL in `image`, with these parameters and flags, and `stack_pages` of stack.
    ///
    /// # Errors
    ///
    /// A size that is none.
    pub fn new(image: &Image<'_>, parameters: Vec<(u32, u64)>, flags: u32, stack_pages: u32) -> Result<Self> {
        let mut sections = Vec::new();
        for segment in image.segments() {
            let pages = usize::try_from(segment.pages)?;
            sections.push(Section::new(segment.kind as u32, segment.start, pages, segment.bytes)?);
        }
        let records: Vec<_> =
            parameters.iter().map(|&(kind, words)| ParameterRecord { kind, unused: 0, words }).collect();
        let room = usize::try_from(parameter_pages(&records, image.word_size))?;
        let place = Section::new(PARAMETERS, image.end(), room, &[])?;
        // A page of nobody's is between them.
        let stack = place.start + u64::try_from(place.contents.len() + PAGE)?;
        let stack = Section::new(STACK, stack, usize::try_from(stack_pages)?, &[])?;
        sections.extend([place, stack]);
        let word_bytes = u32::try_from(image.word_size.bytes())?;
        Ok(Self { word_bytes, entry: image.entry, flags, parameters, sections })
    }

    /// Digest of its header.
    #[must_use]
    pub fn header_digest(&self) -> [u8; 32] {
        let section = |section: &Section| HeaderSection {
            kind: section.kind,
            start: section.start,
            size: u64::try_from(section.contents.len()).unwrap_or(u64::MAX),
        };
        let sections = self.sections.iter().map(section);
        let parameters = self.parameters.iter().copied();
        let (word_bytes, flags, entry) = (self.word_bytes, self.flags, self.entry);
        Header { word_bytes, flags, entry, sections, parameters }.digest()
    }

    /// Its registers, right after its registration.
    #[must_use]
    pub fn registers(&self) -> PcrBanks {
        PcrBanks::measured(&self.header_digest(), self.sections.iter().map(Section::digests))
    }

    /// Register 0 of the SHA-256 bank.
    #[must_use]
    pub fn measurement(&self) -> [u8; 32] {
        self.registers().read(PcrIndex::FIRST_SHA256).try_into().unwrap_or_default()
    }
}

impl Section {
    /// A section of `pages` pages, `bytes` and then zeros.
    ///
    /// # Errors
    ///
    /// There are more bytes than pages.
    pub fn new(kind: u32, start: u64, pages: usize, bytes: &[u8]) -> Result<Self> {
        let mut contents = bytes.to_vec();
        let size = pages.checked_mul(PAGE).filter(|&size| size >= bytes.len());
        contents.resize(size.context("the contents are longer than the section")?, 0);
        Ok(Self { kind, start, contents })
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.contents.len() / PAGE
    }

    /// What it is measured as.
    #[must_use]
    pub fn digests(&self) -> SectionDigests {
        let size = u64::try_from(self.contents.len()).unwrap_or(u64::MAX);
        let mut measurement = SectionMeasurement::new(self.kind, self.start, size);
        measurement.update(&self.contents);
        measurement.finish()
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(usize::try_from(self.kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&"unknown"))?;
        if !matches!(self.kind, PARAMETERS | STACK) {
            write!(f, " at {:#x}", self.start)?;
        }
        write!(f, ", {} page{}", self.pages(), if self.pages() == 1 { "" } else { "s" })
    }
}
