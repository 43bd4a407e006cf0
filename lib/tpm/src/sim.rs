//! A TPM's registers in memory, before a chip of any kind, with the faults that one may have.

use crate::device::Device;

/// What executes commands: gives the answer.
pub trait Chip {
    /// Executes one command.
    fn execute(&mut self, command: &[u8]) -> Vec<u8>;
}

impl<F: FnMut(&[u8]) -> Vec<u8>> Chip for F {
    fn execute(&mut self, command: &[u8]) -> Vec<u8> {
        self(command)
    }
}

/// What is wrong with the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Nobody answers: all ones.
    Absent,
    /// The locality is not given.
    NoLocality,
    /// It never gets ready for a command.
    NeverReady,
    /// It takes no byte.
    NoBurst,
    /// It has enough after this many bytes.
    EnoughAfter(usize),
    /// It wants more behind the command's end.
    WantsMore,
    /// It never answers.
    NoAnswer,
    /// Its answer says that it has this many bytes.
    Size(u32),
    /// Its answer is cut to this many bytes.
    CutTo(usize),
    /// Its answer goes on for a byte.
    GoesOn,
    /// It says that it is broken.
    Broken,
    /// Its buffer is elsewhere.
    Elsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Ready,
    Receiving,
    Busy,
    Done,
}

/// By which registers it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The FIFO interface.
    Fifo,
    /// The command response buffer.
    Crb,
}

/// Bytes of the buffer, and where it is.
const BUFFER_SIZE: u32 = 0xf80;
const BUFFER: usize = BUFFER_SIZE as usize;
const BUFFER_AT: u16 = 0x80;
const BASE: u64 = 0xfed4_2000;

/// The device.
#[derive(Debug)]
pub struct Simulated<C> {
    chip: C,
    kind: Kind,
    fault: Fault,
    state: State,
    is_ours: bool,
    buffer: Vec<u8>,
    at: usize,
    time: u64,
    /// Bytes that the FIFO takes or gives at once.
    pub burst: u16,
}

impl<C: Chip> Simulated<C> {
    /// A device before `chip`.
    pub fn new(kind: Kind, chip: C, fault: Fault) -> Self {
        let buffer = if kind == Kind::Crb { vec![0; BUFFER] } else { Vec::new() };
        Self { chip, kind, fault, state: State::Idle, is_ours: false, buffer, at: 0, time: 0, burst: 32 }
    }

    /// Microseconds that went by, ten for each look at a register.
    pub const fn elapsed(&self) -> u64 {
        self.time
    }

    /// Whether the locality was asked for and not given back.
    pub const fn is_ours(&self) -> bool {
        self.is_ours
    }

    fn run(&mut self) {
        if self.fault == Fault::NoAnswer {
            self.state = State::Busy;
            return;
        }
        let length = if self.kind == Kind::Crb { self.size() } else { self.buffer.len() };
        let command = self.buffer.get(..length).unwrap_or_default().to_vec();
        let mut answer = self.chip.execute(&command);
        match self.fault {
            Fault::Size(size) => answer.splice(2..6, size.to_be_bytes()).for_each(drop),
            Fault::CutTo(length) => answer.truncate(length),
            Fault::GoesOn => answer.push(0),
            _ => {}
        }
        if self.kind == Kind::Crb {
            answer.resize(BUFFER, 0);
        }
        (self.buffer, self.at, self.state) = (answer, 0, State::Done);
    }

    fn size(&self) -> usize {
        crate::tis::size_of(&self.buffer) as usize
    }

    fn fifo_status(&self) -> u32 {
        let is_short = self.buffer.len() < 10 || self.buffer.len() < self.size();
        let is_short = match self.fault {
            Fault::EnoughAfter(length) => self.buffer.len() < length,
            Fault::WantsMore => true,
            _ => is_short,
        };
        let bits = match self.state {
            State::Ready if self.fault != Fault::NeverReady => 0x40,
            State::Receiving if is_short => 0x08,
            State::Done if self.at < self.buffer.len() => 0x10,
            _ => 0,
        };
        let burst = if self.fault == Fault::NoBurst { 0 } else { u32::from(self.burst) };
        0x80 | bits | burst << 8
    }

    fn fifo_read(&mut self, offset: u16) -> u32 {
        match offset {
            0x0 => 0x81 | if self.is_ours && self.fault != Fault::NoLocality { 0x20 } else { 0 },
            0x18 => self.fifo_status(),
            0x24 if self.state == State::Done => {
                self.at += 1;
                self.buffer.get(self.at - 1).map_or(0xff, |byte| u32::from(*byte))
            }
            0x30 => 0x8_2100,
            _ => u32::MAX,
        }
    }

    fn fifo_write(&mut self, offset: u16, value: u8) {
        match offset {
            0x0 if value & 0x02 != 0 => self.is_ours = true,
            0x0 if value & 0x20 != 0 => self.is_ours = false,
            0x18 if value & 0x40 != 0 => {
                (self.state, self.at) = (State::Ready, 0);
                self.buffer.clear();
            }
            0x18 if value & 0x20 != 0 => self.run(),
            0x24 => {
                self.state = State::Receiving;
                self.buffer.push(value);
            }
            _ => {}
        }
    }

    fn crb_read(&self, offset: u16) -> u32 {
        let [low, high] = [(BASE & 0xffff_ffff) as u32, (BASE >> 32) as u32];
        match offset {
            0x0 => 0x80,
            0xc => u32::from(self.is_ours && self.fault != Fault::NoLocality),
            0x30 => 0x2_4111,
            0x40 => u32::from(self.fault == Fault::NeverReady),
            0x44 => u32::from(self.fault == Fault::Broken) | u32::from(self.state == State::Idle) << 1,
            0x4c => u32::from(self.state == State::Busy),
            0x58 | 0x64 => BUFFER_SIZE,
            0x5c | 0x68 if self.fault == Fault::Elsewhere => low + 0x1000,
            0x5c | 0x68 => low + u32::from(BUFFER_AT),
            0x60 | 0x6c => high,
            _ => 0,
        }
    }

    fn crb_write(&mut self, offset: u16, value: u32) {
        match offset {
            0x8 if value & 1 != 0 => self.is_ours = true,
            0x8 if value & 2 != 0 => self.is_ours = false,
            0x40 if value & 1 != 0 => self.state = State::Ready,
            0x40 if value & 2 != 0 => self.state = State::Idle,
            0x4c if value & 1 != 0 => self.run(),
            _ => {}
        }
    }
}

impl<C: Chip> Device for Simulated<C> {
    fn read_u8(&mut self, offset: u16) -> u8 {
        self.time += 10;
        let buffer = offset.checked_sub(BUFFER_AT).filter(|_| self.kind == Kind::Crb);
        match buffer {
            _ if self.fault == Fault::Absent => 0xff,
            Some(at) => self.buffer.get(usize::from(at)).copied().unwrap_or(0xff),
            None if self.kind == Kind::Crb => self.crb_read(offset).to_le_bytes()[0],
            None => self.fifo_read(offset).to_le_bytes()[0],
        }
    }

    fn write_u8(&mut self, offset: u16, value: u8) {
        match self.kind {
            Kind::Fifo => self.fifo_write(offset, value),
            Kind::Crb => {
                let at = offset.checked_sub(BUFFER_AT).map(usize::from);
                if let Some(place) = at.and_then(|at| self.buffer.get_mut(at)) {
                    *place = value;
                }
            }
        }
    }

    fn read_u32(&mut self, offset: u16) -> u32 {
        self.time += 10;
        match self.kind {
            _ if self.fault == Fault::Absent => u32::MAX,
            Kind::Fifo => self.fifo_read(offset),
            Kind::Crb => self.crb_read(offset),
        }
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        match self.kind {
            Kind::Fifo => self.fifo_write(offset, value.to_le_bytes()[0]),
            Kind::Crb => self.crb_write(offset, value),
        }
    }

    fn base(&self) -> u64 {
        BASE
    }

    fn now(&mut self) -> u64 {
        self.time
    }
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;
