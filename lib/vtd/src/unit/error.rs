//! Why a unit did not do what it was told.

use core::fmt;

use crate::command::Global;
use crate::fault::FaultStatus;

/// What a unit was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its global status, for these bits.
    Status(Global),
    /// The invalidation of contexts by register.
    Contexts,
    /// The invalidation of translations by register.
    Iotlb,
    /// The invalidation queue: its status word did not come, or it did not empty.
    Queue,
    /// The status of protected memory.
    ProtectedMemory,
}

/// Why a unit did not do what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// No unit answers there.
    Absent,
    /// It did not answer in time.
    Silent(Wait),
    /// It refused an invalidation.
    Refused(Wait),
    /// Its queue stands still, by these errors.
    QueueStopped(FaultStatus),
    /// It cannot do that.
    Unsupported(&'static str),
    /// What was given to it is not at a boundary of so many bytes, or ends before it begins.
    Unaligned(u64),
    /// It has no root table yet.
    NoRootTable,
    /// It has no queue yet, which this needs.
    NoQueue,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no unit answers there"),
            Self::Silent(wait) => write!(f, "the unit does not answer: {wait}"),
            Self::Refused(wait) => write!(f, "the unit refuses: {wait}"),
            Self::QueueStopped(errors) => {
                write!(f, "the invalidation queue stands still: FSTS_REG={:#x}", errors.bits())
            }
            Self::Unsupported(what) => write!(f, "the unit has no {what}"),
            Self::Unaligned(bytes) => write!(f, "not at a boundary of {bytes:#x} bytes, or empty"),
            Self::NoRootTable => f.write_str("the unit has no root table yet"),
            Self::NoQueue => f.write_str("the unit has no invalidation queue yet"),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(bits) => write!(f, "GSTS_REG bits {:#x}", bits.bits()),
            Self::Contexts => f.write_str("invalidation of contexts"),
            Self::Iotlb => f.write_str("invalidation of translations"),
            Self::Queue => f.write_str("invalidation queue"),
            Self::ProtectedMemory => f.write_str("protected memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_it_is_about() {
        let silent = UnitError::Silent(Wait::Status(Global::TRANSLATION));
        assert_eq!(silent.to_string(), "the unit does not answer: GSTS_REG bits 0x80000000");
        let stopped = UnitError::QueueStopped(FaultStatus::QUEUE_ERROR);
        assert_eq!(stopped.to_string(), "the invalidation queue stands still: FSTS_REG=0x10");
        assert_eq!(
            UnitError::Refused(Wait::Iotlb).to_string(),
            "the unit refuses: invalidation of translations"
        );
        assert_eq!(UnitError::Unaligned(0x1000).to_string(), "not at a boundary of 0x1000 bytes, or empty");
    }
}
