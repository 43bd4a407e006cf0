//! The untrusted handoff: checked in a private copy before any use.

use crate::scratch::REGION_LIMIT;
use core::fmt;
use platform::handoff::{Console, Handoff, HandoffError};

/// Checks `handoff`, which lies in the region at physical address `base`.
///
/// # Errors
///
/// The first rule that is broken; nothing of the handoff but [`console`] may be used then.
pub fn sanitize(handoff: &Handoff, base: u64) -> Result<(), SanitizeError> {
    handoff.check().map_err(SanitizeError::Handoff)?;
    if handoff.region.base != base {
        return Err(SanitizeError::Base);
    }
    if handoff.region.length > REGION_LIMIT {
        return Err(SanitizeError::RegionTooLarge);
    }
    Ok(())
}

/// Returns where to say that a handoff is refused: what it names itself, or COM1 and the screen where it is of
/// another build and its fields mean nothing.
#[must_use]
pub fn console(handoff: &Handoff) -> Console {
    match handoff.check() {
        Err(HandoffError::Version) => Console { serial_port: 0x3f8, vga: 1, level: 3, ..Console::default() },
        _ => handoff.console,
    }
}

/// Why a handoff was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanitizeError {
    /// It breaks a rule of its own.
    Handoff(HandoffError),
    /// It describes another region than the one the secure loader runs in.
    Base,
    /// The region exceeds what the secure loader maps.
    RegionTooLarge,
}

impl fmt::Display for SanitizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handoff(HandoffError::Version) => {
                "HandoffVersion: bootloader and hypervisor image are of different builds; install both again"
            }
            Self::Handoff(HandoffError::Region) => {
                "HandoffRegion: the hypervisor region is unaligned or out of range"
            }
            Self::Handoff(HandoffError::Count) => {
                "HandoffCount: too many or no CPUs, memory ranges or boot sector bytes"
            }
            Self::Handoff(HandoffError::RegionNotHidden) => {
                "RegionNotHidden: the memory map offers the hypervisor region to the guest"
            }
            Self::Handoff(HandoffError::Module) => "HandoffModule: a module lies where it must not",
            Self::Handoff(HandoffError::NestedPool) => {
                "HandoffNestedPool: the nested pool lies where it must not"
            }
            Self::Handoff(HandoffError::RemappingUnit) => {
                "HandoffRemappingUnit: registers of a remapping unit lie where they must not"
            }
            Self::Base => "RegionBase: the handoff describes another region than the one loaded",
            Self::RegionTooLarge => "RegionTooLarge: the hypervisor region exceeds 512 MiB",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use platform::handoff::{HANDOFF_MAGIC, HANDOFF_VERSION, MemoryRange, PhysRange, RESERVED, USABLE};

    const BASE: u64 = 0x3c00_0000;

    /// A handoff that passes, of a region of 8 MiB.
    pub(crate) fn sound() -> Box<Handoff> {
        let mut handoff = Box::new(empty());
        handoff.memory_map[0] = MemoryRange { base: 0, length: BASE, kind: USABLE, attributes: 1 };
        handoff.memory_map[1] = MemoryRange { base: BASE, length: 8 << 20, kind: RESERVED, attributes: 1 };
        handoff.memory_map_count = 2;
        handoff
    }

    fn empty() -> Handoff {
        Handoff {
            magic: HANDOFF_MAGIC,
            version: HANDOFF_VERSION,
            size: u32::try_from(size_of::<Handoff>()).unwrap_or(0),
            region: PhysRange { base: BASE, length: 8 << 20 },
            hypapp_module: PhysRange::default(),
            sinit_module: PhysRange::default(),
            nested_pool: PhysRange::default(),
            rsdp: 0,
            times: Default::default(),
            console: Console { serial_port: 0x2f8, ..Console::default() },
            power: Default::default(),
            ecam: Default::default(),
            remapping_units: [PhysRange::default(); _],
            boot_drive: 0x80,
            hypervisor_bit: 0,
            device_protection_required: 0,
            reserved: 0,
            nested_ept02: 0,
            memory_map_count: 0,
            cpu_count: 1,
            boot_sector_size: 512,
            memory_map: [MemoryRange::default(); 256],
            apic_ids: [0; 1024],
            command_line: [0; 1024],
            boot_sector: [0; 16 * 1024],
        }
    }

    #[test]
    fn a_sound_handoff_passes() {
        assert_eq!(sanitize(&sound(), BASE), Ok(()));
    }

    #[test]
    fn a_handoff_for_another_place_is_refused() {
        assert_eq!(sanitize(&sound(), BASE + 0x20_0000), Err(SanitizeError::Base));
    }

    #[test]
    fn a_region_beyond_the_linear_map_is_refused() {
        let mut handoff = sound();
        handoff.region.length = REGION_LIMIT + 0x20_0000;
        handoff.memory_map[1].length = handoff.region.length;
        assert_eq!(sanitize(&handoff, BASE), Err(SanitizeError::RegionTooLarge));
    }

    #[test]
    fn a_nested_pool_that_is_misplaced_is_refused() {
        let mut handoff = sound();
        let mib = 1 << 20;
        handoff.hypapp_module = PhysRange { base: BASE + 7 * mib, length: 5 };
        handoff.nested_pool = PhysRange { base: BASE + 6 * mib, length: mib };
        assert_eq!(sanitize(&handoff, BASE), Ok(()));
        for (base, length) in [
            (BASE - mib, mib),
            (BASE + 6 * mib, mib + 4096),
            (BASE + 6 * mib, 5),
            (BASE + 5, 4096),
            (BASE + mib, u64::MAX - 4095),
        ] {
            handoff.nested_pool = PhysRange { base, length };
            assert_eq!(sanitize(&handoff, BASE), Err(SanitizeError::Handoff(HandoffError::NestedPool)));
        }
    }

    #[test]
    fn a_region_that_the_guest_may_use_is_refused() {
        let mut handoff = sound();
        handoff.memory_map[0].length += 1;
        assert_eq!(sanitize(&handoff, BASE), Err(SanitizeError::Handoff(HandoffError::RegionNotHidden)));
    }

    #[test]
    fn only_a_handoff_of_this_build_chooses_the_console() {
        let mut handoff = sound();
        assert_eq!(console(&handoff).serial_port, 0x2f8);
        handoff.version += 1;
        let fallback = console(&handoff);
        assert_eq!((fallback.serial_port, fallback.vga), (0x3f8, 1));
        assert!(sanitize(&handoff, BASE).unwrap_err().to_string().starts_with("HandoffVersion: "));
    }
}
