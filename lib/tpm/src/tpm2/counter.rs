//! Counters that only go up, in the TPM's own memory (TPM 2.0 Library part 3, "Non-volatile Storage").

use super::{Tpm2, code, parameters, patience};
use crate::algorithm::Algorithm;
use crate::command::Command;
use crate::device::Transport;
use crate::error::TpmError;

const OWNER: u32 = 0x4000_0001;
/// Bytes of a counter.
const SIZE: u16 = 8;

/// Attributes of an index (TPM 2.0 Library part 2, "TPMA_NV (NV Index Attributes)").
mod attribute {
    pub(super) const AUTH_WRITE: u32 = 1 << 2;
    pub(super) const COUNTER: u32 = 1 << 4;
    pub(super) const AUTH_READ: u32 = 1 << 18;
    pub(super) const NO_DICTIONARY_ATTACKS: u32 = 1 << 25;
}

impl<T: Transport> Tpm2<T> {
    /// TPM2_NV_DefineSpace: a counter at `index`, with an empty password.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn counter_define(&mut self, index: u32) -> Result<(), TpmError> {
        let mut command = Command::by_password(code::NV_DEFINE_SPACE, &[OWNER], 1);
        let attributes = attribute::AUTH_WRITE
            | attribute::COUNTER
            | attribute::AUTH_READ
            | attribute::NO_DICTIONARY_ATTACKS;
        command.sized(&[]).structure(|public| {
            public.u32(index).u16(Algorithm::Sha256.number()).u32(attributes).sized(&[]).u16(SIZE);
        });
        self.execute(&mut command, patience::LONG, |_| Some(()))
    }

    /// TPM2_NV_UndefineSpace: the counter is gone; a new one at its place starts no lower.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn counter_remove(&mut self, index: u32) -> Result<(), TpmError> {
        let mut command = Command::by_password(code::NV_UNDEFINE_SPACE, &[OWNER, index], 1);
        self.execute(&mut command, patience::LONG, |_| Some(()))
    }

    /// TPM2_NV_Increment: one more.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn counter_increment(&mut self, index: u32) -> Result<(), TpmError> {
        let mut command = Command::by_password(code::NV_INCREMENT, &[index, index], 1);
        self.execute(&mut command, patience::LONG, |_| Some(()))
    }

    /// TPM2_NV_Read: where the counter stands. One that was never incremented cannot be read.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn counter_read(&mut self, index: u32) -> Result<u64, TpmError> {
        let mut command = Command::by_password(code::NV_READ, &[index, index], 1);
        command.u16(SIZE).u16(0);
        self.execute(&mut command, patience::SHORT, |answer| {
            parameters(answer)?;
            let mut bytes = crate::answer::Answer::new(answer.sized()?);
            bytes.u64().filter(|_| bytes.rest().is_empty())
        })
    }
}
