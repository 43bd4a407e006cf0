//! Platform configuration registers (TPM 2.0 Library part 3, "Integrity Collection (PCR)").

use super::{Tpm2, code, parameters, patience};
use crate::algorithm::{Algorithm, Digest};
use crate::answer::Answer;
use crate::command::Command;
use crate::device::Transport;
use crate::error::TpmError;

/// Registers of a bank.
pub const PCRS: u8 = 24;
/// Banks that are looked at, at most.
const BANKS_LIMIT: usize = 8;
/// Capability of the banks.
const CAPABILITY_PCRS: u32 = 5;
/// PCR_Event takes so many bytes at most.
const EVENT_LIMIT: usize = 1024;

/// A bank of registers, by the TCG's number of its algorithm, which need not be known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bank {
    /// The algorithm's number.
    pub algorithm: u16,
    /// Bit i: register i is there.
    pub registers: u32,
}

/// The banks that are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Banks {
    banks: [Bank; BANKS_LIMIT],
    count: usize,
}

impl Banks {
    /// The banks in the TPM's order.
    #[must_use]
    pub fn iter(&self) -> &[Bank] {
        self.banks.get(..self.count).unwrap_or_default()
    }

    /// Whether a bank is active whose digests cannot be computed here: the TPM has to, by [`Tpm2::pcr_event`].
    #[must_use]
    pub fn has_unknown(&self, known: &[Algorithm]) -> bool {
        self.iter().iter().any(|bank| !known.iter().any(|algorithm| algorithm.number() == bank.algorithm))
    }
}

/// Registers of one bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The bank.
    pub algorithm: Algorithm,
    /// Bit i: register i is meant.
    pub registers: u32,
}

impl Selection {
    /// Writes a TPML_PCR_SELECTION of this alone.
    pub(super) fn write(self, command: &mut Command) {
        let [low, middle, high, _] = self.registers.to_le_bytes();
        command.u32(1).u16(self.algorithm.number()).u8(3).raw(&[low, middle, high]);
    }
}

impl<T: Transport> Tpm2<T> {
    /// TPM2_GetCapability: the banks of which at least one register is there.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; [`TpmError::Malformed`] too where there are more banks than can be looked at: one that is not extended
    /// could be filled by somebody else.
    pub fn banks(&mut self) -> Result<Banks, TpmError> {
        let mut command = Command::new(code::GET_CAPABILITY);
        command.u32(CAPABILITY_PCRS).u32(0).u32(1);
        self.execute(&mut command, patience::SHORT, read_banks)
    }

    /// TPM2_PCR_Extend: each digest into the register `pcr` of its bank.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn pcr_extend(&mut self, pcr: u8, digests: &[Digest]) -> Result<(), TpmError> {
        let mut command = Command::by_password(code::PCR_EXTEND, &[pcr.into()], 1);
        command.u32(u32::try_from(digests.len()).map_err(|_| TpmError::TooLong)?);
        for digest in digests {
            command.u16(digest.algorithm().number()).raw(digest.bytes());
        }
        self.execute(&mut command, patience::SHORT, |_| Some(()))
    }

    /// TPM2_PCR_Event: the TPM itself hashes `data`, at most 1,024 bytes, and extends `pcr` of every bank by it. Tells
    /// `digested` each bank's digest, by its algorithm's number; one of an unknown algorithm and those behind it are not told.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn pcr_event(
        &mut self,
        pcr: u8,
        data: &[u8],
        mut digested: impl FnMut(Digest),
    ) -> Result<(), TpmError> {
        if data.len() > EVENT_LIMIT {
            return Err(TpmError::TooLong);
        }
        let mut command = Command::by_password(code::PCR_EVENT, &[pcr.into()], 1);
        command.sized(data);
        self.execute(&mut command, patience::LONG, |answer| {
            parameters(answer)?;
            for _ in 0..answer.u32()? {
                let Some(algorithm) = Algorithm::of_number(answer.u16()?) else { break };
                digested(Digest::new(algorithm, answer.take(algorithm.size())?)?);
            }
            Some(())
        })
    }

    /// TPM2_PCR_Read: one register.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; [`TpmError::Malformed`] too where the bank or the register is not there.
    pub fn pcr_read(&mut self, algorithm: Algorithm, pcr: u8) -> Result<Digest, TpmError> {
        let mut command = Command::new(code::PCR_READ);
        let registers = 1_u32.checked_shl(pcr.into()).unwrap_or(0);
        Selection { algorithm, registers }.write(&mut command);
        self.execute(&mut command, patience::SHORT, |answer| {
            // How often any register changed; then which were read.
            answer.u32()?;
            let mut banks = 0;
            read_selections(answer, |bank| banks += u32::from(bank.registers == registers))?;
            let is_one = banks == 1 && answer.u32()? == 1;
            Digest::new(algorithm, answer.sized().filter(|_| is_one)?)
        })
    }
}

fn read_banks(answer: &mut Answer<'_>) -> Option<Banks> {
    let (more, capability) = (answer.u8()?, answer.u32()?);
    if more != 0 || capability != CAPABILITY_PCRS {
        return None;
    }
    let mut banks = Banks::default();
    let mut is_full = false;
    read_selections(answer, |bank| {
        if bank.registers == 0 {
            return;
        }
        match banks.banks.get_mut(banks.count) {
            Some(place) => {
                *place = bank;
                banks.count += 1;
            }
            None => is_full = true,
        }
    })?;
    (!is_full).then_some(banks)
}

/// Reads a TPML_PCR_SELECTION.
fn read_selections(answer: &mut Answer<'_>, mut found: impl FnMut(Bank)) -> Option<()> {
    for _ in 0..answer.u32()? {
        let algorithm = answer.u16()?;
        let length = answer.u8()?;
        let map = answer.take(length.into())?;
        let registers = map.iter().take(4).rev().fold(0, |map, byte| map << 8 | u32::from(*byte));
        found(Bank { algorithm, registers });
    }
    Some(())
}
