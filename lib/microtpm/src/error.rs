//! What a command of the microTPM fails with.

/// Why a command failed. The number is what the hypercall returns; 0 there is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Error {
    /// An argument makes no sense, or a blob is none that this machine sealed.
    BadParameter = 1,
    /// There is no register of that index.
    PcrOutOfRange = 2,
    /// The machine has no entropy to give.
    InsufficientEntropy = 3,
    /// Any other: the registers are not those that a blob is bound to.
    Other = 4,
    /// No memory is left; this number, and those that follow, are not the original's.
    OutOfMemory = 36,
    /// The PAL was registered without a signed header.
    NotSigned = 51,
}

impl Error {
    /// Returns the status of the hypercall.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Error::{BadParameter, InsufficientEntropy, Other, PcrOutOfRange};

    #[test]
    fn codes_are_those_of_the_original() {
        let codes = [BadParameter, PcrOutOfRange, InsufficientEntropy, Other].map(super::Error::code);
        assert_eq!(codes, [1, 2, 3, 4]);
    }
}
