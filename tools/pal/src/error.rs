//! What can go wrong, and what to do about it.

use crate::image::ImageError;
use core::fmt;
use trustvisor::call::{Failure, FaultKind};
use trustvisor::status::Status;

/// Why a PAL could not be registered, called or given up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// CPUID does not tell of TrustVisor.
    Absent,
    /// The PAL's file is none, or not for this program.
    Image(ImageError),
    /// The PAL's addresses are in use in this process; by the same PAL, most likely.
    AddressTaken {
        /// The first of them.
        start: usize,
    },
    /// The system refuses memory.
    Memory {
        /// What was asked of it.
        request: &'static str,
        /// Its error number.
        number: i32,
    },
    /// More sections or parameters than a list holds.
    ListFull,
    /// TrustVisor refused a hypercall.
    Refused {
        /// What was to be done.
        request: &'static str,
        /// What it returned.
        status: Status,
    },
    /// The arguments of a call are not those that the PAL was registered with.
    Arguments,
    /// A call failed, and the PAL has not run.
    Failed(Failure),
    /// The PAL raised an exception and is gone, with all that it knew.
    Faulted(Fault),
}

/// The exception that ended a PAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// For a page fault the address that was accessed, else that of the instruction.
    pub address: usize,
}

impl core::error::Error for Error {}

/// In words too: this is what a program shows that returns the error from `main`.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The original's words, which scripts look for, before our advice.
            Self::Absent => formatter.write_str(
                "TrustVisor not present according to CPUID; boot with it: tools/xmhf run --hypapp trustvisor",
            ),
            Self::Image(why) => write!(formatter, "the PAL's file: {why}"),
            Self::AddressTaken { start } => write!(
                formatter,
                "the memory at {start:#x} is in use: this process has the PAL already; unregister that one, or \
                 build the other PAL under another name"
            ),
            Self::Memory { request: "mlock", number } => write!(
                formatter,
                "the system does not lock the PAL's pages in memory (error {number}): raise the limit, \
                 ulimit -l, or run with CAP_IPC_LOCK"
            ),
            Self::Memory { request, number } => {
                write!(formatter, "the system refuses memory: {request}, error {number}")
            }
            Self::ListFull => formatter.write_str("a PAL has at most 64 sections and 64 parameters"),
            Self::Refused { request, status } => {
                write!(formatter, "{request} was refused (status {}): {}", status.0, status.explanation())
            }
            Self::Arguments => formatter.write_str(
                "the arguments differ in number or type from those that the PAL was registered with",
            ),
            Self::Failed(failure) => {
                write!(formatter, "the call failed ({:#x}): {}", failure.0, failure.explanation())
            }
            Self::Faulted(fault) => write!(formatter, "{fault}; unregister it"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.kind.0 {
            0 => write!(formatter, "the PAL divided by zero at {address:#x}"),
            1 => write!(formatter, "the PAL ran into a debug exception at {address:#x}"),
            3 => write!(formatter, "the PAL executed a breakpoint at {address:#x}"),
            6 => write!(formatter, "the PAL panicked, or executed an unknown instruction, at {address:#x}"),
            7 => write!(
                formatter,
                "the PAL used the FPU or vector registers at {address:#x}: compile it for general registers only"
            ),
            14 => write!(
                formatter,
                "the PAL accessed {address:#x}, which is in none of its sections or not writable"
            ),
            0x100 => write!(formatter, "the PAL executed an instruction that no PAL may, at {address:#x}"),
            0x101 => write!(formatter, "the PAL ran into a shutdown at {address:#x}"),
            vector => write!(formatter, "the PAL raised exception {vector} at {address:#x}"),
        }
    }
}

impl From<ImageError> for Error {
    fn from(why: ImageError) -> Self {
        Self::Image(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_to_do() {
        let text = |error: Error| error.to_string();
        assert!(text(Error::Absent).contains("not present according to CPUID; boot with it"));
        assert!(text(Error::Memory { request: "mlock", number: 12 }).contains("ulimit -l"));
        assert!(text(Error::AddressTaken { start: 0x6000_0000 }).contains("0x60000000"));
        let refused = Error::Refused { request: "registering", status: Status::PAGE_TAKEN };
        assert_eq!(
            text(refused),
            "registering was refused (status 29): a page of a section belongs to another PAL"
        );
        assert!(text(Error::Failed(Failure::BUSY)).contains("try again"));
    }

    #[test]
    fn a_fault_names_its_cause() {
        let text = |kind| Fault { kind: FaultKind(kind), address: 0x1234 }.to_string();
        assert!(text(7).contains("general registers only"));
        assert!(text(14).contains("0x1234"));
        assert_eq!(text(17), "the PAL raised exception 17 at 0x1234");
    }
}
