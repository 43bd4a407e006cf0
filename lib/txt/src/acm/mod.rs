//! Authenticated code modules, such as SINIT (SDM, "Authenticated Code Module"; TXT guide, "Authenticated Code Module").

mod entry;
mod header;
mod information;
mod lists;

pub use header::{Flags, Header, HeaderVersion};
pub use information::{InformationTable, Kind};
pub use lists::{Chipset, Entry, Family, List, ProcessorMatch, Tpm, TpmCapabilities};

use core::fmt;

/// A module whose header, information table and lists are sound.
#[derive(Clone, Copy)]
pub struct Acm<'a> {
    bytes: &'a [u8],
    header: Header<'a>,
    information: InformationTable,
    padding: usize,
}

/// Why bytes are no module that this crate can judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmError {
    /// There are fewer bytes than a header has.
    TooShort,
    /// The module says that it is longer than the file.
    Truncated {
        /// Bytes that the module says it has.
        module: u64,
        /// Bytes there are.
        file: u64,
    },
    /// It is no module of a chipset, see [`Header::module_type`].
    NotOfChipset(u16),
    /// It is not Intel's, see [`Header::vendor`].
    ForeignVendor(u32),
    /// The format of its header is not known.
    HeaderVersion(u32),
    /// The header is shorter than key and signature need, or longer than the module.
    HeaderLength(u32),
    /// GETSEC wants multiples of 64 bytes.
    UnevenSize(u32),
    /// The entry point lies in the header or outside of the module.
    EntryPoint(u32),
    /// The code segment's selector is not of ring 0, or not in the module's descriptor table.
    Selector(u32),
    /// The descriptor table lies outside of the module.
    DescriptorTable(u32),
    /// There is no information table behind the header.
    NoInformation,
    /// The information table's version is older than 3, or its length too small for its version.
    InformationVersion {
        /// Version.
        version: u8,
        /// Bytes that the table says it has.
        length: u16,
    },
    /// A list of the information table lies outside of the module.
    List(&'static str),
    /// The lists behind the information table never end.
    Endless,
}

impl<'a> Acm<'a> {
    /// Reads the module at the start of `file`; what lies behind it is padding.
    ///
    /// # Errors
    ///
    /// [`AcmError`], in the order of the checks: the first that fails is named.
    pub fn parse(file: &'a [u8]) -> Result<Self, AcmError> {
        let header = Header::parse(file)?;
        let size = u64::from(header.size);
        let truncated = AcmError::Truncated { module: size, file: file.len() as u64 };
        let bytes = usize::try_from(size).ok().and_then(|size| file.get(..size)).ok_or(truncated)?;
        header.check(bytes.len())?;
        entry::check(&header)?;
        let information = InformationTable::parse(bytes, header.information_at()?)?;
        let acm = Self { bytes, header, information, padding: file.len() - bytes.len() };
        acm.check_lists()?;
        Ok(acm)
    }

    /// The whole module, without padding: what GETSEC\[SENTER\] loads and hashes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// Its information table.
    #[must_use]
    pub const fn information(&self) -> &InformationTable {
        &self.information
    }

    /// Bytes of the file behind the module.
    #[must_use]
    pub const fn padding(&self) -> usize {
        self.padding
    }

    /// Chipsets that it is for, by their exact device.
    #[must_use]
    pub fn chipsets(&self) -> List<'a, Chipset> {
        self.list(InformationTable::chipsets)
    }

    /// Chipsets that it is for, by a mask of devices; modules with a flexible information table alone have this list.
    #[must_use]
    pub fn masked_chipsets(&self) -> List<'a, Chipset> {
        self.list(InformationTable::masked_chipsets)
    }

    /// Processors that it is for; `None` where the information table is too old to name any, and any will do.
    #[must_use]
    pub fn processors(&self) -> Option<List<'a, ProcessorMatch>> {
        self.information.processors(self.bytes).ok().flatten()
    }

    /// TPMs that it can use; `None` where the information table is too old to name any: TPM 1.2 alone.
    #[must_use]
    pub fn tpm(&self) -> Option<Tpm<'a>> {
        self.information.tpm(self.bytes).ok().flatten()
    }

    fn list<T>(
        &self,
        read: impl Fn(&InformationTable, &'a [u8]) -> Result<Option<List<'a, T>>, AcmError>,
    ) -> List<'a, T> {
        read(&self.information, self.bytes).ok().flatten().unwrap_or_default()
    }

    fn check_lists(&self) -> Result<(), AcmError> {
        self.information.check_end(self.bytes)?;
        self.information.chipsets(self.bytes)?;
        self.information.masked_chipsets(self.bytes)?;
        self.information.processors(self.bytes)?;
        self.information.tpm(self.bytes).map(drop)
    }
}

impl fmt::Debug for Acm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acm").field("information", &self.information).finish_non_exhaustive()
    }
}

impl fmt::Display for AcmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("shorter than a module's header"),
            Self::Truncated { module, file } => {
                write!(f, "the module has {module} bytes and the file only {file}: it was cut")
            }
            Self::NotOfChipset(kind) => write!(f, "no module of a chipset: type {kind:#x}"),
            Self::ForeignVendor(vendor) => write!(f, "not Intel's: vendor {vendor:#x}"),
            Self::HeaderVersion(version) => {
                write!(f, "unknown header version {}.{}", version >> 16, version & 0xffff)
            }
            Self::HeaderLength(words) => write!(f, "impossible header of {words} words"),
            Self::UnevenSize(size) => write!(f, "{size} bytes are no multiple of 64"),
            Self::EntryPoint(at) => write!(f, "the entry point {at:#x} is not in the module's code"),
            Self::Selector(selector) => write!(f, "the code selector {selector:#x} cannot be loaded"),
            Self::DescriptorTable(at) => write!(f, "the descriptor table at {at:#x} is not in the module"),
            Self::NoInformation => f.write_str("no information table behind the header"),
            Self::InformationVersion { version, length } => {
                write!(f, "information table of version {version} with {length} bytes")
            }
            Self::List(name) => write!(f, "the list of {name} is not in the module"),
            Self::Endless => f.write_str("the lists behind the information table have no end"),
        }
    }
}

impl core::error::Error for AcmError {}

#[cfg(test)]
pub(crate) mod tests;
