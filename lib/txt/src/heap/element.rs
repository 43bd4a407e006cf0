//! Extended elements behind a part's fields: type, size and data each (TXT guide, "Extended Data Elements").

use super::{AgileLog, HeapError, LegacyLogs, Part};
use crate::bytes::{array, part, put, u16_at, u32_at, u64_at};

/// Bytes of an element's type and size.
pub(super) const HEAD: usize = 8;
/// Bytes of the element that ends the others.
pub const END_SIZE: usize = HEAD;

/// Types of elements.
mod kind {
    pub(super) const END: u32 = 0;
    pub(super) const BIOS_SPECIFICATION: u32 = 1;
    pub(super) const ACM: u32 = 2;
    pub(super) const CUSTOM: u32 = 4;
    pub(super) const EVENT_LOG_1_2: u32 = 5;
    pub(super) const MADT: u32 = 6;
    pub(super) const EVENT_LOG_2_0: u32 = 7;
    pub(super) const EVENT_LOG_2_0_AGILE: u32 = 8;
    pub(super) const MCFG: u32 = 9;
}

/// An element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// HEAP_BIOS_SPEC_VER_ELEMENT: the specification that the firmware follows.
    BiosSpecification {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
        /// Revision.
        revision: u16,
    },
    /// HEAP_ACM_ELEMENT: physical addresses of modules in the firmware, 8 bytes each.
    Acms(&'a [u8]),
    /// HEAP_CUSTOM_ELEMENT: what somebody else defines.
    Custom {
        /// Who.
        uuid: [u8; 16],
        /// What.
        data: &'a [u8],
    },
    /// HEAP_EVENT_LOG_POINTER_ELEMENT: physical address of the event log of a TPM 1.2.
    EventLog12(u64),
    /// HEAP_MADT_ELEMENT: SINIT's copy of the ACPI table of processors.
    Madt(&'a [u8]),
    /// HEAP_EVENT_LOG_POINTER_ELEMENT2: event logs of a TPM 2.0, one for each digest.
    EventLogs20(LegacyLogs<'a>),
    /// HEAP_EVENT_LOG_POINTER_ELEMENT2_1: the event log of a TPM 2.0 in the TCG's format.
    AgileLog(AgileLog),
    /// HEAP_MCFG_ELEMENT: SINIT's copy of the ACPI table of PCI Express.
    Mcfg(&'a [u8]),
    /// One that this crate does not know; it is passed over, as the guide says.
    Other {
        /// Type.
        kind: u32,
        /// Data.
        data: &'a [u8],
    },
}

/// Elements of a part, whose sizes and end were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elements<'a> {
    bytes: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Reads all elements at the start of `bytes`, up to the one that ends them.
    pub(super) fn parse(bytes: &'a [u8], part: Part) -> Result<Self, HeapError> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).filter(|rest| rest.len() >= HEAD).ok_or(HeapError::NoEnd(part))?;
            let (kind, size, data) = take(rest)?;
            if kind == kind::END {
                return Ok(Self { bytes: bytes.get(..at).unwrap_or_default() });
            }
            Element::of(kind, size, data)?;
            at += HEAD + data.len();
        }
    }

    /// The elements in their order.
    pub fn iter(&self) -> impl Iterator<Item = Element<'a>> + 'a {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (kind, size, data) = take(rest).ok()?;
            rest = rest.get(HEAD + data.len()..)?;
            Element::of(kind, size, data).ok()
        })
    }
}

/// Type, size field and data of the element at the start of `rest`.
fn take(rest: &[u8]) -> Result<(u32, u32, &[u8]), HeapError> {
    let (Some(kind), Some(size)) = (u32_at(rest, 0), u32_at(rest, 4)) else {
        return Err(HeapError::Element { kind: 0, size: 0 });
    };
    let data = part(rest, 0, size as usize).and_then(|whole| whole.get(HEAD..));
    Ok((kind, size, data.ok_or(HeapError::Element { kind, size })?))
}

impl<'a> Element<'a> {
    fn of(kind: u32, size: u32, data: &'a [u8]) -> Result<Self, HeapError> {
        let wrong = HeapError::Element { kind, size };
        Ok(match kind {
            kind::BIOS_SPECIFICATION => Self::BiosSpecification {
                major: u16_at(data, 0).ok_or(wrong)?,
                minor: u16_at(data, 2).ok_or(wrong)?,
                revision: u16_at(data, 4).ok_or(wrong)?,
            },
            kind::ACM => {
                let count = u32_at(data, 0).ok_or(wrong)? as usize;
                let length = count.checked_mul(8).ok_or(wrong)?;
                Self::Acms(part(data, 4, length).ok_or(wrong)?)
            }
            kind::CUSTOM => {
                Self::Custom { uuid: array(data, 0).ok_or(wrong)?, data: data.get(16..).unwrap_or_default() }
            }
            kind::EVENT_LOG_1_2 => Self::EventLog12(u64_at(data, 0).ok_or(wrong)?),
            kind::MADT => Self::Madt(data),
            kind::EVENT_LOG_2_0 => Self::EventLogs20(LegacyLogs::parse(data).ok_or(wrong)?),
            kind::EVENT_LOG_2_0_AGILE => Self::AgileLog(AgileLog::parse(data).ok_or(wrong)?),
            kind::MCFG => Self::Mcfg(data),
            _ => Self::Other { kind, data },
        })
    }

    const fn kind(&self) -> u32 {
        match self {
            Self::BiosSpecification { .. } => kind::BIOS_SPECIFICATION,
            Self::Acms(_) => kind::ACM,
            Self::Custom { .. } => kind::CUSTOM,
            Self::EventLog12(_) => kind::EVENT_LOG_1_2,
            Self::Madt(_) => kind::MADT,
            Self::EventLogs20(_) => kind::EVENT_LOG_2_0,
            Self::AgileLog(_) => kind::EVENT_LOG_2_0_AGILE,
            Self::Mcfg(_) => kind::MCFG,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Bytes of the element, its type and size included.
    #[must_use]
    pub const fn size(&self) -> usize {
        HEAD + match self {
            Self::BiosSpecification { .. } => 6,
            Self::Acms(addresses) => 4 + addresses.len(),
            Self::Custom { data, .. } => 16 + data.len(),
            Self::EventLog12(_) => 8,
            Self::Madt(data) | Self::Mcfg(data) | Self::Other { data, .. } => data.len(),
            Self::EventLogs20(logs) => logs.size(),
            Self::AgileLog(_) => AgileLog::SIZE,
        }
    }

    /// Writes the element to the start of `room`, which has [`Element::size`] bytes.
    fn write(&self, room: &mut [u8]) -> Option<()> {
        let size = u32::try_from(self.size()).ok()?;
        put(room, 0, &self.kind().to_le_bytes())?;
        put(room, 4, &size.to_le_bytes())?;
        let data = room.get_mut(HEAD..)?;
        match self {
            Self::BiosSpecification { major, minor, revision } => {
                put(data, 0, &major.to_le_bytes())?;
                put(data, 2, &minor.to_le_bytes())?;
                put(data, 4, &revision.to_le_bytes())
            }
            Self::Acms(addresses) => {
                put(data, 0, &u32::try_from(addresses.len() / 8).ok()?.to_le_bytes())?;
                put(data, 4, addresses)
            }
            Self::Custom { uuid, data: custom } => {
                put(data, 0, uuid)?;
                put(data, 16, custom)
            }
            Self::EventLog12(address) => put(data, 0, &address.to_le_bytes()),
            Self::Madt(bytes) | Self::Mcfg(bytes) | Self::Other { data: bytes, .. } => put(data, 0, bytes),
            Self::EventLogs20(logs) => logs.write(data),
            Self::AgileLog(log) => log.write(data),
        }
    }
}

/// Bytes of `elements` with their end.
pub(super) fn size_of(elements: &[Element<'_>]) -> usize {
    elements.iter().map(Element::size).sum::<usize>() + END_SIZE
}

/// Writes `elements` and their end to the start of `room`.
pub(super) fn write(elements: &[Element<'_>], room: &mut [u8]) -> Result<(), HeapError> {
    let needed = size_of(elements);
    let mut at = 0;
    for element in elements {
        let place = room.get_mut(at..at + element.size());
        place.and_then(|place| element.write(place)).ok_or(HeapError::NoRoom { needed })?;
        at += element.size();
    }
    let end = room.get_mut(at..at + END_SIZE).ok_or(HeapError::NoRoom { needed })?;
    put(end, 0, &kind::END.to_le_bytes()).ok_or(HeapError::NoRoom { needed })?;
    put(end, 4, &8_u32.to_le_bytes()).ok_or(HeapError::NoRoom { needed })
}
