//! TXT.ERRORCODE: why the last launch failed (TXT guide, "TXT.ERRORCODE - Error Code").

use core::fmt;

/// There is a code in the register.
const VALID: u32 = 1 << 31;
/// Software wrote it, rather than the processor.
const SOFTWARE: u32 = 1 << 30;
/// The software is none of Intel's modules.
const OTHER_SOFTWARE: u32 = 1 << 15;

/// Class of a module's errors that come from the TPM, and the major code under which the minor one is the TPM's.
const TPM_CLASS: (u8, u8) = (0x0d, 0x0a);
/// Class of a module's errors that come from the launch control policy.
const POLICY_CLASS: u8 = 0x10;

/// Who failed at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// There was no failure.
    None,
    /// The processor gave up.
    Processor(ProcessorError),
    /// An authenticated code module did.
    Module(ModuleError),
    /// Other software did: a measured environment, in its own words.
    Software {
        /// Bits 14:0.
        low: u16,
        /// Bits 29:16.
        high: u16,
    },
}

/// Type of an error of the processor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessorError(pub u32);

/// What a module says of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleError {
    /// Kind of module: 0 the firmware's, 1 SINIT.
    pub module: u8,
    /// Class code: how far it had come.
    pub class: u8,
    /// Major error code.
    pub major: u8,
    /// Minor error code.
    pub minor: u16,
}

impl ErrorCode {
    /// Takes the register apart.
    #[must_use]
    pub const fn of_register(value: u32) -> Self {
        let [low, high] = [value & 0x7fff, (value >> 16) & 0x3fff];
        if value & VALID == 0 {
            Self::None
        } else if value & SOFTWARE == 0 {
            Self::Processor(ProcessorError(value & 0x3fff_ffff))
        } else if value & OTHER_SOFTWARE != 0 {
            Self::Software { low: field(low, 0, 15), high: field(high, 0, 14) }
        } else {
            Self::Module(ModuleError {
                module: byte(value, 0, 4),
                class: byte(value, 4, 6),
                major: byte(value, 10, 5),
                minor: field(value, 16, 12),
            })
        }
    }
}

const fn field(value: u32, shift: u32, bits: u32) -> u16 {
    let [low, high, ..] = ((value >> shift) & ((1 << bits) - 1)).to_le_bytes();
    u16::from_le_bytes([low, high])
}

const fn byte(value: u32, shift: u32, bits: u32) -> u8 {
    ((value >> shift) & ((1 << bits) - 1)).to_le_bytes()[0]
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no error"),
            Self::Processor(error) => write!(f, "the processor: {error}"),
            Self::Module(error) => error.fmt(f),
            Self::Software { low, high } => {
                write!(f, "the measured environment: code {low:#x}, {high:#x} in its own words")
            }
        }
    }
}

impl fmt::Display for ProcessorError {
    /// In the words of the table of types (SDM, "GETSEC Leaf Functions": "TXT Shutdown").
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            0 => "legacy shutdown, such as by a triple fault",
            5 => "the module's memory is not of a type that can be cached for it",
            6 => "the module's format is not recognised",
            7 => "the module's signature is wrong",
            8 => "the module's header is invalid",
            9 => "somebody else touched the module's memory",
            10 => "an event that must not occur, such as an interrupt or an exception",
            11 => "the structure for joining processors is invalid",
            12 => "a machine check that cannot be recovered from",
            13 => "VMX abort, or a processor in VMX operation",
            14 => "the memory for authenticated code is corrupt",
            15 => "the ratio of voltage and bus is illegal",
            reserved => return write!(f, "reserved type {reserved:#x}"),
        };
        write!(f, "{words} (type {:#x})", self.0)
    }
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            0 => f.write_str("the firmware's module")?,
            1 => f.write_str("SINIT")?,
            other => write!(f, "a module of the unknown kind {other}")?,
        }
        let Self { class, major, minor, .. } = self;
        write!(f, ": class {class:#x}, major {major:#x}, minor {minor:#x}")?;
        match (*class, *major) {
            TPM_CLASS => write!(f, ": the TPM answered with error {:#x}", minor & 0x1ff),
            (POLICY_CLASS, _) => {
                let (minor, index) = (minor & 0x3f, (minor >> 6) & 7);
                write!(f, ": the launch control policy refused, error {minor:#x} in list {index}")
            }
            _ => f.write_str(": see the list of errors that came with the module"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(value: u32) -> String {
        ErrorCode::of_register(value).to_string()
    }

    #[test]
    fn a_code_that_is_not_valid_is_no_error() {
        assert_eq!((words(0).as_str(), words(0x7fff_ffff).as_str()), ("no error", "no error"));
    }

    #[test]
    fn a_processor_s_error_has_its_words() {
        assert_eq!(words(0x8000_0007), "the processor: the module's signature is wrong (type 0x7)");
        assert_eq!(
            words(0x8000_000b),
            "the processor: the structure for joining processors is invalid (type 0xb)"
        );
        assert_eq!(words(0x8000_0001), "the processor: reserved type 0x1");
        assert_eq!(words(0xbfff_ffff), "the processor: reserved type 0x3fffffff");
    }

    #[test]
    fn a_module_s_error_has_class_major_and_minor() {
        let error = ModuleError { module: 1, class: 0x2a, major: 0x15, minor: 0xabc };
        assert_eq!(
            ErrorCode::of_register(0xc000_0000 | 1 | 0x2a << 4 | 0x15 << 10 | 0xabc << 16),
            ErrorCode::Module(error)
        );
        assert_eq!(
            words(0xc000_2021),
            "SINIT: class 0x2, major 0x8, minor 0x0: see the list of errors that came with the module"
        );
        assert!(words(0xc000_0000).starts_with("the firmware's module: class 0x0"));
        assert!(words(0xc000_0007).starts_with("a module of the unknown kind 7"));
    }

    #[test]
    fn what_tpm_and_policy_said_is_told() {
        assert!(
            words(0xc107_28d1).ends_with("minor 0x107: the TPM answered with error 0x107"),
            "{}",
            words(0xc107_28d1)
        );
        assert!(
            words(0xc0c5_0101).ends_with("policy refused, error 0x5 in list 3"),
            "{}",
            words(0xc0c5_0101)
        );
        assert!(words(0xc107_24d1).ends_with("came with the module"));
    }

    #[test]
    fn an_environment_s_error_keeps_its_numbers() {
        let code = ErrorCode::of_register(0xc000_0000 | 0x3abc << 16 | 0x8000 | 0x7123);
        assert_eq!(code, ErrorCode::Software { low: 0x7123, high: 0x3abc });
    }
}
