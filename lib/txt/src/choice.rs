//! Which SINIT a machine takes, of those that are there.

use crate::acm::{Acm, Family, Flags, Kind};
use crate::capabilities::Capabilities;
use crate::status::ChipsetIdentity;
use core::fmt;

/// Oldest and latest version of OsSinitData that [`crate::heap::OsSinitData`] writes.
pub const OS_SINIT_VERSIONS: core::ops::RangeInclusive<u32> = 4..=8;

/// What a SINIT has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// TXT.DIDVID.
    pub chipset: ChipsetIdentity,
    /// Whether the chipset takes modules of production alone.
    pub is_production: bool,
    /// EAX of CPUID leaf 1.
    pub signature: u32,
    /// IA32_PLATFORM_ID.
    pub platform: u64,
    /// The TPM's family; none where there is no TPM.
    pub tpm: Option<Family>,
    /// Kind of machine by the firmware's BiosData, a bit of [`Capabilities`]; none where it does not say.
    pub kind: Option<Capabilities>,
    /// Bytes of the memory for SINIT, TXT.SINIT.SIZE.
    pub sinit_size: u64,
    /// Most bytes of a module by GETSEC\[PARAMETERS\].
    pub largest_module: u64,
    /// Version of our MLE's header.
    pub mle_version: u32,
    /// What our MLE can do.
    pub mle_capabilities: Capabilities,
}

/// Why a module does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It is no SINIT.
    NotSinit(Kind),
    /// It is signed for debugging and the chipset is of production, or the other way round.
    Signing {
        /// Whether the module is signed for debugging.
        is_debug_signed: bool,
    },
    /// It names other chipsets.
    Chipset(ChipsetIdentity),
    /// It names other processors.
    Processor {
        /// EAX of CPUID leaf 1.
        signature: u32,
        /// IA32_PLATFORM_ID.
        platform: u64,
    },
    /// It is for clients and the machine a server, or the other way round.
    MachineKind(Capabilities),
    /// It cannot use the TPM.
    Tpm(Family),
    /// There is no TPM.
    NoTpm,
    /// The firmware left less memory for it than it has bytes.
    Memory {
        /// The module's bytes.
        module: u64,
        /// Bytes there are.
        memory: u64,
    },
    /// The processor loads no module of its size.
    TooLarge {
        /// The module's bytes.
        module: u64,
        /// Most bytes.
        limit: u64,
    },
    /// It wants a later version of the MLE's header.
    MleVersion(u32),
    /// It takes no version of OsSinitData that can be written here.
    OsSinitVersion(u32),
    /// It cannot wake the other processors in a way that the MLE knows.
    Wake(Capabilities),
}

/// Whether `acm` fits `machine`.
///
/// # Errors
///
/// The first reason why not, in the order of [`Misfit`]'s names.
pub fn fit(acm: &Acm<'_>, machine: &Machine) -> Result<(), Misfit> {
    let information = acm.information();
    if information.kind != Kind::Sinit {
        return Err(Misfit::NotSinit(information.kind));
    }
    let is_debug_signed = acm.header().flags.contains(Flags::DEBUG_SIGNED);
    if is_debug_signed == machine.is_production {
        return Err(Misfit::Signing { is_debug_signed });
    }
    fit_hardware(acm, machine)?;
    let module = u64::from(acm.header().size);
    if module > machine.sinit_size {
        return Err(Misfit::Memory { module, memory: machine.sinit_size });
    }
    if module > machine.largest_module {
        return Err(Misfit::TooLarge { module, limit: machine.largest_module });
    }
    if information.min_mle_version > machine.mle_version {
        return Err(Misfit::MleVersion(information.min_mle_version));
    }
    if information.os_sinit_version < *OS_SINIT_VERSIONS.start() {
        return Err(Misfit::OsSinitVersion(information.os_sinit_version));
    }
    let wakes = information.capabilities & Capabilities::WAKES;
    if !wakes.intersects(machine.mle_capabilities) {
        return Err(Misfit::Wake(wakes));
    }
    Ok(())
}

fn fit_hardware(acm: &Acm<'_>, machine: &Machine) -> Result<(), Misfit> {
    let information = acm.information();
    let is_exact = acm.chipsets().iter().any(|entry| entry.is(machine.chipset));
    // A flexible table may have one of the lists, or both, of which each has to name the chipset.
    let is_masked = acm.masked_chipsets().iter().any(|entry| entry.holds(machine.chipset));
    let is_for_chipset = match (acm.chipsets().is_empty(), acm.masked_chipsets().is_empty()) {
        (true, false) => is_masked,
        (false, false) => is_exact && is_masked,
        (_, true) => is_exact,
    };
    if !is_for_chipset {
        return Err(Misfit::Chipset(machine.chipset));
    }
    let Machine { signature, platform, .. } = *machine;
    if acm.processors().is_some_and(|list| !list.iter().any(|entry| entry.holds(signature, platform))) {
        return Err(Misfit::Processor { signature, platform });
    }
    const KINDS: Capabilities = Capabilities::PLATFORM_CLIENT.union(Capabilities::PLATFORM_SERVER);
    let says_kind = information.version >= 5;
    if let Some(kind) = machine.kind.filter(|_| says_kind)
        && !information.capabilities.contains(kind & KINDS)
    {
        return Err(Misfit::MachineKind(kind));
    }
    let tpm = machine.tpm.ok_or(Misfit::NoTpm)?;
    let families = acm.tpm().map_or(Family::DISCRETE_1_2, |list| list.capabilities.families());
    if !families.intersects(tpm) {
        return Err(Misfit::Tpm(tpm));
    }
    Ok(())
}

/// The module to launch: the latest of those that fit, by security version and then by date; of equals the first. Tells
/// `refused` each other's index and why it does not fit; one that fits and is older is told as no misfit.
pub fn choose(
    modules: &[Acm<'_>],
    machine: &Machine,
    mut refused: impl FnMut(usize, Misfit),
) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, acm) in modules.iter().enumerate() {
        match fit(acm, machine) {
            Err(why) => refused(index, why),
            Ok(()) => {
                let is_later =
                    best.and_then(|best| modules.get(best)).is_none_or(|best| age(acm) > age(best));
                best = if is_later { Some(index) } else { best };
            }
        }
    }
    best
}

const fn age(acm: &Acm<'_>) -> u64 {
    ((acm.header().txt_svn as u64) << 32) | acm.header().date as u64
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSinit(kind) => write!(f, "it is no SINIT but {kind:?}"),
            Self::Signing { is_debug_signed: true } => {
                f.write_str("it is signed for debugging, and the chipset is of production")
            }
            Self::Signing { is_debug_signed: false } => {
                f.write_str("it is signed for production, and the chipset is not")
            }
            Self::Chipset(ChipsetIdentity { vendor, device, revision }) => {
                write!(f, "it is not for the chipset {vendor:04x}:{device:04x}, revision {revision:#x}")
            }
            Self::Processor { signature, platform } => {
                write!(f, "it is not for the processor {signature:#x}, platform {platform:#x}")
            }
            Self::MachineKind(Capabilities::PLATFORM_CLIENT) => f.write_str("it is not for clients"),
            Self::MachineKind(_) => f.write_str("it is not for servers"),
            Self::Tpm(Family::DISCRETE_1_2) => f.write_str("it cannot use a TPM 1.2"),
            Self::Tpm(_) => f.write_str("it cannot use this TPM 2.0"),
            Self::NoTpm => f.write_str("there is no TPM"),
            Self::Memory { module, memory } => {
                write!(f, "it has {module} bytes, and the firmware left {memory} for it")
            }
            Self::TooLarge { module, limit } => {
                write!(f, "it has {module} bytes, and the processor takes {limit}")
            }
            Self::MleVersion(version) => {
                write!(f, "it wants an MLE header of version {}.{}", version >> 16, version & 0xffff)
            }
            Self::OsSinitVersion(version) => write!(f, "it wants OsSinitData of version {version}"),
            Self::Wake(_) => f.write_str("it wakes the other processors in no way that is known here"),
        }
    }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
