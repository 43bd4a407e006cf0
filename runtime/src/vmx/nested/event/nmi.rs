//! NMIs while L1 is in VMX operation (SDM, "NMI-exiting", "Virtual NMIs" in "Pin-Based VM-Execution Controls").
//!
//! L2 always runs with NMI exiting and virtual NMIs, as the rendezvous needs. What L1 asked for is made of it:
//! the virtual blocking stands for what L1's controls make of the processor's own.

use crate::vmx::nested::vmcs12::controls::L1Controls;
use hw::Vmcs;
use x86::event::Vector;
use x86::vmx::controls::PinBasedControls;
use x86::vmx::interruption::{Interruptibility, Interruption, InterruptionType};
use x86::vmx::vmcs;

/// What L1 asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// No NMI exiting: NMIs are L2's, and its blocking is the processor's.
    Guest,
    /// NMI exiting alone: NMIs exit unless they are blocked, and IRET of L2 does not unblock them.
    Exiting,
    /// Virtual NMIs: NMIs exit whatever L2 does; L2 has blocking of its own.
    Virtual,
}

impl Mode {
    /// Returns the mode under VMCS12.
    #[inline(always)]
    pub(crate) fn of(vmcs12: &impl Vmcs) -> Self {
        let pin_based = L1Controls::of(vmcs12).pin_based;
        if !pin_based.contains(PinBasedControls::NMI_EXITING) {
            Self::Guest
        } else if pin_based.contains(PinBasedControls::VIRTUAL_NMIS) {
            Self::Virtual
        } else {
            Self::Exiting
        }
    }
}

/// What becomes of an NMI that arrives while L2 runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// L2 takes it as soon as it can.
    Inject,
    /// An exit to L1.
    Exit,
    /// It waits until L1 runs.
    Keep,
}

/// Returns what becomes of an NMI under `mode`, where the entry into L2 found NMIs blocked or not.
pub(crate) const fn arrival(mode: Mode, was_blocked: bool) -> Arrival {
    match (mode, was_blocked) {
        (Mode::Guest, _) => Arrival::Inject,
        (Mode::Exiting, true) => Arrival::Keep,
        (Mode::Exiting, false) | (Mode::Virtual, _) => Arrival::Exit,
    }
}

/// Blocking by NMI after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking {
    /// In the guest state of VMCS12.
    pub(crate) saved: bool,
    /// Of L1's processor.
    pub(crate) l1: bool,
}

/// Blocking by NMI after an exit: `hardware` is what the hardware saved, `was_blocked` what the entry found.
pub(crate) const fn after_exit(mode: Mode, hardware: bool, was_blocked: bool, is_nmi: bool) -> Blocking {
    match mode {
        Mode::Guest => Blocking { saved: hardware, l1: hardware },
        Mode::Exiting => Blocking { saved: was_blocked, l1: was_blocked || is_nmi },
        Mode::Virtual => Blocking { saved: hardware, l1: is_nmi },
    }
}

/// Returns the event to be injected into L2. Without virtual NMIs an injected NMI blocks none after it: the hardware
/// is told of an exception with the NMI's vector.
pub(crate) fn to_hardware(event: Interruption, mode: Mode) -> Interruption {
    if mode != Mode::Virtual && event.is_valid() && event.kind() == InterruptionType::NMI {
        Interruption::new(Vector::NMI.0, InterruptionType::HARDWARE_EXCEPTION, false)
    } else {
        event
    }
}

/// Undoes [`to_hardware`] where the hardware tells of an event that was being delivered, and `injected` is what L1 had
/// injected: nothing else raises an exception with the NMI's vector, and L1 may have meant one.
pub(crate) fn from_hardware(event: Interruption, injected: Interruption) -> Interruption {
    let may_be_nmi = event.is_valid()
        && event.kind() == InterruptionType::HARDWARE_EXCEPTION
        && event.vector() == Vector::NMI.0;
    let is_nmi = injected.is_valid() && injected.kind() == InterruptionType::NMI;
    if may_be_nmi && is_nmi { injected } else { event }
}

/// Blocking by NMI in the guest state of `vmcs`.
pub(crate) fn is_blocked(vmcs: &impl Vmcs) -> bool {
    Interruptibility::from_bits_retain(vmcs.read(vmcs::GUEST_INTERRUPTIBILITY))
        .contains(Interruptibility::BLOCKING_BY_NMI)
}

/// Sets blocking by NMI in the guest state of `vmcs`.
pub(crate) fn set_blocked(vmcs: &mut impl Vmcs, is_blocked: bool) {
    let mut state = Interruptibility::from_bits_retain(vmcs.read(vmcs::GUEST_INTERRUPTIBILITY));
    state.set(Interruptibility::BLOCKING_BY_NMI, is_blocked);
    vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, state.bits());
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimVmcs;

    #[test]
    fn an_nmi_goes_where_the_table_of_the_three_modes_says() {
        let all = [
            (Mode::Guest, Arrival::Inject, Arrival::Inject),
            (Mode::Exiting, Arrival::Exit, Arrival::Keep),
            (Mode::Virtual, Arrival::Exit, Arrival::Exit),
        ];
        for (mode, free, blocked) in all {
            assert_eq!((arrival(mode, false), arrival(mode, true)), (free, blocked), "{mode:?}");
        }
    }

    #[test]
    fn blocking_after_an_exit_is_the_guests_the_entrys_or_none() {
        for blocked in [false, true] {
            let guest = after_exit(Mode::Guest, blocked, !blocked, false);
            assert_eq!(guest, Blocking { saved: blocked, l1: blocked });
            let exiting = after_exit(Mode::Exiting, !blocked, blocked, false);
            assert_eq!(exiting, Blocking { saved: blocked, l1: blocked });
            let virtual_nmis = after_exit(Mode::Virtual, blocked, !blocked, false);
            assert_eq!(virtual_nmis, Blocking { saved: blocked, l1: false });
        }
        assert!(after_exit(Mode::Exiting, false, false, true).l1);
        assert!(after_exit(Mode::Virtual, false, false, true).l1);
    }

    #[test]
    fn an_injected_nmi_blocks_only_where_there_are_virtual_nmis() {
        let nmi = Interruption::new(2, InterruptionType::NMI, false);
        assert_eq!(to_hardware(nmi, Mode::Virtual), nmi);
        for mode in [Mode::Guest, Mode::Exiting] {
            let told = to_hardware(nmi, mode);
            assert_eq!(told.kind(), InterruptionType::HARDWARE_EXCEPTION);
            assert_eq!(from_hardware(told, nmi), nmi);
        }
        let fault = Interruption::new(13, InterruptionType::HARDWARE_EXCEPTION, true);
        assert_eq!((to_hardware(fault, Mode::Guest), from_hardware(fault, nmi)), (fault, fault));
        assert_eq!(from_hardware(Interruption(0x302), nmi), Interruption(0x302));
    }

    /// Which a VM entry may inject too.
    #[test]
    fn an_exception_with_the_vector_of_nmis_is_told_as_one() {
        let exception = Interruption::new(2, InterruptionType::HARDWARE_EXCEPTION, false);
        for mode in [Mode::Guest, Mode::Exiting, Mode::Virtual] {
            assert_eq!(to_hardware(exception, mode), exception);
        }
        assert_eq!(from_hardware(exception, exception), exception);
        // The event of an entry whose exit L1 has had is none of this one's.
        assert_eq!(from_hardware(exception, Interruption(0x202)), exception);
    }

    #[test]
    fn virtual_nmis_are_nothing_without_nmi_exiting() {
        let (exiting, virtual_nmis) = (PinBasedControls::NMI_EXITING, PinBasedControls::VIRTUAL_NMIS);
        for (controls, mode) in [
            (PinBasedControls::empty(), Mode::Guest),
            (exiting, Mode::Exiting),
            (exiting | virtual_nmis, Mode::Virtual),
            (virtual_nmis, Mode::Guest),
        ] {
            let mut vmcs12 = SimVmcs::default();
            vmcs12.write(vmcs::PIN_BASED_CONTROLS, controls.bits());
            assert_eq!(Mode::of(&vmcs12), mode, "{controls:?}");
        }
    }

    #[test]
    fn blocking_comes_and_goes_beside_what_else_blocks() {
        let mut vmcs = SimVmcs::default();
        vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, Interruptibility::BLOCKING_BY_STI.bits());
        assert!(!is_blocked(&vmcs));
        for blocked in [true, true, false, false] {
            set_blocked(&mut vmcs, blocked);
            let state = Interruptibility::from_bits_retain(vmcs.read(vmcs::GUEST_INTERRUPTIBILITY));
            assert_eq!(
                (is_blocked(&vmcs), state.contains(Interruptibility::BLOCKING_BY_STI)),
                (blocked, true)
            );
        }
    }
}
