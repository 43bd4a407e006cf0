//! Commands that one local APIC gives the others (SDM, "Interrupt Command Register (ICR)").

use x86::apic::ApicBase;

/// Delivery modes of the interrupt command register, with the level bit asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// NMI.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI to page number `vector`.
    Startup {
        /// Page number of the start address.
        vector: u8,
    },
}

/// Whom a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The processor with this local APIC ID.
    Cpu(u32),
    /// Every processor but the sender, whatever their IDs.
    Others,
}

/// What IA32_APIC_BASE makes of a local APIC (SDM, "x2APIC State Transitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is not there.
    Disabled,
    /// Its registers are in a page of memory, and IDs have 8 bits.
    Xapic,
    /// Its registers are MSRs, and IDs have 32 bits.
    X2apic,
}

/// Destination shorthand "all excluding self".
const OTHERS: u32 = 3 << 18;
/// The ID that stands for every processor, the sender too, in xAPIC and in x2APIC mode.
const EVERYBODY: (u32, u32) = (0xff, u32::MAX);

impl Mode {
    /// Returns the mode that this value of IA32_APIC_BASE says.
    #[must_use]
    pub const fn of(apic_base: u64) -> Self {
        match ApicBase::from_bits_retain(apic_base).mode() {
            ApicBase::ENABLE => Self::Xapic,
            ApicBase::MODE => Self::X2apic,
            _ => Self::Disabled,
        }
    }

    /// Returns the interrupt command that brings `command` to `to`: all 64 bits, which two registers share in xAPIC
    /// mode. `None` where an APIC in this mode cannot reach that processor, or would reach every one.
    #[must_use]
    pub fn interrupt_command(self, to: Destination, command: Command) -> Option<u64> {
        let (limit, shift) = match self {
            Self::Disabled => return None,
            Self::Xapic => (EVERYBODY.0, 56),
            Self::X2apic => (EVERYBODY.1, 32),
        };
        match to {
            Destination::Cpu(id) if id < limit => Some(u64::from(id) << shift | u64::from(command.bits())),
            Destination::Cpu(_) => None,
            Destination::Others => Some((command.bits() | OTHERS).into()),
        }
    }
}

impl Command {
    const fn bits(self) -> u32 {
        match self {
            Self::Nmi => 0x4400,
            Self::Init => 0x4500,
            Self::Startup { vector } => 0x4600 | vector as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(mode: Mode, id: u32) -> Option<u64> {
        mode.interrupt_command(Destination::Cpu(id), Command::Init)
    }

    #[test]
    fn a_processor_that_the_mode_cannot_address_is_refused() {
        for (mode, id, word) in [
            (Mode::Xapic, 0, Some(0x4500)),
            (Mode::Xapic, 254, Some(0xfe00_0000_0000_4500)),
            (Mode::Xapic, 255, None),
            (Mode::Xapic, 256, None),
            (Mode::X2apic, 255, Some(0xff_0000_4500)),
            (Mode::X2apic, u32::MAX - 1, Some(0xffff_fffe_0000_4500)),
            (Mode::X2apic, u32::MAX, None),
            (Mode::Disabled, 0, None),
        ] {
            assert_eq!(command(mode, id), word, "{mode:?} {id:#x}");
        }
    }

    #[test]
    fn a_command_for_the_others_leaves_the_sender_out() {
        for mode in [Mode::Xapic, Mode::X2apic] {
            let startup = mode.interrupt_command(Destination::Others, Command::Startup { vector: 8 });
            assert_eq!(startup, Some(0xc_4608), "{mode:?}");
            assert_eq!(mode.interrupt_command(Destination::Others, Command::Nmi), Some(0xc_4400), "{mode:?}");
        }
        assert_eq!(Mode::Disabled.interrupt_command(Destination::Others, Command::Nmi), None);
    }

    #[test]
    fn the_mode_is_what_the_two_enable_bits_say() {
        let modes = [0, 1 << 10, 1 << 11, 3 << 10].map(|bits| Mode::of(0xfee0_0100 | bits));
        assert_eq!(modes, [Mode::Disabled, Mode::Disabled, Mode::Xapic, Mode::X2apic]);
    }
}
