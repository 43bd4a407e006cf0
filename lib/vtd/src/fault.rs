//! What a unit refused, and to whom (VT-d, "Fault Recording Registers", "Fault Reason Encodings").

use core::fmt;

use bitflags::bitflags;

use crate::SourceId;

bitflags! {
    /// The fault status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FaultStatus: u32 {
        /// PFO: faults went unrecorded, for every record was taken.
        const OVERFLOW = 1 << 0;
        /// PPF: a record is taken.
        const PENDING = 1 << 1;
        /// IQE: the queue has a descriptor that is none.
        const QUEUE_ERROR = 1 << 4;
        /// ICE: a device answered an invalidation wrongly.
        const COMPLETION_ERROR = 1 << 5;
        /// ITE: a device did not answer an invalidation.
        const TIME_OUT_ERROR = 1 << 6;
        /// FRI, and what is reserved.
        const _ = !0;
    }
}

impl FaultStatus {
    /// What ends the work of the queue.
    pub const QUEUE_ERRORS: Self =
        Self::QUEUE_ERROR.union(Self::COMPLETION_ERROR).union(Self::TIME_OUT_ERROR);

    /// FRI: the record that was taken first.
    #[must_use]
    pub const fn first_record(self) -> u16 {
        (self.bits() >> 8 & 0xff) as u16
    }
}

bitflags! {
    /// The fault event control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FaultControl: u32 {
        /// IM: no interrupt tells of faults.
        const MASK = 1 << 31;
        /// IP, and what is reserved.
        const _ = !0;
    }
}

/// F, in the high half of a record: it is taken. Written as 1, it is free.
pub const RECORD_TAKEN: u64 = 1 << 63;

/// What a device tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A write.
    Write,
    /// A read.
    Read,
    /// A request for a page.
    PageRequest,
    /// An atomic operation, or a translation that it asked for.
    Atomic,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who.
    pub source: SourceId,
    /// What.
    pub access: Access,
    /// Where: a page; of a request to an interrupt, its index in the upper 16 bits.
    pub address: u64,
    /// Why, as the specification numbers it.
    pub reason: u8,
}

impl Fault {
    /// Reads the two halves of a record; `None` where it is not taken.
    #[must_use]
    pub const fn decode(low: u64, high: u64) -> Option<Self> {
        if high & RECORD_TAKEN == 0 {
            return None;
        }
        let access = match (high >> 62 & 1, high >> 28 & 1) {
            (0, 0) => Access::Write,
            (1, 0) => Access::Read,
            (0, _) => Access::PageRequest,
            (_, _) => Access::Atomic,
        };
        let (source, reason) = (SourceId((high & 0xffff) as u16), (high >> 32 & 0xff) as u8);
        Some(Self { source, access, address: low & !0xfff, reason })
    }

    /// The reason in words.
    #[must_use]
    pub const fn reason_text(&self) -> &'static str {
        match self.reason {
            0x01 => "the bus has no contexts",
            0x02 => "the device has no context",
            0x03 => "the context is invalid",
            0x04 => "the address is too wide",
            0x05 => "the page takes no writes",
            0x06 => "the page takes no reads",
            0x07 => "a table cannot be read",
            0x08 => "the root table cannot be read",
            0x09 => "the context table cannot be read",
            0x0a => "a reserved bit of the root entry",
            0x0b => "a reserved bit of the context entry",
            0x0c => "a reserved bit of a second-level entry",
            0x0d => "the device may not translate for itself",
            0x20 => "a reserved bit of the interrupt request",
            0x21 => "the interrupt's index is too large",
            0x22 => "the interrupt's entry is not present",
            0x23 => "the interrupt table cannot be read",
            0x24 => "a reserved bit of the interrupt's entry",
            0x25 => "interrupts in the old format are blocked",
            0x26 => "the interrupt is another device's",
            _ => "for a reason that is not known",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Write => "write",
            Access::Read => "read",
            Access::PageRequest => "page request",
            Access::Atomic => "atomic access",
        };
        let (source, address, reason) = (self.source, self.address, self.reason);
        write!(f, "{source} {access} address={address:#x} reason={reason:#x}, {}", self.reason_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_who_what_where_and_why() {
        let high = 1 << 63 | 1 << 62 | 6 << 32 | 0x2a1b;
        let fault = Fault::decode(0x1234_5fff, high).unwrap();
        let (source, access) = (SourceId(0x2a1b), Access::Read);
        assert_eq!(fault, Fault { source, access, address: 0x1234_5000, reason: 6 });
        assert_eq!(fault.to_string(), "2a:03.3 read address=0x12345000 reason=0x6, the page takes no reads");
        assert_eq!(Fault::decode(0x1234_5fff, high & !RECORD_TAKEN), None);
        let access = |bits| Fault::decode(0, RECORD_TAKEN | bits).unwrap().access;
        let expected = [Access::Write, Access::Read, Access::PageRequest, Access::Atomic];
        assert_eq!([0, 1 << 62, 1 << 28, 1 << 62 | 1 << 28].map(access), expected);
    }

    #[test]
    fn each_reason_has_its_words() {
        let texts = [
            (0x01, "the bus has no contexts"),
            (0x02, "the device has no context"),
            (0x03, "the context is invalid"),
            (0x04, "the address is too wide"),
            (0x05, "the page takes no writes"),
            (0x06, "the page takes no reads"),
            (0x07, "a table cannot be read"),
            (0x08, "the root table cannot be read"),
            (0x09, "the context table cannot be read"),
            (0x0a, "a reserved bit of the root entry"),
            (0x0b, "a reserved bit of the context entry"),
            (0x0c, "a reserved bit of a second-level entry"),
            (0x0d, "the device may not translate for itself"),
            (0x20, "a reserved bit of the interrupt request"),
            (0x21, "the interrupt's index is too large"),
            (0x22, "the interrupt's entry is not present"),
            (0x23, "the interrupt table cannot be read"),
            (0x24, "a reserved bit of the interrupt's entry"),
            (0x25, "interrupts in the old format are blocked"),
            (0x26, "the interrupt is another device's"),
        ];
        for reason in 0..=u8::MAX {
            let known = texts.iter().find(|(number, _)| *number == reason);
            let text = known.map_or("for a reason that is not known", |(_, text)| text);
            let fault = Fault { source: SourceId(0), access: Access::Write, address: 0, reason };
            assert_eq!(fault.reason_text(), text, "{reason:#x}");
        }
    }

    #[test]
    fn the_status_names_the_first_record() {
        assert_eq!(FaultStatus::from_bits_retain(0xffff_a5ff).first_record(), 0xa5);
        assert_eq!(FaultStatus::QUEUE_ERRORS.bits(), 0x70);
    }
}
