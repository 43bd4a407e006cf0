//! Commands, as they are sent (TPM 2.0 Library part 1, "Command/Response Structure").

use crate::error::TpmError;

/// Most bytes of a command.
pub(crate) const COMMAND_LIMIT: usize = 2048;

/// Tags.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// The handle that stands for a password.
const PASSWORD: u32 = 0x4000_0009;

/// A command that is being written.
#[derive(Debug)]
pub(crate) struct Command {
    code: u32,
    bytes: [u8; COMMAND_LIMIT],
    length: usize,
    is_too_long: bool,
}

impl Command {
    /// A command that needs no authorization.
    pub(crate) fn new(code: u32) -> Self {
        let mut command = Self { code, bytes: [0; COMMAND_LIMIT], length: 0, is_too_long: false };
        command.u16(NO_SESSIONS).u32(0).u32(code);
        command
    }

    /// A command over `handles`, the first `authorized` of which have an empty password.
    pub(crate) fn by_password(code: u32, handles: &[u32], authorized: u8) -> Self {
        let sessions = [PASSWORD; 4];
        Self::by_sessions(code, handles, sessions.get(..authorized.into()).unwrap_or_default())
    }

    /// A command over `handles`, authorized by `sessions`: passwords and policies, none of which needs a key.
    pub(crate) fn by_sessions(code: u32, handles: &[u32], sessions: &[u32]) -> Self {
        let mut command = Self::new(code);
        command.put(0, &SESSIONS.to_be_bytes());
        handles.iter().for_each(|handle| {
            command.u32(*handle);
        });
        let place = command.length;
        command.u32(0);
        for session in sessions {
            // No nonce, the session goes on, no key.
            command.u32(*session).u16(0).u8(u8::from(*session != PASSWORD)).u16(0);
        }
        let size = command.length - place - 4;
        command.put(place, &u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        command
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        match self.bytes.get_mut(self.length..self.length + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => self.is_too_long = true,
        }
        self
    }

    /// Bytes behind their number, a TPM2B.
    pub(crate) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        match u16::try_from(bytes.len()) {
            Ok(length) => self.u16(length).raw(bytes),
            Err(_) => {
                self.is_too_long = true;
                self
            }
        }
    }

    /// What `fill` writes, behind its number of bytes.
    pub(crate) fn structure(&mut self, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let place = self.length;
        self.u16(0);
        fill(self);
        let size = u16::try_from(self.length.saturating_sub(place + 2)).unwrap_or(u16::MAX);
        self.put(place, &size.to_be_bytes());
        self
    }

    /// The command's code.
    pub(crate) const fn code(&self) -> u32 {
        self.code
    }

    /// Whether the answer has parameters behind their size, and sessions.
    pub(crate) fn has_sessions(&self) -> bool {
        self.bytes.starts_with(&SESSIONS.to_be_bytes())
    }

    /// The whole command.
    pub(crate) fn finish(&mut self) -> Result<&[u8], TpmError> {
        let size = u32::try_from(self.length).map_err(|_| TpmError::TooLong)?;
        self.put(2, &size.to_be_bytes());
        if self.is_too_long {
            return Err(TpmError::TooLong);
        }
        self.bytes.get(..self.length).ok_or(TpmError::TooLong)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        match self.bytes.get_mut(at..at + bytes.len()) {
            Some(place) => place.copy_from_slice(bytes),
            None => self.is_too_long = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_size_and_sessions() {
        let mut startup = Command::new(0x144);
        assert_eq!(startup.u16(0).finish().unwrap(), [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0]);
        let mut extend = Command::by_password(0x182, &[17], 1);
        let wanted =
            [0x80, 2, 0, 0, 0, 27, 0, 0, 1, 0x82, 0, 0, 0, 17, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
        assert_eq!(extend.finish().unwrap(), wanted);
        assert!(extend.has_sessions() && !startup.has_sessions());
    }

    #[test]
    fn a_structure_is_behind_its_size() {
        let mut command = Command::new(1);
        command.structure(|command| {
            command.u16(5).sized(&[7]);
        });
        assert_eq!(command.finish().unwrap()[10..], [0, 5, 0, 5, 0, 1, 7]);
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let mut command = Command::new(1);
        assert!(command.raw(&[0; COMMAND_LIMIT - 10]).finish().is_ok());
        assert_eq!(command.u8(0).finish(), Err(TpmError::TooLong));
        assert_eq!(Command::new(1).sized(&[0; 0x1_0000]).finish(), Err(TpmError::TooLong));
    }
}
