//! A machine that modules are held against, as the command line describes it.

use clap::Args;
use std::str::FromStr;
use txt::acm::Family;
use txt::capabilities::Capabilities;
use txt::choice::Machine;
use txt::status::ChipsetIdentity;

/// Version 2.3 of an MLE's header, with both ways to wake processors.
const MLE_VERSION: u32 = 0x2_0003;

/// The machine: chipset, processor and TPM, or none of these.
#[derive(Args, Clone, Debug)]
pub(super) struct MachineArguments {
    /// The machine's TXT.DIDVID: vendor, device and revision, hexadecimal
    #[arg(long, value_name = "V:D:R", requires_all = ["processor", "tpm"])]
    chipset: Option<Chipset>,
    /// Its processor: EAX of CPUID leaf 1, hexadecimal
    #[arg(long, value_name = "SIGNATURE", value_parser = hexadecimal, requires_all = ["chipset", "tpm"])]
    processor: Option<u64>,
    /// Its IA32_PLATFORM_ID, hexadecimal
    #[arg(long, value_name = "ID", value_parser = hexadecimal, requires = "chipset")]
    platform: Option<u64>,
    /// Its TPM: a chip of version 1.2 or 2.0, or 2.0 in the firmware
    #[arg(long, value_name = "TPM", requires_all = ["chipset", "processor"])]
    tpm: Option<Tpm>,
    /// Its kind, where the firmware says one
    #[arg(long, value_name = "KIND", requires = "chipset")]
    kind: Option<Kind>,
    /// Its chipset is not of production
    #[arg(long, requires = "chipset")]
    debug_chipset: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Tpm {
    #[value(name = "1.2")]
    Discrete12,
    #[value(name = "2.0")]
    Discrete20,
    #[value(name = "firmware")]
    Firmware20,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chipset(ChipsetIdentity);

impl MachineArguments {
    /// The machine, where one is described.
    pub(super) fn machine(&self) -> Option<Machine> {
        let Chipset(chipset) = self.chipset?;
        Some(Machine {
            chipset,
            is_production: !self.debug_chipset,
            signature: u32::try_from(self.processor?).ok()?,
            platform: self.platform.unwrap_or_default(),
            tpm: Some(match self.tpm? {
                Tpm::Discrete12 => Family::DISCRETE_1_2,
                Tpm::Discrete20 => Family::DISCRETE_2_0,
                Tpm::Firmware20 => Family::FIRMWARE_2_0,
            }),
            kind: self.kind.map(|kind| match kind {
                Kind::Client => Capabilities::PLATFORM_CLIENT,
                Kind::Server => Capabilities::PLATFORM_SERVER,
            }),
            sinit_size: u64::MAX,
            largest_module: u64::MAX,
            mle_version: MLE_VERSION,
            mle_capabilities: Capabilities::WAKES,
        })
    }
}

fn hexadecimal(word: &str) -> Result<u64, String> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    u64::from_str_radix(digits, 16).map_err(|why| why.to_string())
}

impl FromStr for Chipset {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, String> {
        let numbers = words.split(':').map(|word| u16::from_str_radix(word, 16));
        let numbers: Vec<u16> = numbers.collect::<Result<_, _>>().map_err(|why| why.to_string())?;
        let [vendor, device, revision] = numbers[..] else {
            return Err("three numbers are wanted, as in 8086:b005:1".into());
        };
        Ok(Self(ChipsetIdentity { vendor, device, revision }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chipset_is_three_numbers() {
        let chipset = ChipsetIdentity { vendor: 0x8086, device: 0xb005, revision: 1 };
        assert_eq!("8086:b005:1".parse(), Ok(Chipset(chipset)));
        for wrong in ["8086:b005", "8086:b005:1:2", "8086:xyz:1", "18086:b005:1"] {
            assert!(wrong.parse::<Chipset>().is_err(), "{wrong}");
        }
        assert_eq!((hexadecimal("0x306c3"), hexadecimal("306c3")), (Ok(0x306c3), Ok(0x306c3)));
        assert!(hexadecimal("0xg").is_err());
    }
}
