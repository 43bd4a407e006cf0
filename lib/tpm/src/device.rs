//! What a driver reaches of a TPM: the registers of one locality, and a clock to give up by.

use crate::error::TransportError;

/// The 4 KiB of registers of one locality (PTP, "Register Space Addresses"), and time.
pub trait Device {
    /// Reads a byte at `offset`.
    fn read_u8(&mut self, offset: u16) -> u8;
    /// Writes a byte at `offset`.
    fn write_u8(&mut self, offset: u16, value: u8);
    /// Reads 32 bits at `offset`.
    fn read_u32(&mut self, offset: u16) -> u32;
    /// Writes 32 bits at `offset`.
    fn write_u32(&mut self, offset: u16, value: u32);
    /// Physical address of the locality.
    fn base(&self) -> u64;
    /// Microseconds since some moment. It has to go on, or waits have no end.
    fn now(&mut self) -> u64;
}

/// Sends a command and waits for its answer.
pub trait Transport {
    /// Sends `command`, waits `patience` microseconds at most for the answer, and gives how many bytes of `answer` it has.
    ///
    /// # Errors
    ///
    /// [`TransportError`]; the TPM may then be in any state, and the next command starts anew.
    fn transact(&mut self, command: &[u8], answer: &mut [u8], patience: u64)
    -> Result<usize, TransportError>;
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn transact(
        &mut self,
        command: &[u8],
        answer: &mut [u8],
        patience: u64,
    ) -> Result<usize, TransportError> {
        (**self).transact(command, answer, patience)
    }
}

/// By which registers a TPM speaks (PTP, "Interface Identifier").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// A buffer, byte by byte: [`crate::tis::Tis`].
    Fifo,
    /// A buffer in memory: [`crate::crb::Crb`].
    Crb,
}

impl Interface {
    /// Asks a device.
    ///
    /// # Errors
    ///
    /// [`TransportError::Absent`]: nobody answers, or with an interface that is not known.
    pub fn of(device: &mut impl Device) -> Result<Self, TransportError> {
        const IDENTIFIER: u16 = 0x30;
        match device.read_u32(IDENTIFIER) {
            u32::MAX => Err(TransportError::Absent),
            // 15: of the time before there was this register.
            identifier => match identifier & 0xf {
                0 | 0xf => Ok(Self::Fifo),
                1 => Ok(Self::Crb),
                _ => Err(TransportError::Absent),
            },
        }
    }
}

/// Looks again until `found` has something; `None` when `limit` microseconds are over.
pub(crate) fn wait<D: Device, T>(
    device: &mut D,
    limit: u64,
    mut found: impl FnMut(&mut D) -> Option<T>,
) -> Option<T> {
    let start = device.now();
    loop {
        // The time is taken before the look: who was kept from running for long still looks once more.
        let waited = device.now().saturating_sub(start);
        if let Some(result) = found(device) {
            return Some(result);
        }
        if waited > limit {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands at each of these times once, and never has what is waited for.
    struct Clock<'a>(&'a [u64]);

    impl Device for Clock<'_> {
        fn read_u8(&mut self, _: u16) -> u8 {
            0
        }
        fn write_u8(&mut self, _: u16, _: u8) {}
        fn read_u32(&mut self, _: u16) -> u32 {
            0
        }
        fn write_u32(&mut self, _: u16, _: u32) {}
        fn base(&self) -> u64 {
            0
        }
        fn now(&mut self) -> u64 {
            let (now, rest) = self.0.split_first().unwrap();
            self.0 = rest;
            *now
        }
    }

    #[test]
    fn a_wait_ends_with_the_first_look_behind_its_limit() {
        // The first time is the wait's begin.
        let looks = |times: &[u64]| {
            let mut looks = 0;
            let found = wait(&mut Clock(times), 10, |_| {
                looks += 1;
                None::<()>
            });
            assert_eq!(found, None);
            looks
        };
        assert_eq!(looks(&[100, 111]), 1);
        assert_eq!(looks(&[100, 100, 110, 111]), 3);
        assert_eq!(wait(&mut Clock(&[100, 200]), 10, |_| Some(7)), Some(7));
    }

    #[test]
    fn what_borrows_a_transport_is_one() {
        struct Length;
        impl Transport for Length {
            fn transact(&mut self, command: &[u8], _: &mut [u8], _: u64) -> Result<usize, TransportError> {
                Ok(command.len())
            }
        }
        fn transact(mut transport: impl Transport) -> Result<usize, TransportError> {
            transport.transact(&[0; 12], &mut [], 0)
        }
        assert_eq!(transact(&mut Length), Ok(12));
    }
}
