//! What can go wrong with a TPM.

use core::fmt;

/// The TPM did not take a command, or did not answer as it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Nobody answers there.
    Absent,
    /// The locality was not given in time.
    Locality,
    /// The TPM was not ready for a command in time.
    NotReady,
    /// It took no byte of the command in time.
    TakesNoByte,
    /// It had enough before the command's end.
    TooFew,
    /// It wants more behind the command's end.
    TooMany,
    /// There was no answer in time.
    NoAnswer,
    /// The answer's size is less than a header's or more than there is room for.
    AnswerSize(u32),
    /// The answer ends before its size says so.
    AnswerCut,
    /// The answer goes on behind its end.
    AnswerGoesOn,
    /// The TPM says that it is broken.
    Broken,
    /// The command is longer than the TPM's buffer, or shorter than its header.
    CommandSize(usize),
    /// The TPM's buffer is not among its registers.
    BufferElsewhere(u64),
}

/// Why a command did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmError {
    /// It did not get there, or no answer came.
    Transport(TransportError),
    /// The TPM refused it, with this code (TPM 2.0 Library part 2, "TPM_RC (Response Codes)").
    Refused {
        /// The command's code.
        command: u32,
        /// The response code.
        code: u32,
    },
    /// The answer is not what the command's answer looks like.
    Malformed {
        /// The command's code.
        command: u32,
    },
    /// The command does not fit into the buffer.
    TooLong,
}

impl From<TransportError> for TpmError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no TPM answers"),
            Self::Locality => f.write_str("the TPM does not give the locality"),
            Self::NotReady => f.write_str("the TPM does not get ready for a command"),
            Self::TakesNoByte => f.write_str("the TPM takes no byte of the command"),
            Self::TooFew => f.write_str("the TPM has enough before the command's end"),
            Self::TooMany => f.write_str("the TPM wants more behind the command's end"),
            Self::NoAnswer => f.write_str("the TPM does not answer"),
            Self::AnswerSize(size) => write!(f, "the TPM's answer has the impossible size {size:#x}"),
            Self::AnswerCut => f.write_str("the TPM's answer is cut"),
            Self::AnswerGoesOn => f.write_str("the TPM's answer goes on behind its end"),
            Self::Broken => f.write_str("the TPM says that it is broken"),
            Self::CommandSize(size) => write!(f, "a command of {size} bytes does not fit the TPM"),
            Self::BufferElsewhere(at) => write!(f, "the TPM's buffer is at {at:#x}, not among its registers"),
        }
    }
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Refused { command, code } => {
                write!(f, "the TPM refuses command {command:#x} with code {code:#x}")
            }
            Self::Malformed { command } => {
                write!(f, "the TPM's answer to command {command:#x} makes no sense")
            }
            Self::TooLong => f.write_str("the command is too long"),
        }
    }
}

impl core::error::Error for TransportError {}
impl core::error::Error for TpmError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transport_error_says_what_the_device_did() {
        let texts = [
            (TransportError::Absent, "no TPM answers"),
            (TransportError::Locality, "the TPM does not give the locality"),
            (TransportError::NotReady, "the TPM does not get ready for a command"),
            (TransportError::TakesNoByte, "the TPM takes no byte of the command"),
            (TransportError::TooFew, "the TPM has enough before the command's end"),
            (TransportError::TooMany, "the TPM wants more behind the command's end"),
            (TransportError::NoAnswer, "the TPM does not answer"),
            (TransportError::AnswerSize(9), "the TPM's answer has the impossible size 0x9"),
            (TransportError::AnswerCut, "the TPM's answer is cut"),
            (TransportError::AnswerGoesOn, "the TPM's answer goes on behind its end"),
            (TransportError::Broken, "the TPM says that it is broken"),
            (TransportError::CommandSize(9), "a command of 9 bytes does not fit the TPM"),
            (
                TransportError::BufferElsewhere(0xfed4_0000),
                "the TPM's buffer is at 0xfed40000, not among its registers",
            ),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
            assert_eq!(TpmError::from(error).to_string(), text);
        }
    }

    #[test]
    fn each_tpm_error_names_the_command() {
        let texts = [
            (
                TpmError::Refused { command: 0x144, code: 0x101 },
                "the TPM refuses command 0x144 with code 0x101",
            ),
            (TpmError::Malformed { command: 0x144 }, "the TPM's answer to command 0x144 makes no sense"),
            (TpmError::TooLong, "the command is too long"),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
        }
    }
}
