//! The FIFO interface: a command and its answer go through one register, byte by byte (PTP, "FIFO Interface").

use crate::device::{Device, Transport, wait};
use crate::error::TransportError;

/// Registers, by their offset in the locality.
mod register {
    pub(super) const ACCESS: u16 = 0x0;
    pub(super) const STATUS: u16 = 0x18;
    pub(super) const DATA: u16 = 0x24;
}

/// Bits of the access register.
mod access {
    /// Reserved, and set where nobody answers.
    pub(super) const RESERVED: u8 = 1 << 6;
    pub(super) const VALID: u8 = 1 << 7;
    pub(super) const ACTIVE: u8 = 1 << 5;
    pub(super) const REQUEST: u8 = 1 << 1;
}

/// Bits of the status register's lowest byte.
mod status {
    pub(super) const VALID: u8 = 1 << 7;
    pub(super) const COMMAND_READY: u8 = 1 << 6;
    pub(super) const GO: u8 = 1 << 5;
    pub(super) const DATA_AVAILABLE: u8 = 1 << 4;
    pub(super) const EXPECT: u8 = 1 << 3;
}

/// Microseconds that a TPM may take (PTP, "Interface Timeouts").
const TIMEOUT_A: u64 = 750_000;
const TIMEOUT_B: u64 = 2_000_000;
const TIMEOUT_C: u64 = 200_000;
/// Bytes of a command's or an answer's header; its size stands behind the tag.
const HEADER: usize = 10;

/// A TPM by its FIFO, at a locality that is ours.
#[derive(Debug)]
pub struct Tis<D: Device> {
    device: D,
}

impl<D: Device> Tis<D> {
    /// Asks for the locality.
    ///
    /// # Errors
    ///
    /// [`TransportError::Absent`] or [`TransportError::Locality`].
    pub fn open(mut device: D) -> Result<Self, TransportError> {
        let access = device.read_u8(register::ACCESS);
        // All ones are what a bus reads where nobody answers; a reserved bit is clear.
        if access == u8::MAX || access & access::RESERVED != 0 {
            return Err(TransportError::Absent);
        }
        device.write_u8(register::ACCESS, access::REQUEST);
        let given = wait(&mut device, TIMEOUT_A, |device| {
            let access = device.read_u8(register::ACCESS);
            let wanted = access::VALID | access::ACTIVE;
            (access & (wanted | access::RESERVED) == wanted).then_some(())
        });
        given.ok_or(TransportError::Locality)?;
        Ok(Self { device })
    }

    /// Gives the locality back.
    pub fn close(mut self) -> D {
        self.device.write_u8(register::ACCESS, access::ACTIVE);
        self.device
    }

    /// Waits for bits of the status register to be as `wanted`.
    fn wait_for(&mut self, mask: u8, wanted: u8, limit: u64) -> bool {
        let mask = mask | status::VALID;
        let is_so = |device: &mut D| {
            let [status, ..] = device.read_u32(register::STATUS).to_le_bytes();
            (status & mask == wanted | status::VALID).then_some(())
        };
        wait(&mut self.device, limit, is_so).is_some()
    }

    /// How many bytes the TPM takes or gives without a further look.
    fn burst(&mut self) -> Option<u16> {
        wait(&mut self.device, TIMEOUT_A, |device| {
            let [_, low, high, _] = device.read_u32(register::STATUS).to_le_bytes();
            Some(u16::from_le_bytes([low, high])).filter(|burst| *burst != 0)
        })
    }

    fn has(&mut self, bit: u8) -> bool {
        let [status, ..] = self.device.read_u32(register::STATUS).to_le_bytes();
        status & bit != 0
    }

    fn send(&mut self, command: &[u8]) -> Result<(), TransportError> {
        self.device.write_u32(register::STATUS, status::COMMAND_READY.into());
        if !self.wait_for(status::COMMAND_READY, status::COMMAND_READY, TIMEOUT_B) {
            return Err(TransportError::NotReady);
        }
        let mut rest = command;
        while !rest.is_empty() {
            let burst = self.burst().ok_or(TransportError::TakesNoByte)?;
            let (now, later) = rest.split_at(rest.len().min(burst.into()));
            now.iter().for_each(|byte| self.device.write_u8(register::DATA, *byte));
            rest = later;
            if !rest.is_empty() && !self.wait_for(status::EXPECT, status::EXPECT, TIMEOUT_C) {
                return Err(TransportError::TooFew);
            }
        }
        if !self.wait_for(status::EXPECT, 0, TIMEOUT_C) {
            return Err(TransportError::TooMany);
        }
        self.device.write_u32(register::STATUS, status::GO.into());
        Ok(())
    }

    fn receive(&mut self, answer: &mut [u8], patience: u64) -> Result<usize, TransportError> {
        if !self.wait_for(status::DATA_AVAILABLE, status::DATA_AVAILABLE, patience) {
            return Err(TransportError::NoAnswer);
        }
        let room = answer.len();
        let header = answer.get_mut(..HEADER).ok_or(TransportError::AnswerSize(0))?;
        self.take(header)?;
        let size = size_of(header);
        let length = usize::try_from(size).ok().filter(|length| (HEADER..=room).contains(length));
        let length = length.ok_or(TransportError::AnswerSize(size))?;
        self.take(answer.get_mut(HEADER..length).unwrap_or_default())?;
        if !self.wait_for(0, 0, TIMEOUT_C) || self.has(status::DATA_AVAILABLE) {
            return Err(TransportError::AnswerGoesOn);
        }
        Ok(length)
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), TransportError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if !self.wait_for(status::DATA_AVAILABLE, status::DATA_AVAILABLE, TIMEOUT_C) {
                return Err(TransportError::AnswerCut);
            }
            let burst = self.burst().ok_or(TransportError::AnswerCut)?;
            // The last byte of a burst is taken after a look: a TPM that has less than it says is found out.
            let length = rest.len().min(burst.into()).saturating_sub(1).max(1);
            let (now, later) = rest.split_at_mut(length);
            now.iter_mut().for_each(|byte| *byte = self.device.read_u8(register::DATA));
            rest = later;
        }
        Ok(())
    }
}

/// The size in a header.
pub(crate) fn size_of(header: &[u8]) -> u32 {
    let bytes = header.get(2..6).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

impl<D: Device> Transport for Tis<D> {
    fn transact(
        &mut self,
        command: &[u8],
        answer: &mut [u8],
        patience: u64,
    ) -> Result<usize, TransportError> {
        if command.len() < HEADER {
            return Err(TransportError::CommandSize(command.len()));
        }
        let done = self.send(command).and_then(|()| self.receive(answer, patience));
        // Also ends what failed halfway.
        self.device.write_u32(register::STATUS, status::COMMAND_READY.into());
        done
    }
}
