//! Every way in which a boot is refused, each with a name.

use core::fmt;

use platform::command_line::CommandLineError;
use platform::e820::MemoryMapError;
use platform::modules::ModuleError;
use platform::multiboot::BootInformationError;
use platform::placement::PlacementError;
use platform::processors::TooManyProcessors;

use crate::remapping::{SurveyError, Unprotected};
use crate::requirements::{Beneath, Missing};

/// Why the bootloader stops; prints as `stop: bootloader: NAME: what is wrong; what to do`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What the boot loader before us said.
    BootInformation(BootInformationError),
    /// The command line.
    CommandLine(CommandLineError),
    /// The processor.
    Missing(Missing),
    /// What runs beneath.
    Beneath(Beneath),
    /// The modules.
    Module(ModuleError),
    /// The firmware's memory map.
    MemoryMap(MemoryMapError),
    /// The number of CPUs.
    TooManyProcessors(TooManyProcessors),
    /// Where the hypervisor would go.
    Placement(PlacementError),
    /// Devices cannot be kept from memory, and the command line wants no boot without.
    Unprotected(Unprotected),
}

impl Stop {
    /// Returns the name of the failure.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BootInformation(error) => match error {
                BootInformationError::NotMultiboot(_) => "not-multiboot",
                BootInformationError::Malformed => "boot-information-malformed",
                BootInformationError::Unreadable => "boot-information-unreadable",
                BootInformationError::NoMemoryMap => "no-memory-map",
                BootInformationError::MemoryMapTooLong => "memory-map-too-long",
                BootInformationError::TooManyModules => "too-many-modules",
                BootInformationError::CommandLine => "command-line-too-long",
            },
            Self::CommandLine(_) => "command-line-broken",
            Self::Missing(missing) => match missing {
                Missing::LongMode => "no-long-mode",
                Missing::Vmx => "no-vmx",
                Missing::VmxLockedOff => "vmx-locked-off",
                Missing::VmxRefused => "vmx-refused",
                Missing::Capability(_) => "vmx-incomplete",
                Missing::LocalApic => "local-apic-off",
            },
            Self::Beneath(_) => "xmhf-beneath",
            Self::Module(error) => match error {
                ModuleError::NoImage => "no-module",
                ModuleError::Truncated => "image-truncated",
                ModuleError::Foreign => "image-foreign",
                ModuleError::NoBootSector => "no-boot-sector",
                ModuleError::BootSectorTooLarge(_) => "boot-sector-too-large",
                ModuleError::NotBootable => "boot-sector-not-bootable",
                ModuleError::Unreadable => "module-unreadable",
            },
            Self::MemoryMap(_) => "memory-map-absurd",
            Self::TooManyProcessors(_) => "too-many-cpus",
            Self::Placement(error) => match error {
                PlacementError::TooLarge => "image-too-large",
                PlacementError::NoHole(_) => "too-little-memory",
                PlacementError::NotWriteBack(_) => "uncacheable-memory",
            },
            Self::Unprotected(_) => "devices-unprotected",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stop: bootloader: {}: ", self.name())?;
        match self {
            Self::BootInformation(error) => error.fmt(f),
            Self::CommandLine(error) => error.fmt(f),
            Self::Missing(missing) => missing.fmt(f),
            Self::Beneath(beneath) => beneath.fmt(f),
            Self::Module(error) => error.fmt(f),
            Self::MemoryMap(error) => error.fmt(f),
            Self::TooManyProcessors(error) => error.fmt(f),
            Self::Placement(error) => error.fmt(f),
            Self::Unprotected(why) => {
                write!(f, "{why}; switch VT-d on in the firmware set-up, or say dmap=on to boot without")
            }
        }
    }
}

macro_rules! from {
    ($($error:ident => $variant:ident;)*) => {
        $(impl From<$error> for Stop {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    BootInformationError => BootInformation;
    CommandLineError => CommandLine;
    Missing => Missing;
    Beneath => Beneath;
    ModuleError => Module;
    MemoryMapError => MemoryMap;
    TooManyProcessors => TooManyProcessors;
    PlacementError => Placement;
}

impl From<SurveyError> for Stop {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::MemoryMap(error) => Self::MemoryMap(error),
            SurveyError::Unprotected(why) => Self::Unprotected(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use platform::handoff::MemoryRange;

    use super::*;

    #[test]
    fn every_failure_is_one_line_with_a_name_a_cause_and_a_remedy() {
        let stops: [Stop; 19] = [
            BootInformationError::NotMultiboot(0).into(),
            BootInformationError::TooManyModules.into(),
            BootInformationError::CommandLine.into(),
            CommandLineError::LogLevel.into(),
            Missing::LongMode.into(),
            Missing::Vmx.into(),
            Missing::VmxLockedOff.into(),
            Missing::Capability("enable EPT").into(),
            Missing::LocalApic.into(),
            Beneath.into(),
            ModuleError::NoImage.into(),
            ModuleError::BootSectorTooLarge(70000).into(),
            MemoryMapError::BeyondPhysical(MemoryRange::default()).into(),
            MemoryMapError::NoMemory.into(),
            TooManyProcessors.into(),
            PlacementError::NoHole(8 << 20).into(),
            PlacementError::NotWriteBack(8 << 20).into(),
            SurveyError::MemoryMap(MemoryMapError::TooMany).into(),
            SurveyError::Unprotected(Unprotected::NoUnit).into(),
        ];
        for stop in stops {
            let line = stop.to_string();
            let rest = line.strip_prefix("stop: bootloader: ").unwrap();
            let (name, rest) = rest.split_once(": ").unwrap();
            let (cause, remedy) = rest.split_once("; ").unwrap();
            assert_eq!(name, stop.name());
            assert!(!name.contains(' ') && !cause.is_empty() && !remedy.is_empty(), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn names_and_numbers_are_in_the_line() {
        let line = Stop::from(PlacementError::NoHole(8 << 20)).to_string();
        assert!(
            line.starts_with("stop: bootloader: too-little-memory: no free 8 MiB below 4 GiB; "),
            "{line}"
        );
    }
}
