//! What a command is given, and how it ends where it is not carried out.

use runtime::vcpu::Vcpu;
use trustvisor::parameter::WordSize;
use trustvisor::status::Status;

/// Arguments, as wide as the caller's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    pub(crate) ecx: u64,
    pub(crate) edx: u64,
    pub(crate) esi: u64,
    pub(crate) edi: u64,
    pub(crate) word: WordSize,
}

impl Arguments {
    /// Returns the arguments in the registers of `vcpu`.
    pub(crate) fn of(vcpu: &dyn Vcpu, word: WordSize) -> Self {
        let registers = vcpu.registers();
        Self {
            ecx: word.truncate(registers.rcx()),
            edx: word.truncate(registers.rdx()),
            esi: word.truncate(registers.rsi()),
            edi: word.truncate(registers.rdi()),
            word,
        }
    }
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// The process is told.
    Status(Status),
    /// Another CPU, or what was found in the way, has to be done first: the process gives the command again.
    Again,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}
