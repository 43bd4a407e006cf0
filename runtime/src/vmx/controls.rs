//! The controls under which the guest runs: what we want, and what the processor allows.

use hw::Msrs;
use x86::msr::Msr;
use x86::vmx::capability::{Allowed, MissingControls, VmxBasic};
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};

const PIN_BASED: PinBasedControls = PinBasedControls::NMI_EXITING.union(PinBasedControls::VIRTUAL_NMIS);
const PRIMARY: PrimaryControls = PrimaryControls::USE_IO_BITMAPS
    .union(PrimaryControls::USE_MSR_BITMAPS)
    .union(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
const SECONDARY: SecondaryControls = SecondaryControls::ENABLE_EPT
    .union(SecondaryControls::ENABLE_VPID)
    .union(SecondaryControls::UNRESTRICTED_GUEST);
/// Instructions that would be #UD in the guest, though CPUID offers them, without these.
const SECONDARY_IF_ALLOWED: SecondaryControls = SecondaryControls::ENABLE_RDTSCP
    .union(SecondaryControls::ENABLE_INVPCID)
    .union(SecondaryControls::ENABLE_XSAVES)
    .union(SecondaryControls::ENABLE_USER_WAIT_AND_PAUSE);
const EXIT: ExitControls = ExitControls::HOST_ADDRESS_SPACE_SIZE
    .union(ExitControls::SAVE_DEBUG_CONTROLS)
    .union(ExitControls::SAVE_PAT)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::SAVE_EFER)
    .union(ExitControls::LOAD_EFER);
const ENTRY: EntryControls =
    EntryControls::LOAD_DEBUG_CONTROLS.union(EntryControls::LOAD_PAT).union(EntryControls::LOAD_EFER);

/// The control words of a VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Controls {
    /// Pin-based VM-execution controls.
    pub(super) pin_based: PinBasedControls,
    /// Primary processor-based VM-execution controls.
    pub(super) primary: PrimaryControls,
    /// Secondary processor-based VM-execution controls.
    pub(super) secondary: SecondaryControls,
    /// VM-exit controls.
    pub(super) exit: ExitControls,
    /// VM-entry controls.
    pub(super) entry: EntryControls,
}

/// The processor lacks what the hypervisor cannot do without. The bootloader has checked the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// There is no such capability register.
    CapabilityMsr(Msr),
    /// A capability register does not allow these controls.
    Controls(Msr, MissingControls),
}

impl Controls {
    /// Our controls as this processor allows them.
    pub(super) fn for_processor(msrs: &impl Msrs) -> Result<Self, Unsupported> {
        let basic = VmxBasic(read(msrs, Msr::IA32_VMX_BASIC)?);
        let choose = |plain, precise| if basic.has_true_controls() { precise } else { plain };
        let pin = choose(Msr::IA32_VMX_PINBASED_CTLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS);
        let primary = choose(Msr::IA32_VMX_PROCBASED_CTLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS);
        let exit = choose(Msr::IA32_VMX_EXIT_CTLS, Msr::IA32_VMX_TRUE_EXIT_CTLS);
        let entry = choose(Msr::IA32_VMX_ENTRY_CTLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS);
        let adjust = |msr, required, optional| {
            let allowed = Allowed(read(msrs, msr)?);
            allowed.adjust(required, optional).map_err(|missing| Unsupported::Controls(msr, missing))
        };
        let secondary =
            adjust(Msr::IA32_VMX_PROCBASED_CTLS2, SECONDARY.bits(), SECONDARY_IF_ALLOWED.bits())?;
        Ok(Self {
            pin_based: PinBasedControls::from_bits_retain(adjust(pin, PIN_BASED.bits(), 0)?),
            primary: PrimaryControls::from_bits_retain(adjust(primary, PRIMARY.bits(), 0)?),
            secondary: SecondaryControls::from_bits_retain(secondary),
            exit: ExitControls::from_bits_retain(adjust(exit, EXIT.bits(), 0)?),
            entry: EntryControls::from_bits_retain(adjust(entry, ENTRY.bits(), 0)?),
        })
    }
}

fn read(msrs: &impl Msrs, msr: Msr) -> Result<u64, Unsupported> {
    msrs.read(msr).map_err(|_| Unsupported::CapabilityMsr(msr))
}
