//! Policies over registers (TPM 2.0 Library part 3, "Enhanced Authorization (EA) Commands").

use super::{Selection, Tpm2, code, patience};
use crate::algorithm::{Algorithm, Digest};
use crate::command::Command;
use crate::device::Transport;
use crate::error::TpmError;

const NULL_HANDLE: u32 = 0x4000_0007;
const NULL: u16 = 0x10;
/// Kinds of sessions.
const POLICY: u8 = 1;
const TRIAL: u8 = 3;

/// A policy session in the TPM, until it is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session(pub u32);

impl<T: Transport> Tpm2<T> {
    /// TPM2_StartAuthSession: a session in which a policy is fulfilled, or, on `trial`, one that computes its digest alone.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn policy_session(&mut self, trial: bool) -> Result<Session, TpmError> {
        let mut command = Command::new(code::START_AUTH_SESSION);
        // The nonce counts where a session has a key; this one has none.
        command.u32(NULL_HANDLE).u32(NULL_HANDLE).sized(&[0; 16]).sized(&[]);
        command.u8(if trial { TRIAL } else { POLICY }).u16(NULL).u16(Algorithm::Sha256.number());
        self.execute(&mut command, patience::SHORT, |answer| answer.u32().map(Session))
    }

    /// TPM2_PolicyPCR: the registers have the values that they have now, or, where `expected` is given, whose hash that is.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; [`TpmError::Refused`] where the registers are others than expected.
    pub fn policy_pcr(
        &mut self,
        session: Session,
        selection: Selection,
        expected: Option<&Digest>,
    ) -> Result<(), TpmError> {
        let mut command = Command::new(code::POLICY_PCR);
        command.u32(session.0).sized(expected.map_or(&[], Digest::bytes));
        selection.write(&mut command);
        self.execute(&mut command, patience::SHORT, |_| Some(()))
    }

    /// TPM2_PolicyGetDigest: what a session's policy has come to.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn policy_digest(&mut self, session: Session) -> Result<Digest, TpmError> {
        let mut command = Command::new(code::POLICY_GET_DIGEST);
        command.u32(session.0);
        self.execute(&mut command, patience::SHORT, |answer| Digest::new(Algorithm::Sha256, answer.sized()?))
    }
}
