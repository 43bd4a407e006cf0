//! The information table in a module's user area (TXT guide, "Chipset AC Module Information Table").

use super::AcmError;
use super::lists::{Chipset, List, ProcessorMatch, Tpm};
use crate::bytes::{array, part, u16_at, u32_at};
use crate::capabilities::Capabilities;

/// 7FC03AAA-46A7-18DB-AC2E-698F8D417F5A, as it stands in memory.
const UUID: [u8; 16] =
    [0xaa, 0x3a, 0xc0, 0x7f, 0xa7, 0x46, 0xdb, 0x18, 0x2e, 0xac, 0x69, 0x8f, 0x8d, 0x41, 0x7f, 0x5a];
/// First version that names processors.
const WITH_PROCESSORS: u8 = 4;
/// First version that names TPMs.
const WITH_TPM: u8 = 5;
/// First version whose lists follow one another behind the table, each with a name and a length.
const FLEXIBLE: u8 = 9;
/// Bytes of a flexible list's head: name, length, revision.
const LIST_HEAD: usize = 12;
/// A table of more lists than this has no end.
const LISTS_LIMIT: usize = 64;

/// Names of flexible lists, as numbers.
mod name {
    pub(super) const CHIPSETS: u32 = 0x4353_314c;
    pub(super) const MASKED_CHIPSETS: u32 = 0x4353_324c;
    pub(super) const PROCESSORS: u32 = 0x4350_554c;
    pub(super) const TPM: u32 = 0x5450_4d4c;
    pub(super) const END: u32 = 0x4e55_4c4c;
}

/// What a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The firmware's.
    Bios,
    /// SINIT, which measures an environment and enters it.
    Sinit,
    /// Revokes older modules of the firmware's.
    BiosRevocation,
    /// Revokes older SINITs.
    SinitRevocation,
    /// None that this crate knows.
    Other(u8),
}

/// What a module says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InformationTable {
    /// Kind of module.
    pub kind: Kind,
    /// Version of this table.
    pub version: u8,
    /// Bytes of this table.
    pub length: u16,
    /// Offset of the list of chipsets in the module.
    pub chipset_list: u32,
    /// Latest version of OsSinitData that it takes.
    pub os_sinit_version: u32,
    /// Oldest version of an MLE's header that it takes.
    pub min_mle_version: u32,
    /// What it offers.
    pub capabilities: Capabilities,
    /// Its version.
    pub acm_version: u8,
    /// Its revision: major, minor, build.
    pub acm_revision: [u8; 3],
    /// Offset of the list of processors in the module, from version 4 on.
    pub processor_list: Option<u32>,
    /// Offset of the TPM list in the module, from version 5 on.
    pub tpm_list: Option<u32>,
    /// Offset of the table itself.
    at: usize,
}

impl InformationTable {
    /// Reads the table at `at` in the module.
    pub(super) fn parse(module: &[u8], at: usize) -> Result<Self, AcmError> {
        let head: [u8; 40] = array(module, at).ok_or(AcmError::NoInformation)?;
        if !head.starts_with(&UUID) {
            return Err(AcmError::NoInformation);
        }
        let [kind, version] = [head[16], head[17]];
        let length = u16_at(&head, 18).ok_or(AcmError::NoInformation)?;
        let needed = match version {
            ..3 => u16::MAX,
            3 => 40,
            WITH_PROCESSORS => 44,
            WITH_TPM.. => 48,
        };
        let table = part(module, at, length.into());
        let table =
            table.filter(|_| length >= needed).ok_or(AcmError::InformationVersion { version, length })?;
        let word = |at| u32_at(table, at).ok_or(AcmError::NoInformation);
        let [acm_version, acm_revision @ ..] = word(36)?.to_le_bytes();
        Ok(Self {
            kind: Kind::of(kind),
            version,
            length,
            chipset_list: word(20)?,
            os_sinit_version: word(24)?,
            min_mle_version: word(28)?,
            capabilities: Capabilities::from_bits_retain(word(32)?),
            acm_version,
            acm_revision,
            processor_list: (version >= WITH_PROCESSORS).then(|| word(40)).transpose()?,
            tpm_list: (version >= WITH_TPM).then(|| word(44)).transpose()?,
            at,
        })
    }

    /// Whether the lists stand behind the table, each with its name.
    #[must_use]
    pub const fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE
    }

    pub(super) fn chipsets<'a>(&self, module: &'a [u8]) -> Result<Option<List<'a, Chipset>>, AcmError> {
        let content = self.content(module, Some(self.chipset_list), name::CHIPSETS)?;
        content.map(|bytes| List::parse(bytes, "chipsets")).transpose()
    }

    pub(super) fn masked_chipsets<'a>(
        &self,
        module: &'a [u8],
    ) -> Result<Option<List<'a, Chipset>>, AcmError> {
        let content = self.content(module, None, name::MASKED_CHIPSETS)?;
        content.map(|bytes| List::parse(bytes, "chipsets with masks")).transpose()
    }

    pub(super) fn processors<'a>(
        &self,
        module: &'a [u8],
    ) -> Result<Option<List<'a, ProcessorMatch>>, AcmError> {
        let content = self.content(module, self.processor_list, name::PROCESSORS)?;
        content.map(|bytes| List::parse(bytes, "processors")).transpose()
    }

    pub(super) fn tpm<'a>(&self, module: &'a [u8]) -> Result<Option<Tpm<'a>>, AcmError> {
        let content = self.content(module, self.tpm_list, name::TPM)?;
        content.map(Tpm::parse).transpose()
    }

    /// Checks that flexible lists have an end, whatever is looked for in them.
    pub(super) fn check_end(&self, module: &[u8]) -> Result<(), AcmError> {
        if self.is_flexible() { self.find(module, name::END).map(drop) } else { Ok(()) }
    }

    /// Where a list's count stands, and what is behind it: at the offset that an older table has, or in the list of that
    /// name of a flexible one.
    fn content<'a>(
        &self,
        module: &'a [u8],
        offset: Option<u32>,
        name: u32,
    ) -> Result<Option<&'a [u8]>, AcmError> {
        if self.is_flexible() {
            return self.find(module, name);
        }
        let Some(offset) = offset else { return Ok(None) };
        module.get(offset as usize..).map(Some).ok_or(AcmError::List("an offset"))
    }

    /// The content of the flexible list of this name (TXT guide, "Flexible ACM Information Table Format").
    fn find<'a>(&self, module: &'a [u8], wanted: u32) -> Result<Option<&'a [u8]>, AcmError> {
        let mut at = self.at + usize::from(self.length);
        for _ in 0..LISTS_LIMIT {
            let head: [u8; LIST_HEAD] = array(module, at).ok_or(AcmError::Endless)?;
            let (Some(name), Some(length)) = (u32_at(&head, 0), u32_at(&head, 4)) else { break };
            if name == name::END {
                return Ok(None);
            }
            let list = part(module, at, length as usize).ok_or(AcmError::List("a name"))?;
            let content = list.get(LIST_HEAD..).ok_or(AcmError::List("a name"))?;
            if name == wanted {
                return Ok(Some(content));
            }
            at += list.len();
        }
        Err(AcmError::Endless)
    }
}

impl Kind {
    const fn of(kind: u8) -> Self {
        match kind {
            0 => Self::Bios,
            1 => Self::Sinit,
            8 => Self::BiosRevocation,
            9 => Self::SinitRevocation,
            other => Self::Other(other),
        }
    }
}
