//! The command line that GRUB passes, and the options in it.
//!
//! Words that are none of our keys are left to hypapps. That covers a loader that passes the file's name
//! as the first word, which GRUB 2 does not do and GRUB 0.9x and QEMU do.

use core::fmt;

use log::LevelFilter;

use crate::handoff::Console;
use crate::number::number;
use crate::serial::{SerialError, SerialLine};

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `serial=`: the serial port; `None` where it is not named.
    pub serial: Option<SerialLine>,
    /// `boot_drive=`: the value of DL at the guest's boot sector.
    pub boot_drive: u8,
    /// `log=`: the level.
    pub level: LevelFilter,
    /// Log on the serial port.
    pub log_serial: bool,
    /// Log on the VGA text screen.
    pub log_vga: bool,
    /// `hypervisor_bit=on`: show the guest CPUID's hypervisor-present bit.
    pub hypervisor_bit: bool,
    /// `nested=`: the guest may be a hypervisor itself.
    pub nested: bool,
    /// `nested_xmhf=on`: start although another of our kind runs beneath.
    pub nested_xmhf: bool,
    /// `nested_pool=`: MiB of memory for the page tables of the guest's guests; `None` where it is not named.
    pub nested_pool: Option<u16>,
    /// `nested_ept02=`: how many EPT pointers of the guest have such tables at a time.
    pub nested_ept02: u16,
    /// `dmap=`: whether devices are kept from the hypervisor's memory.
    pub device_protection: DeviceProtection,
}

/// Whether devices are kept from the hypervisor's memory, which takes remapping hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceProtection {
    /// `off`: they are not.
    Off,
    /// `on`: where the machine can.
    #[default]
    On,
    /// `require`: a machine that cannot is refused.
    Require,
}

/// Most MiB that [`Options::nested_pool`] can be: the hypervisor region has 512 at most.
pub const NESTED_POOL_LIMIT: u16 = 256;
/// Most that [`Options::nested_ept02`] can be.
pub const NESTED_EPT02_LIMIT: u16 = 512;

/// Which option has a value that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandLineError {
    /// The value of `serial=`.
    Serial(SerialError),
    /// The value of `boot_drive=`.
    BootDrive,
    /// The level in `log=`.
    LogLevel,
    /// A target in `log=`, or the target `serial` without `serial=`.
    LogTarget,
    /// The value of `hypervisor_bit=`.
    HypervisorBit,
    /// The value of `nested=`.
    Nested,
    /// The value of `nested_xmhf=`.
    NestedXmhf,
    /// The value of `nested_pool=`.
    NestedPool,
    /// The value of `nested_ept02=`.
    NestedEpt02,
    /// The value of `dmap=`.
    DeviceProtection,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            serial: None,
            boot_drive: 0x80,
            level: LevelFilter::Info,
            log_serial: true,
            log_vga: true,
            hypervisor_bit: false,
            nested: true,
            nested_xmhf: false,
            nested_pool: None,
            nested_ept02: 64,
            device_protection: DeviceProtection::On,
        }
    }
}

impl Options {
    /// Parses a whole command line; a later option replaces an earlier one of the same key.
    ///
    /// # Errors
    ///
    /// The first option whose value is broken.
    pub fn parse(line: &str) -> Result<Self, CommandLineError> {
        let mut options = Self::default();
        let mut serial_wanted = false;
        for (key, value) in line.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "serial" => {
                    options.serial = Some(SerialLine::parse(value).map_err(CommandLineError::Serial)?)
                }
                "boot_drive" => options.boot_drive = boot_drive(value)?,
                "log" => serial_wanted = options.set_log(value)?,
                "hypervisor_bit" => {
                    options.hypervisor_bit = switch(value, CommandLineError::HypervisorBit)?;
                }
                "nested" => options.nested = switch(value, CommandLineError::Nested)?,
                "nested_xmhf" => options.nested_xmhf = switch(value, CommandLineError::NestedXmhf)?,
                "nested_pool" => {
                    let pool = within(value, NESTED_POOL_LIMIT, CommandLineError::NestedPool)?;
                    options.nested_pool = Some(pool);
                }
                "nested_ept02" => {
                    options.nested_ept02 = within(value, NESTED_EPT02_LIMIT, CommandLineError::NestedEpt02)?;
                }
                "dmap" => options.device_protection = device_protection(value)?,
                _ => {}
            }
        }
        if serial_wanted && options.serial.is_none() {
            return Err(CommandLineError::LogTarget);
        }
        Ok(options)
    }

    /// Gives the consoles as the later images take them.
    #[must_use]
    pub fn console(&self) -> Console {
        let serial = self.serial.filter(|_| self.log_serial).map(SerialLine::console).unwrap_or_default();
        Console { vga: u8::from(self.log_vga), level: self.level as u8, ..serial }
    }

    /// Takes `LEVEL[,serial][,vga]` and says whether the serial port was named.
    fn set_log(&mut self, value: &str) -> Result<bool, CommandLineError> {
        let (level, targets) = value.split_once(',').map_or((value, None), |(l, t)| (l, Some(t)));
        self.level = level.parse().map_err(|_| CommandLineError::LogLevel)?;
        (self.log_serial, self.log_vga) = (targets.is_none(), targets.is_none());
        for target in targets.into_iter().flat_map(|targets| targets.split(',')) {
            match target {
                "serial" => self.log_serial = true,
                "vga" => self.log_vga = true,
                _ => return Err(CommandLineError::LogTarget),
            }
        }
        Ok(targets.is_some() && self.log_serial)
    }
}

/// Guesses the serial port of a command line that [`Options::parse`] refuses: the port that it names, where
/// that part can be read, else a PC's first port.
#[must_use]
pub fn serial_of_broken(line: &str) -> SerialLine {
    let values = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("serial="));
    values.rev().find_map(|value| SerialLine::parse(value).ok()).unwrap_or_default()
}

fn boot_drive(value: &str) -> Result<u8, CommandLineError> {
    number(value).and_then(|drive| u8::try_from(drive).ok()).ok_or(CommandLineError::BootDrive)
}

fn device_protection(value: &str) -> Result<DeviceProtection, CommandLineError> {
    match value {
        "off" => Ok(DeviceProtection::Off),
        "on" => Ok(DeviceProtection::On),
        "require" => Ok(DeviceProtection::Require),
        _ => Err(CommandLineError::DeviceProtection),
    }
}

fn switch(value: &str, error: CommandLineError) -> Result<bool, CommandLineError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(error),
    }
}

/// Reads a number from 1 to `limit`.
fn within(value: &str, limit: u16, error: CommandLineError) -> Result<u16, CommandLineError> {
    let number = number(value).and_then(|number| u16::try_from(number).ok());
    number.filter(|number| (1..=limit).contains(number)).ok_or(error)
}

impl fmt::Display for CommandLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(error) => {
                write!(f, "serial=: {error}; write it like serial=115200,8n1,0x3f8")
            }
            Self::BootDrive => f.write_str("boot_drive= is no BIOS drive; write it like boot_drive=0x80"),
            Self::LogLevel => {
                f.write_str("log= has no such level; use off, error, warn, info, debug or trace")
            }
            Self::LogTarget => f.write_str("log= has no such target; use serial (with serial=) or vga"),
            Self::HypervisorBit => f.write_str("hypervisor_bit= is neither on nor off; use one of them"),
            Self::Nested => f.write_str("nested= is neither on nor off; use one of them"),
            Self::NestedXmhf => f.write_str("nested_xmhf= is neither on nor off; use one of them"),
            Self::NestedPool => {
                write!(f, "nested_pool= is no number of MiB from 1 to {NESTED_POOL_LIMIT}; leave it out")
            }
            Self::NestedEpt02 => {
                write!(f, "nested_ept02= is no number from 1 to {NESTED_EPT02_LIMIT}; leave it out")
            }
            Self::DeviceProtection => f.write_str("dmap= is none of on, off and require; use one of them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_line_is_understood() {
        let line = "serial=115200,8n1,0x2f8 boot_drive=0x81 log=debug,serial hypervisor_bit=on \
             nested=on nested_xmhf=on nested_pool=12 nested_ept02=8 dmap=require";
        let options = Options::parse(line);
        let expected = Options {
            serial: Some(SerialLine { port: 0x2f8, divisor: 1, line_control: 3 }),
            boot_drive: 0x81,
            level: LevelFilter::Debug,
            log_serial: true,
            log_vga: false,
            hypervisor_bit: true,
            nested: true,
            nested_xmhf: true,
            nested_pool: Some(12),
            nested_ept02: 8,
            device_protection: DeviceProtection::Require,
        };
        assert_eq!(options, Ok(expected));
        let console = expected.console();
        assert_eq!((console.serial_port, console.divisor, console.vga, console.level), (0x2f8, 1, 0, 4));
    }

    #[test]
    fn an_empty_line_logs_to_the_screen_only() {
        let console = Options::parse("").map(|options| options.console());
        assert_eq!(console, Ok(Console { vga: 1, level: 3, ..Console::default() }));
    }

    #[test]
    fn a_file_name_and_foreign_words_are_passed_over() {
        let options = Options::parse("/boot/xmhf-bootloader  quiet nvenforce=true\tboot_drive=129 ");
        assert_eq!(options, Ok(Options { boot_drive: 129, ..Options::default() }));
    }

    #[test]
    fn the_last_of_two_wins() {
        let options = Options::parse("log=off,vga log=warn boot_drive=0 boot_drive=0x80");
        assert_eq!(options, Ok(Options { level: LevelFilter::Warn, ..Options::default() }));
    }

    #[test]
    fn each_broken_value_is_named() {
        for (line, error) in [
            ("serial=x", CommandLineError::Serial(SerialError::Baud)),
            ("boot_drive=", CommandLineError::BootDrive),
            ("boot_drive=0x180", CommandLineError::BootDrive),
            ("boot_drive=c", CommandLineError::BootDrive),
            ("log=loud", CommandLineError::LogLevel),
            ("log=", CommandLineError::LogLevel),
            ("log=info,printer", CommandLineError::LogTarget),
            ("log=info,", CommandLineError::LogTarget),
            ("log=info,serial", CommandLineError::LogTarget),
            ("hypervisor_bit=1", CommandLineError::HypervisorBit),
            ("nested=yes", CommandLineError::Nested),
            ("nested_xmhf=1", CommandLineError::NestedXmhf),
            ("nested_pool=0", CommandLineError::NestedPool),
            ("nested_pool=257", CommandLineError::NestedPool),
            ("nested_pool=4M", CommandLineError::NestedPool),
            ("nested_ept02=0", CommandLineError::NestedEpt02),
            ("nested_ept02=513", CommandLineError::NestedEpt02),
            ("dmap=yes", CommandLineError::DeviceProtection),
        ] {
            assert_eq!(Options::parse(line), Err(error), "{line}");
        }
    }

    #[test]
    fn a_switch_is_on_or_off() {
        let options = Options::parse("nested=off hypervisor_bit=off nested_xmhf=off");
        assert_eq!(options, Ok(Options { nested: false, ..Options::default() }));
        assert_eq!(Options::parse("nested=off nested=on"), Ok(Options::default()));
    }

    #[test]
    fn each_message_names_its_key_and_says_what_to_do() {
        for (error, key) in [
            (CommandLineError::Serial(SerialError::Baud), "serial="),
            (CommandLineError::BootDrive, "boot_drive="),
            (CommandLineError::LogLevel, "log="),
            (CommandLineError::LogTarget, "log="),
            (CommandLineError::HypervisorBit, "hypervisor_bit="),
            (CommandLineError::Nested, "nested="),
            (CommandLineError::NestedXmhf, "nested_xmhf="),
            (CommandLineError::NestedPool, "nested_pool="),
            (CommandLineError::NestedEpt02, "nested_ept02="),
            (CommandLineError::DeviceProtection, "dmap="),
        ] {
            let text = error.to_string();
            assert!(text.starts_with(key) && text.contains("; "), "{text}");
        }
    }

    #[test]
    fn a_broken_line_still_leads_to_a_serial_port() {
        let named = SerialLine { port: 0x2f8, ..SerialLine::default() };
        assert_eq!(serial_of_broken("log=loud serial=115200,8n1,0x2f8 serial=x"), named);
        assert_eq!(serial_of_broken("serial=x"), SerialLine::default());
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd_to_be_answered(line in "(serial|boot_drive|log|hypervisor_bit|dmap|nested(_pool|_ept02|_xmhf)?)?=?[ -~]{0,40}") {
            if let Ok(options) = Options::parse(&line) {
                prop_assert!(options.console().serial_port == 0 || options.console().divisor != 0);
            }
        }
    }
}
