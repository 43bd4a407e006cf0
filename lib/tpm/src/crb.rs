//! The command response buffer: a command and its answer stand in memory (PTP, "CRB Interface").

use crate::device::{Device, Transport, wait};
use crate::error::TransportError;
use crate::tis::size_of;

/// Registers, by their offset in the locality.
mod register {
    pub(super) const LOCALITY_STATE: u16 = 0x0;
    pub(super) const LOCALITY_CONTROL: u16 = 0x8;
    pub(super) const LOCALITY_STATUS: u16 = 0xc;
    pub(super) const REQUEST: u16 = 0x40;
    pub(super) const STATUS: u16 = 0x44;
    pub(super) const CANCEL: u16 = 0x48;
    pub(super) const START: u16 = 0x4c;
    pub(super) const COMMAND_SIZE: u16 = 0x58;
    pub(super) const COMMAND_LOW: u16 = 0x5c;
    pub(super) const COMMAND_HIGH: u16 = 0x60;
    pub(super) const ANSWER_SIZE: u16 = 0x64;
    pub(super) const ANSWER_LOW: u16 = 0x68;
    pub(super) const ANSWER_HIGH: u16 = 0x6c;
}

/// The locality's registers are valid.
const STATE_VALID: u32 = 1 << 7;
const LOCALITY_REQUEST: u32 = 1 << 0;
const LOCALITY_RELINQUISH: u32 = 1 << 1;
const LOCALITY_GRANTED: u32 = 1 << 0;
const COMMAND_READY: u32 = 1 << 0;
const GO_IDLE: u32 = 1 << 1;
const STATUS_ERROR: u32 = 1 << 0;
const STATUS_IDLE: u32 = 1 << 1;

/// Microseconds that a TPM may take (PTP, "Interface Timeouts").
const TIMEOUT_A: u64 = 750_000;
const TIMEOUT_B: u64 = 2_000_000;
const TIMEOUT_C: u64 = 200_000;
/// Bytes of a command's or an answer's header.
const HEADER: usize = 10;
/// Bytes of a locality.
const LOCALITY: u64 = 0x1000;

/// A TPM by its buffer, at a locality that is ours.
#[derive(Debug)]
pub struct Crb<D: Device> {
    device: D,
    command: Buffer,
    answer: Buffer,
}

/// A buffer among the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Buffer {
    offset: u16,
    size: usize,
}

impl<D: Device> Crb<D> {
    /// Asks for the locality, and where the buffers are.
    ///
    /// # Errors
    ///
    /// [`TransportError::Absent`], [`TransportError::Locality`] or [`TransportError::BufferElsewhere`].
    pub fn open(mut device: D) -> Result<Self, TransportError> {
        let state = device.read_u32(register::LOCALITY_STATE);
        if state == u32::MAX || state & STATE_VALID == 0 {
            return Err(TransportError::Absent);
        }
        device.write_u32(register::LOCALITY_CONTROL, LOCALITY_REQUEST);
        let given = wait(&mut device, TIMEOUT_A, |device| {
            let status = device.read_u32(register::LOCALITY_STATUS);
            (status != u32::MAX && status & LOCALITY_GRANTED != 0).then_some(())
        });
        given.ok_or(TransportError::Locality)?;
        let command =
            Buffer::of(&mut device, [register::COMMAND_LOW, register::COMMAND_HIGH, register::COMMAND_SIZE]);
        let answer =
            Buffer::of(&mut device, [register::ANSWER_LOW, register::ANSWER_HIGH, register::ANSWER_SIZE]);
        Ok(Self { command: command?, answer: answer?, device })
    }

    /// Gives the locality back.
    pub fn close(mut self) -> D {
        self.device.write_u32(register::LOCALITY_CONTROL, LOCALITY_RELINQUISH);
        self.device
    }

    /// Asks for a state, and waits for the request to be taken.
    fn request(&mut self, request: u32) -> bool {
        self.device.write_u32(register::REQUEST, request);
        let is_taken = |device: &mut D| (device.read_u32(register::REQUEST) & request == 0).then_some(());
        wait(&mut self.device, TIMEOUT_C, is_taken).is_some()
    }

    fn send(&mut self, command: &[u8]) -> Result<(), TransportError> {
        if command.len() < HEADER || command.len() > self.command.size {
            return Err(TransportError::CommandSize(command.len()));
        }
        if !self.request(COMMAND_READY) || self.device.read_u32(register::STATUS) & STATUS_IDLE != 0 {
            return Err(TransportError::NotReady);
        }
        for (offset, byte) in (self.command.offset..).zip(command) {
            self.device.write_u8(offset, *byte);
        }
        self.device.write_u32(register::START, 1);
        Ok(())
    }

    fn receive(&mut self, answer: &mut [u8], patience: u64) -> Result<usize, TransportError> {
        let is_done = |device: &mut D| (device.read_u32(register::START) == 0).then_some(());
        if wait(&mut self.device, patience, is_done).is_none() {
            self.device.write_u32(register::CANCEL, 1);
            let cancelled = wait(&mut self.device, TIMEOUT_B, is_done);
            self.device.write_u32(register::CANCEL, 0);
            return Err(cancelled.map_or(TransportError::Broken, |()| TransportError::NoAnswer));
        }
        if self.device.read_u32(register::STATUS) & STATUS_ERROR != 0 {
            return Err(TransportError::Broken);
        }
        let room = answer.len().min(self.answer.size);
        let header = answer.get_mut(..HEADER).ok_or(TransportError::AnswerSize(0))?;
        self.take(0, header);
        let size = size_of(header);
        let length = usize::try_from(size).ok().filter(|length| (HEADER..=room).contains(length));
        let length = length.ok_or(TransportError::AnswerSize(size))?;
        self.take(10, answer.get_mut(HEADER..length).unwrap_or_default());
        Ok(length)
    }

    fn take(&mut self, from: u16, bytes: &mut [u8]) {
        for (offset, byte) in (self.answer.offset + from..).zip(bytes) {
            *byte = self.device.read_u8(offset);
        }
    }
}

impl Buffer {
    /// Reads address and size, from registers for the address's two halves and the size.
    fn of(device: &mut impl Device, [low, high, size]: [u16; 3]) -> Result<Self, TransportError> {
        let address = (u64::from(device.read_u32(high)) << 32) | u64::from(device.read_u32(low));
        let elsewhere = TransportError::BufferElsewhere(address);
        let size = device.read_u32(size);
        let offset = address.checked_sub(device.base()).ok_or(elsewhere)?;
        let last = LOCALITY.checked_sub(size.into()).filter(|_| size as usize >= HEADER);
        let is_inside = |offset: &u64| last.is_some_and(|last| *offset <= last);
        let offset = Some(offset).filter(is_inside).and_then(|offset| u16::try_from(offset).ok());
        let offset = offset.ok_or(elsewhere)?;
        Ok(Self { offset, size: size as usize })
    }
}

impl<D: Device> Transport for Crb<D> {
    fn transact(
        &mut self,
        command: &[u8],
        answer: &mut [u8],
        patience: u64,
    ) -> Result<usize, TransportError> {
        let done = self.send(command).and_then(|()| self.receive(answer, patience));
        // What cannot be ended now is found out by the next command.
        self.request(GO_IDLE);
        done
    }
}

#[cfg(test)]
#[path = "crb_tests.rs"]
mod tests;
