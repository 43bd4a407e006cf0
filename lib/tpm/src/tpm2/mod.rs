//! The commands of a TPM 2.0 that a measured launch needs (TPM 2.0 Library part 3).

mod counter;
mod key;
mod pcr;
mod policy;

pub use key::{BLOB_LIMIT, Handle, SealedBlob};
pub use pcr::{Bank, Banks, PCRS, Selection};
pub use policy::Session;

use crate::answer::Answer;
use crate::command::Command;
use crate::device::Transport;
use crate::error::TpmError;
use crate::tis::size_of;

/// Most bytes of an answer.
const ANSWER_LIMIT: usize = 2048;
/// Bytes of tag, size and code.
const HEADER: usize = 10;
/// How often a command is sent again when the TPM asks for that.
const RETRIES: usize = 8;

/// Microseconds that a command may take (PTP, "Command Duration"), each with room for chips that are slower.
mod patience {
    pub(super) const SHORT: u64 = 2_000_000;
    pub(super) const LONG: u64 = 10_000_000;
    /// Making a key.
    pub(super) const KEY: u64 = 180_000_000;
}

/// Codes of commands (TPM 2.0 Library part 2, "TPM_CC (Command Codes)").
mod code {
    pub(super) const NV_UNDEFINE_SPACE: u32 = 0x122;
    pub(super) const NV_DEFINE_SPACE: u32 = 0x12a;
    pub(super) const CREATE_PRIMARY: u32 = 0x131;
    pub(super) const NV_INCREMENT: u32 = 0x134;
    pub(super) const PCR_EVENT: u32 = 0x13c;
    pub(super) const SELF_TEST: u32 = 0x143;
    pub(super) const STARTUP: u32 = 0x144;
    pub(super) const SHUTDOWN: u32 = 0x145;
    pub(super) const NV_READ: u32 = 0x14e;
    pub(super) const CREATE: u32 = 0x153;
    pub(super) const LOAD: u32 = 0x157;
    pub(super) const QUOTE: u32 = 0x158;
    pub(super) const UNSEAL: u32 = 0x15e;
    pub(super) const FLUSH_CONTEXT: u32 = 0x165;
    pub(super) const START_AUTH_SESSION: u32 = 0x176;
    pub(super) const GET_CAPABILITY: u32 = 0x17a;
    pub(super) const GET_RANDOM: u32 = 0x17b;
    pub(super) const PCR_READ: u32 = 0x17e;
    pub(super) const POLICY_PCR: u32 = 0x17f;
    pub(super) const PCR_EXTEND: u32 = 0x182;
    pub(super) const POLICY_GET_DIGEST: u32 = 0x189;
}

/// Response codes that ask for the command to be sent again: busy with something else, testing, or out of breath.
const AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];
/// The TPM was started before, which is as good.
const ALREADY_STARTED: u32 = 0x100;

/// A TPM 2.0 behind some registers.
#[derive(Debug)]
pub struct Tpm2<T: Transport> {
    transport: T,
    answer: [u8; ANSWER_LIMIT],
}

/// What the TPM keeps over a start (TPM 2.0 Library part 2, "TPM_SU (Startup Type)").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// Nothing.
    Clear,
    /// What it saved at a shutdown of that kind.
    State,
}

impl<T: Transport> Tpm2<T> {
    /// The TPM behind `transport`.
    pub const fn new(transport: T) -> Self {
        Self { transport, answer: [0; ANSWER_LIMIT] }
    }

    /// Gives the transport back.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// TPM2_Startup; whom the firmware started already stays as it is.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn startup(&mut self, kind: Startup) -> Result<(), TpmError> {
        match self.start_or_stop(code::STARTUP, kind) {
            Err(TpmError::Refused { code: ALREADY_STARTED, .. }) => Ok(()),
            done => done,
        }
    }

    /// TPM2_Shutdown.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn shutdown(&mut self, kind: Startup) -> Result<(), TpmError> {
        self.start_or_stop(code::SHUTDOWN, kind)
    }

    fn start_or_stop(&mut self, code: u32, kind: Startup) -> Result<(), TpmError> {
        let mut command = Command::new(code);
        command.u16(if kind == Startup::State { 1 } else { 0 });
        self.execute(&mut command, patience::SHORT, |_| Some(()))
    }

    /// TPM2_SelfTest of what was not tested yet.
    ///
    /// # Errors
    ///
    /// [`TpmError`]: the TPM refuses, for it failed its test.
    pub fn self_test(&mut self) -> Result<(), TpmError> {
        let mut command = Command::new(code::SELF_TEST);
        command.u8(0);
        self.execute(&mut command, patience::LONG, |_| Some(()))
    }

    /// TPM2_GetRandom: fills `bytes`.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn random(&mut self, bytes: &mut [u8]) -> Result<(), TpmError> {
        for part in bytes.chunks_mut(32) {
            let mut command = Command::new(code::GET_RANDOM);
            command.u16(u16::try_from(part.len()).map_err(|_| TpmError::TooLong)?);
            self.execute(&mut command, patience::SHORT, |answer| {
                part.copy_from_slice(answer.sized().filter(|random| random.len() == part.len())?);
                Some(())
            })?;
        }
        Ok(())
    }

    /// TPM2_FlushContext: forgets a key or a session.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn flush(&mut self, handle: u32) -> Result<(), TpmError> {
        let mut command = Command::new(code::FLUSH_CONTEXT);
        command.u32(handle);
        self.execute(&mut command, patience::SHORT, |_| Some(()))
    }

    /// Sends `command`, again where the TPM asks for that, and has `read` take its answer behind the header apart.
    fn execute<R>(
        &mut self,
        command: &mut Command,
        patience: u64,
        mut read: impl FnMut(&mut Answer<'_>) -> Option<R>,
    ) -> Result<R, TpmError> {
        let (code, has_sessions) = (command.code(), command.has_sessions());
        let malformed = TpmError::Malformed { command: code };
        let bytes = command.finish()?;
        for _ in 0..RETRIES {
            let length = self.transport.transact(bytes, &mut self.answer, patience)?;
            let answer =
                self.answer.get(..length).filter(|answer| answer.len() >= HEADER).ok_or(malformed)?;
            if size_of(answer) as usize != length {
                return Err(malformed);
            }
            let mut answer = Answer::new(answer);
            let (tag, response) = (answer.u16(), answer.u32().and_then(|_| answer.u32()));
            match (tag, response) {
                (_, Some(response)) if AGAIN.contains(&response) => {}
                // A refusal has no sessions; a TPM 1.2's has a tag of its own.
                (_, Some(response)) if response != 0 => {
                    return Err(TpmError::Refused { command: code, code: response });
                }
                (Some(tag), Some(_)) if (tag == 0x8002) == has_sessions && tag & 0xfffc == 0x8000 => {
                    return read(&mut answer).ok_or(malformed);
                }
                _ => return Err(malformed),
            }
        }
        Err(TpmError::Refused { command: code, code: AGAIN[2] })
    }
}

/// Passes over the number of bytes of the parameters, which is there where sessions are.
fn parameters(answer: &mut Answer<'_>) -> Option<()> {
    answer.u32().map(drop)
}

#[cfg(test)]
mod tests;
