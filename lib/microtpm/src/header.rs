//! What a PAL is beside its contents, in one canonical form that is hashed.
//!
//! All little-endian: "XMHF PAL", u32 version, u32 calling convention, u32 bytes of a word, u32 flags, u64 entry, u32
//! number of sections, u32 number of parameters; for each section u32 type, u32 rights, u64 start, u64 size in bytes;
//! for each parameter u32 type, u32 zero, u64 size in words, which is 0 for an integer. Whatever decides how the
//! contents run is in it, so that two PALs with one digest are one PAL.

use sha2::{Digest, Sha256};

const MAGIC: [u8; 8] = *b"XMHF PAL";
/// Version of this form.
const VERSION: u32 = 1;
/// The calling convention: System V's, with the return address that nothing is mapped at.
const CONVENTION: u32 = 1;
/// Rights of the PAL on a section: reads, writes, fetches.
const READ: u32 = 1;
const WRITE: u32 = 2;
const EXECUTE: u32 = 4;
/// Types of sections that are executed and not written: code, and code that is shared.
const CODE: [u32; 2] = [1, 5];
/// Type of a parameter that names memory; of another the size says nothing.
const POINTER: u32 = 2;

/// A PAL's header.
#[derive(Clone, Debug)]
pub struct Header<S, P> {
    /// Bytes of its words.
    pub word_bytes: u32,
    /// What it was registered with.
    pub flags: u32,
    /// Linear address of its entry.
    pub entry: u64,
    /// Its sections, in the order of the list.
    pub sections: S,
    /// Types and sizes in words of its parameters.
    pub parameters: P,
}

/// A section, as the header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderSection {
    /// Number of its type.
    pub kind: u32,
    /// Linear address of its first page.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl<S, P> Header<S, P>
where
    S: Iterator<Item = HeaderSection> + Clone,
    P: Iterator<Item = (u32, u64)> + Clone,
{
    /// Returns the digest of the header.
    #[must_use]
    pub fn digest(self) -> [u8; 32] {
        let mut measurement = self.begin();
        self.sections.for_each(|section| measurement.section(section));
        self.parameters.for_each(|parameter| measurement.parameter(parameter));
        measurement.finish()
    }

    /// Hashes what is in front of the sections, for who hashes the rest in pieces.
    #[must_use]
    pub fn begin(&self) -> HeaderMeasurement {
        let mut hash = Sha256::new();
        hash.update(MAGIC);
        for number in [VERSION, CONVENTION, self.word_bytes, self.flags] {
            hash.update(number.to_le_bytes());
        }
        hash.update(self.entry.to_le_bytes());
        hash.update(count(self.sections.clone()).to_le_bytes());
        hash.update(count(self.parameters.clone()).to_le_bytes());
        HeaderMeasurement(hash)
    }
}

/// A header that is being hashed: each section has to come, then each parameter.
#[derive(Clone, Debug)]
pub struct HeaderMeasurement(Sha256);

impl HeaderMeasurement {
    /// Hashes a section.
    pub fn section(&mut self, section: HeaderSection) {
        self.0.update(section.kind.to_le_bytes());
        self.0.update(rights(section.kind).to_le_bytes());
        self.0.update(section.start.to_le_bytes());
        self.0.update(section.size.to_le_bytes());
    }

    /// Hashes a parameter: its type, and its size in words.
    pub fn parameter(&mut self, (kind, words): (u32, u64)) {
        self.0.update(kind.to_le_bytes());
        self.0.update([0; 4]);
        self.0.update(if kind == POINTER { words } else { 0 }.to_le_bytes());
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

fn rights(kind: u32) -> u32 {
    READ | if CODE.contains(&kind) { EXECUTE } else { WRITE }
}

/// Lists are short.
fn count(items: impl Iterator) -> u32 {
    items.fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    type Parts = (u32, u32, u64, Vec<HeaderSection>, Vec<(u32, u64)>);

    fn parts() -> Parts {
        let section = |kind, start, size| HeaderSection { kind, start, size };
        let sections = vec![section(1, 0x40_0000, 0x1000), section(4, 0x80_0000, 0x4000)];
        (8, 1, 0x40_0010, sections, vec![(1, 0), (2, 3)])
    }

    fn digest((word_bytes, flags, entry, sections, parameters): Parts) -> [u8; 32] {
        let (sections, parameters) = (sections.into_iter(), parameters.into_iter());
        Header { word_bytes, flags, entry, sections, parameters }.digest()
    }

    #[test]
    fn the_form_is_the_documented_one() {
        // From a script over Python's struct and hashlib.
        assert_eq!(
            digest(parts())[..],
            hex("b53523406756bea70642639fe069a3efa22770d51052ea699fea112bc5a410ce")
        );
    }

    #[test]
    fn whatever_decides_how_the_contents_run_counts() {
        let changes: [fn(&mut Parts); 10] = [
            |parts| parts.0 = 4,
            |parts| parts.1 = 0,
            |parts| parts.2 += 1,
            |parts| parts.3[0].start += 0x1000,
            |parts| parts.3[1].start += 0x1000,
            |parts| parts.3[1].size += 0x1000,
            |parts| parts.3[0].kind = 5,
            |parts| parts.3.swap(0, 1),
            |parts| parts.4[1].0 = 1,
            |parts| parts.4[1].1 = 4,
        ];
        let mut digests = vec![digest(parts())];
        for change in changes {
            let mut changed = parts();
            change(&mut changed);
            digests.push(digest(changed));
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 11);
        let mut shorter = parts();
        shorter.4.pop();
        assert_ne!(digest(shorter), digest(parts()));
    }

    #[test]
    fn what_an_integers_size_says_does_not_count() {
        let mut other = parts();
        other.4[0].1 = 7;
        assert_eq!(digest(other), digest(parts()));
    }
}
