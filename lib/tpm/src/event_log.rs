//! The log of what was measured, in the TCG's crypto-agile format (PC Client Platform Firmware Profile, "Event Log
//! Structures").
//!
//! The first event tells the digests that every other one has; its form is that of the older log.

use crate::algorithm::{Algorithm, Digest};
use core::fmt;

/// Digests of an event, at most.
const DIGESTS_LIMIT: usize = 8;
/// Type of the first event, and of others that no register was extended by.
pub const NO_ACTION: u32 = 3;
const SIGNATURE: [u8; 16] = *b"Spec ID Event03\0";
/// Bytes of the first event before its data.
const FIRST_HEAD: usize = 32;

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLogError {
    /// It does not begin with the event that tells the digests.
    NoHeader,
    /// The header tells no digest, or more than [`Log`] takes.
    Algorithms(u32),
    /// The event at this offset ends behind the log.
    Cut(usize),
    /// The event at this offset has other digests than the header tells.
    Digests(usize),
    /// There is no room for the event.
    Full,
}

/// A log that is being written.
#[derive(Debug)]
pub struct LogWriter<'a> {
    room: &'a mut [u8],
    length: usize,
    algorithms: &'a [Algorithm],
}

impl<'a> LogWriter<'a> {
    /// Begins a log in `room`, whose events have a digest by each of `algorithms`.
    ///
    /// # Errors
    ///
    /// [`EventLogError::Algorithms`] or [`EventLogError::Full`].
    pub fn new(room: &'a mut [u8], algorithms: &'a [Algorithm]) -> Result<Self, EventLogError> {
        let count = u32::try_from(algorithms.len()).unwrap_or(u32::MAX);
        if algorithms.is_empty() || algorithms.len() > DIGESTS_LIMIT {
            return Err(EventLogError::Algorithms(count));
        }
        let mut log = Self { room, length: 0, algorithms };
        // Signature, class, version 2.0 with 64-bit numbers, count, pairs, no vendor's own.
        let size = 29 + 4 * count;
        log.put(&[&0_u32.to_le_bytes(), &NO_ACTION.to_le_bytes(), &[0; 20], &size.to_le_bytes()])?;
        log.put(&[&SIGNATURE, &[0; 4], &[0, 2, 0, 2], &count.to_le_bytes()])?;
        for algorithm in algorithms {
            let size = u16::try_from(algorithm.size()).unwrap_or(0);
            log.put(&[&algorithm.number().to_le_bytes(), &size.to_le_bytes()])?;
        }
        log.put(&[&[0]])?;
        Ok(log)
    }

    /// Adds an event: `pcr` was extended by `digests`, in the order of the log's algorithms, for the reason `kind` with
    /// `data`.
    ///
    /// # Errors
    ///
    /// [`EventLogError::Digests`] where there are others; [`EventLogError::Full`], and nothing is added then.
    pub fn add(&mut self, pcr: u8, kind: u32, digests: &[Digest], data: &[u8]) -> Result<(), EventLogError> {
        let start = self.length;
        if !digests.iter().map(Digest::algorithm).eq(self.algorithms.iter().copied()) {
            return Err(EventLogError::Digests(start));
        }
        let done = self.put_event(pcr, kind, digests, data);
        if done.is_err() {
            self.length = start;
        }
        done
    }

    /// The log so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }

    fn put_event(
        &mut self,
        pcr: u8,
        kind: u32,
        digests: &[Digest],
        data: &[u8],
    ) -> Result<(), EventLogError> {
        let size = u32::try_from(data.len()).map_err(|_| EventLogError::Full)?;
        let count = u32::try_from(digests.len()).map_err(|_| EventLogError::Full)?;
        self.put(&[&u32::from(pcr).to_le_bytes(), &kind.to_le_bytes(), &count.to_le_bytes()])?;
        for digest in digests {
            self.put(&[&digest.algorithm().number().to_le_bytes(), digest.bytes()])?;
        }
        self.put(&[&size.to_le_bytes(), data])
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), EventLogError> {
        for part in parts {
            let place = self.room.get_mut(self.length..).and_then(|rest| rest.get_mut(..part.len()));
            place.ok_or(EventLogError::Full)?.copy_from_slice(part);
            self.length += part.len();
        }
        Ok(())
    }
}

/// A log whose every event was checked.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    events: &'a [u8],
    header: Header,
}

/// Numbers and sizes of the digests that each event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    digests: [(u16, u16); DIGESTS_LIMIT],
    count: usize,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register.
    pub pcr: u32,
    /// Why it was extended.
    pub kind: u32,
    /// What was measured, or words on it.
    pub data: &'a [u8],
    digests: &'a [u8],
}

impl<'a> Log<'a> {
    /// Reads all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`EventLogError`]: the first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        let (header, length) = Header::parse(bytes)?;
        let events = bytes.get(length..).unwrap_or_default();
        let mut rest = events;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let (_, length) = header.event(rest).map_err(|is_cut| match is_cut {
                true => EventLogError::Cut(at),
                false => EventLogError::Digests(at),
            })?;
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Self { events, header })
    }

    /// The events behind the first, in their order.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        let (mut rest, header) = (self.events, self.header);
        core::iter::from_fn(move || {
            let (event, length) = header.event(rest).ok()?;
            rest = rest.get(length..)?;
            Some(event)
        })
    }
}

impl Event<'_> {
    /// Its digest by `algorithm`, where the log has these.
    #[must_use]
    pub fn digest(&self, log: &Log<'_>, algorithm: Algorithm) -> Option<Digest> {
        let mut rest = self.digests;
        for (number, size) in log.header.digests() {
            let (digest, behind) = rest.get(2..)?.split_at_checked(usize::from(*size))?;
            if *number == algorithm.number() {
                return Digest::new(algorithm, digest);
            }
            rest = behind;
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

impl Header {
    /// Reads the first event; gives its bytes too.
    fn parse(bytes: &[u8]) -> Result<(Self, usize), EventLogError> {
        const NONE: EventLogError = EventLogError::NoHeader;
        let is_first = word(bytes, 0) == Some(0) && word(bytes, 4) == Some(NO_ACTION);
        let size = word(bytes, 28).filter(|_| is_first).ok_or(NONE)?;
        let data = bytes.get(FIRST_HEAD..).and_then(|rest| rest.get(..size as usize)).ok_or(NONE)?;
        let count = word(data, 24).filter(|_| data.starts_with(&SIGNATURE)).ok_or(NONE)?;
        if count == 0 || count as usize > DIGESTS_LIMIT {
            return Err(EventLogError::Algorithms(count));
        }
        let mut header = Self { digests: [(0, 0); DIGESTS_LIMIT], count: count as usize };
        for (index, digest) in header.digests.iter_mut().take(header.count).enumerate() {
            let at = 28 + 4 * index;
            *digest = (half(data, at).ok_or(NONE)?, half(data, at + 2).ok_or(NONE)?);
        }
        let vendor = data.get(28 + 4 * header.count).ok_or(NONE)?;
        let end = 29 + 4 * header.count + usize::from(*vendor);
        if data.len() != end { Err(NONE) } else { Ok((header, FIRST_HEAD + end)) }
    }

    fn digests(&self) -> &[(u16, u16)] {
        self.digests.get(..self.count).unwrap_or_default()
    }

    /// Reads the event at the start of `bytes`; gives its bytes too. An error is whether it is cut, else its digests are
    /// not the header's.
    fn event<'a>(&self, bytes: &'a [u8]) -> Result<(Event<'a>, usize), bool> {
        let (Some(pcr), Some(kind), Some(count)) = (word(bytes, 0), word(bytes, 4), word(bytes, 8)) else {
            return Err(true);
        };
        if count as usize != self.count {
            return Err(false);
        }
        let mut at = 12;
        for (number, size) in self.digests() {
            if half(bytes, at).ok_or(true)? != *number {
                return Err(false);
            }
            at += 2 + usize::from(*size);
        }
        let digests = bytes.get(12..at).ok_or(true)?;
        let size = word(bytes, at).ok_or(true)? as usize;
        let data = bytes.get(at + 4..).and_then(|rest| rest.get(..size)).ok_or(true)?;
        Ok((Event { pcr, kind, data, digests }, at + 4 + size))
    }
}

impl fmt::Display for EventLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("no event log in the TCG's format"),
            Self::Algorithms(count) => write!(f, "an event log with {count} digests an event"),
            Self::Cut(at) => write!(f, "the event at {at:#x} is cut"),
            Self::Digests(at) => write!(f, "the event at {at:#x} has other digests than the log's"),
            Self::Full => f.write_str("the event log is full"),
        }
    }
}

impl core::error::Error for EventLogError {}

#[cfg(test)]
#[path = "event_log_tests.rs"]
mod tests;
