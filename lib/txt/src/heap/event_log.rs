//! Where SINIT writes its events (TXT guide, "HEAP_EVENT_LOG_POINTER_ELEMENT2", "HEAP_EVENT_LOG_POINTER_ELEMENT2_1").

use super::HeapError;
use crate::bytes::{part, put, u16_at, u32_at, u64_at};

/// The log of a TPM 2.0 in the TCG's crypto-agile format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgileLog {
    /// Physical address.
    pub address: u64,
    /// Bytes of its memory.
    pub size: u32,
    /// Offset of the first record.
    pub first: u32,
    /// Offset at which the next record goes.
    pub next: u32,
}

/// Logs of a TPM 2.0 in the older format, one for each digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegacyLogs<'a> {
    descriptors: &'a [u8],
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyLog {
    /// The digest, by the TCG's number.
    pub algorithm: u16,
    /// Physical address.
    pub address: u64,
    /// Bytes of its memory.
    pub size: u32,
    /// Offset of the first record.
    pub first: u32,
    /// Offset at which the next record goes.
    pub next: u32,
}

impl AgileLog {
    pub(super) const SIZE: usize = 20;

    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        Some(Self {
            address: u64_at(data, 0)?,
            size: u32_at(data, 8)?,
            first: u32_at(data, 12)?,
            next: u32_at(data, 16)?,
        })
    }

    pub(super) fn write(&self, data: &mut [u8]) -> Option<()> {
        put(data, 0, &self.address.to_le_bytes())?;
        for (index, word) in [self.size, self.first, self.next].into_iter().enumerate() {
            put(data, 8 + 4 * index, &word.to_le_bytes())?;
        }
        Some(())
    }

    /// The records in `memory`, the log's bytes.
    ///
    /// # Errors
    ///
    /// [`HeapError::Log`] where they are not inside.
    pub fn records<'b>(&self, memory: &'b [u8]) -> Result<&'b [u8], HeapError> {
        records(memory, self.size, self.first, self.next)
    }
}

impl LegacyLog {
    const SIZE: usize = 24;

    fn parse(data: &[u8]) -> Option<Self> {
        Some(Self {
            algorithm: u16_at(data, 0)?,
            address: u64_at(data, 4)?,
            size: u32_at(data, 12)?,
            first: u32_at(data, 16)?,
            next: u32_at(data, 20)?,
        })
    }

    /// The descriptor as it stands in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = [self.size, self.first, self.next].map(u32::to_le_bytes);
        let fields = [&self.algorithm.to_le_bytes()[..], &[0; 2], &self.address.to_le_bytes()];
        let all = fields.into_iter().flatten().chain(words.iter().flatten());
        bytes.iter_mut().zip(all).for_each(|(byte, field)| *byte = *field);
        bytes
    }

    /// The records in `memory`, the log's bytes.
    ///
    /// # Errors
    ///
    /// [`HeapError::Log`] where they are not inside.
    pub fn records<'b>(&self, memory: &'b [u8]) -> Result<&'b [u8], HeapError> {
        records(memory, self.size, self.first, self.next)
    }
}

fn records(memory: &[u8], size: u32, first: u32, next: u32) -> Result<&[u8], HeapError> {
    let log = memory.get(..size as usize).ok_or(HeapError::Log)?;
    log.get(first as usize..next as usize).ok_or(HeapError::Log)
}

impl<'a> LegacyLogs<'a> {
    /// The logs that `descriptors` describe, [`LegacyLog::to_bytes`] each.
    #[must_use]
    pub const fn new(descriptors: &'a [[u8; LegacyLog::SIZE]]) -> Self {
        Self { descriptors: descriptors.as_flattened() }
    }

    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let length = (u32_at(data, 0)? as usize).checked_mul(LegacyLog::SIZE)?;
        Some(Self { descriptors: part(data, 4, length)? })
    }

    pub(super) const fn size(&self) -> usize {
        4 + self.descriptors.len()
    }

    pub(super) fn write(&self, data: &mut [u8]) -> Option<()> {
        let count = u32::try_from(self.descriptors.len() / LegacyLog::SIZE).ok()?;
        put(data, 0, &count.to_le_bytes())?;
        put(data, 4, self.descriptors)
    }

    /// The logs in their order.
    pub fn iter(&self) -> impl Iterator<Item = LegacyLog> + 'a {
        self.descriptors.chunks_exact(LegacyLog::SIZE).filter_map(LegacyLog::parse)
    }
}
