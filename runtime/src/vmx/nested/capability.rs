//! What VMX offers to L1 (SDM, appendix "VMX Capability Reporting Facility").
//!
//! Offered is what the hardware has and an allow-list names: a control that this code does not know can do
//! to the hypervisor what nobody thought of, so it fails the entry as a reserved bit. What must be 1 on the
//! hardware must be 1 for L1, for VMCS02 cannot have it otherwise.

use super::vmcs12::fields::{self, Access};
use crate::vmx::probe::cr4_for_guest;
use hw::{GeneralProtection, Msrs};
use x86::cr::Cr4;
use x86::msr::Msr;
use x86::vmx::capability::{Allowed, EptVpidCapability, VmxBasic};
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::vmcs::{Exists, FIELDS, FieldInfo, Treatment, Width};

/// The VMX of L1's processor: the values of its capability MSRs, in the TRUE versions where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    /// IA32_VMX_BASIC.
    pub(super) basic: u64,
    /// IA32_VMX_MISC.
    pub(super) misc: u64,
    /// Pin-based controls.
    pub(super) pin_based: Allowed,
    /// Primary processor-based controls.
    pub(super) primary: Allowed,
    /// Secondary processor-based controls.
    pub(super) secondary: Allowed,
    /// VM-exit controls.
    pub(super) exit: Allowed,
    /// VM-entry controls.
    pub(super) entry: Allowed,
    /// IA32_VMX_EPT_VPID_CAP.
    pub(super) ept_vpid: EptVpidCapability,
    /// CR0 bits that must be 1, and those that may be.
    pub(super) cr0_fixed: [u64; 2],
    /// CR4 bits that must be 1, and those that may be.
    pub(super) cr4_fixed: [u64; 2],
    /// Width of physical addresses in bits.
    pub(super) physical_address_bits: u8,
    /// The MSRs of pin-based, primary, VM-exit and VM-entry controls that older software reads: all default-1
    /// controls must be 1.
    plain: [Allowed; 4],
    /// IA32_VMX_VMCS_ENUM.
    vmcs_enum: u64,
}

const PIN_BASED: PinBasedControls = PinBasedControls::EXTERNAL_INTERRUPT_EXITING
    .union(PinBasedControls::NMI_EXITING)
    .union(PinBasedControls::VIRTUAL_NMIS)
    .union(PinBasedControls::PREEMPTION_TIMER)
    .union(PinBasedControls::PROCESS_POSTED_INTERRUPTS);
/// All but the tertiary controls.
const PRIMARY: PrimaryControls = PrimaryControls::INTERRUPT_WINDOW_EXITING
    .union(PrimaryControls::USE_TSC_OFFSETTING)
    .union(PrimaryControls::HLT_EXITING)
    .union(PrimaryControls::INVLPG_EXITING)
    .union(PrimaryControls::MWAIT_EXITING)
    .union(PrimaryControls::RDPMC_EXITING)
    .union(PrimaryControls::RDTSC_EXITING)
    .union(PrimaryControls::CR3_LOAD_EXITING)
    .union(PrimaryControls::CR3_STORE_EXITING)
    .union(PrimaryControls::CR8_LOAD_EXITING)
    .union(PrimaryControls::CR8_STORE_EXITING)
    .union(PrimaryControls::USE_TPR_SHADOW)
    .union(PrimaryControls::NMI_WINDOW_EXITING)
    .union(PrimaryControls::MOV_DR_EXITING)
    .union(PrimaryControls::UNCONDITIONAL_IO_EXITING)
    .union(PrimaryControls::USE_IO_BITMAPS)
    .union(PrimaryControls::MONITOR_TRAP_FLAG)
    .union(PrimaryControls::USE_MSR_BITMAPS)
    .union(PrimaryControls::MONITOR_EXITING)
    .union(PrimaryControls::PAUSE_EXITING)
    .union(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
const SECONDARY: SecondaryControls = SecondaryControls::VIRTUALIZE_APIC_ACCESSES
    .union(SecondaryControls::ENABLE_EPT)
    .union(SecondaryControls::DESCRIPTOR_TABLE_EXITING)
    .union(SecondaryControls::ENABLE_RDTSCP)
    .union(SecondaryControls::VIRTUALIZE_X2APIC_MODE)
    .union(SecondaryControls::ENABLE_VPID)
    .union(SecondaryControls::WBINVD_EXITING)
    .union(SecondaryControls::UNRESTRICTED_GUEST)
    .union(SecondaryControls::APIC_REGISTER_VIRTUALIZATION)
    .union(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY)
    .union(SecondaryControls::PAUSE_LOOP_EXITING)
    .union(SecondaryControls::RDRAND_EXITING)
    .union(SecondaryControls::ENABLE_INVPCID)
    .union(SecondaryControls::VMCS_SHADOWING)
    .union(SecondaryControls::ENABLE_ENCLS_EXITING)
    .union(SecondaryControls::RDSEED_EXITING)
    .union(SecondaryControls::ENABLE_PML)
    .union(SecondaryControls::ENABLE_XSAVES)
    .union(SecondaryControls::USE_TSC_SCALING)
    .union(SecondaryControls::ENABLE_USER_WAIT_AND_PAUSE);
const EXIT: ExitControls = ExitControls::SAVE_DEBUG_CONTROLS
    .union(ExitControls::HOST_ADDRESS_SPACE_SIZE)
    .union(ExitControls::LOAD_PERF_GLOBAL_CTRL)
    .union(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
    .union(ExitControls::SAVE_PAT)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::SAVE_EFER)
    .union(ExitControls::LOAD_EFER)
    .union(ExitControls::SAVE_PREEMPTION_TIMER)
    .union(ExitControls::LOAD_CET_STATE);
const ENTRY: EntryControls = EntryControls::LOAD_DEBUG_CONTROLS
    .union(EntryControls::IA32E_MODE_GUEST)
    .union(EntryControls::LOAD_PERF_GLOBAL_CTRL)
    .union(EntryControls::LOAD_PAT)
    .union(EntryControls::LOAD_EFER)
    .union(EntryControls::LOAD_CET_STATE);
const EPT_VPID: EptVpidCapability = EptVpidCapability::EXECUTE_ONLY
    .union(EptVpidCapability::WALK_LENGTH_4)
    .union(EptVpidCapability::UNCACHEABLE)
    .union(EptVpidCapability::WRITE_BACK)
    .union(EptVpidCapability::PAGES_2M)
    .union(EptVpidCapability::PAGES_1G)
    .union(EptVpidCapability::INVEPT)
    .union(EptVpidCapability::ACCESSED_DIRTY)
    .union(EptVpidCapability::INVEPT_SINGLE)
    .union(EptVpidCapability::INVEPT_ALL)
    .union(EptVpidCapability::INVVPID)
    .union(EptVpidCapability::INVVPID_ADDRESS)
    .union(EptVpidCapability::INVVPID_SINGLE)
    .union(EptVpidCapability::INVVPID_ALL)
    .union(EptVpidCapability::INVVPID_RETAINING_GLOBALS);

/// Revision, width of addresses, exit information of string I/O, TRUE controls, free error codes. Not the
/// dual-monitor treatment of system-management mode.
const BASIC: u64 = 0x7fff_ffff | 1 << 48 | 1 << 54 | 1 << 55 | 1 << 56;
/// A VMCS is one page of write-back memory.
const BASIC_SIZE_AND_TYPE: u64 = 4096 << 32 | 6 << 50;
/// Rate of the preemption timer, storing of LMA, activity states, CR3 targets, MSR areas, VMWRITE to exit
/// information, instruction length 0. Neither processor trace nor anything of system-management mode.
const MISC: u64 = 0x1f | 1 << 5 | 7 << 6 | 0x1ff << 16 | 7 << 25 | 1 << 29 | 1 << 30;

impl Capability {
    /// Returns what is offered on the executing processor.
    ///
    /// # Errors
    ///
    /// There is no such register: the processor has no VMX, or none that we could have started on.
    pub(super) fn of(msrs: &impl Msrs, physical_address_bits: u8) -> Result<Self, GeneralProtection> {
        let basic = VmxBasic(msrs.read(Msr::IA32_VMX_BASIC)?);
        let offered = |msr, list| Ok(offer(Allowed(msrs.read(msr)?), list));
        let precise = |(plain, precise): (Msr, Msr), list: u32| {
            let precise = if basic.has_true_controls() { precise } else { plain };
            Ok((offered(precise, list)?, offered(plain, list)?))
        };
        let (pin_based, plain_pin_based) = precise(PIN_BASED_MSRS, PIN_BASED.bits())?;
        let (primary, plain_primary) = precise(PRIMARY_MSRS, PRIMARY.bits())?;
        let (mut exits, mut entries) = (EXIT, ENTRY);
        if msrs.read(Msr::IA32_PERF_GLOBAL_CTRL).is_err() {
            // Some emulators have controls that load a register which they do not have.
            exits -= ExitControls::LOAD_PERF_GLOBAL_CTRL;
            entries -= EntryControls::LOAD_PERF_GLOBAL_CTRL;
        }
        if msrs.read(Msr::IA32_S_CET).is_err() {
            exits -= ExitControls::LOAD_CET_STATE;
            entries -= EntryControls::LOAD_CET_STATE;
        }
        let (exit, plain_exit) = precise(EXIT_MSRS, exits.bits())?;
        let (entry, plain_entry) = precise(ENTRY_MSRS, entries.bits())?;
        let has_secondary = primary.may_be_one() & PrimaryControls::ACTIVATE_SECONDARY_CONTROLS.bits() != 0;
        let secondary = if has_secondary {
            offered(Msr::IA32_VMX_PROCBASED_CTLS2, SECONDARY.bits())?
        } else {
            Allowed(0)
        };
        let needs_ept_vpid = SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID;
        let ept_vpid = if secondary.may_be_one() & needs_ept_vpid.bits() != 0 {
            EptVpidCapability::from_bits_retain(msrs.read(Msr::IA32_VMX_EPT_VPID_CAP)?) & EPT_VPID
        } else {
            EptVpidCapability::empty()
        };
        let mut capability = Self {
            basic: basic.0 & BASIC | BASIC_SIZE_AND_TYPE,
            misc: msrs.read(Msr::IA32_VMX_MISC)? & MISC,
            pin_based,
            primary,
            secondary,
            exit,
            entry,
            ept_vpid,
            cr0_fixed: [msrs.read(Msr::IA32_VMX_CR0_FIXED0)?, msrs.read(Msr::IA32_VMX_CR0_FIXED1)?],
            cr4_fixed: [msrs.read(Msr::IA32_VMX_CR4_FIXED0)?, (cr4_for_guest(msrs) | Cr4::VMXE).bits()],
            physical_address_bits,
            plain: [plain_pin_based, plain_primary, plain_exit, plain_entry],
            vmcs_enum: 0,
        };
        capability.vmcs_enum = highest_index(&capability);
        Ok(capability)
    }

    /// Returns whether `msr` is in the range of those that tell what VMX can do.
    pub(super) fn covers(msr: Msr) -> bool {
        (Msr::IA32_VMX_BASIC.0..=Msr::IA32_VMX_LAST.0).contains(&msr.0)
    }

    /// Returns what RDMSR of a VMX capability MSR gives L1.
    ///
    /// # Errors
    ///
    /// L1's processor has no such register: what it would tell of is not offered.
    pub(super) fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        let [pin_based, primary, exit, entry] = self.plain;
        let has_true_controls = VmxBasic(self.basic).has_true_controls();
        let only_if = |exists, value| if exists { Ok(value) } else { Err(GeneralProtection) };
        match msr {
            Msr::IA32_VMX_BASIC => Ok(self.basic),
            Msr::IA32_VMX_PINBASED_CTLS => Ok(pin_based.0),
            Msr::IA32_VMX_PROCBASED_CTLS => Ok(primary.0),
            Msr::IA32_VMX_EXIT_CTLS => Ok(exit.0),
            Msr::IA32_VMX_ENTRY_CTLS => Ok(entry.0),
            Msr::IA32_VMX_MISC => Ok(self.misc),
            Msr::IA32_VMX_CR0_FIXED0 => Ok(self.cr0_fixed[0]),
            Msr::IA32_VMX_CR0_FIXED1 => Ok(self.cr0_fixed[1]),
            Msr::IA32_VMX_CR4_FIXED0 => Ok(self.cr4_fixed[0]),
            Msr::IA32_VMX_CR4_FIXED1 => Ok(self.cr4_fixed[1]),
            Msr::IA32_VMX_VMCS_ENUM => Ok(self.vmcs_enum),
            Msr::IA32_VMX_PROCBASED_CTLS2 => only_if(self.has_secondary_controls(), self.secondary.0),
            Msr::IA32_VMX_EPT_VPID_CAP => {
                let needs = SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID;
                only_if(self.secondary.may_be_one() & needs.bits() != 0, self.ept_vpid.bits())
            }
            Msr::IA32_VMX_TRUE_PINBASED_CTLS => only_if(has_true_controls, self.pin_based.0),
            Msr::IA32_VMX_TRUE_PROCBASED_CTLS => only_if(has_true_controls, self.primary.0),
            Msr::IA32_VMX_TRUE_EXIT_CTLS => only_if(has_true_controls, self.exit.0),
            Msr::IA32_VMX_TRUE_ENTRY_CTLS => only_if(has_true_controls, self.entry.0),
            _ => Err(GeneralProtection),
        }
    }

    /// VMCS revision identifier.
    pub(super) const fn revision(&self) -> u32 {
        VmxBasic(self.basic).revision()
    }

    /// Returns whether L1 may have secondary processor-based controls at all.
    pub(super) const fn has_secondary_controls(&self) -> bool {
        self.primary.may_be_one() & PrimaryControls::ACTIVATE_SECONDARY_CONTROLS.bits() != 0
    }

    /// Returns whether entries of L1's may load the state of control-flow enforcement, which exits save then.
    pub(super) const fn has_cet(&self) -> bool {
        self.entry.may_be_one() & EntryControls::LOAD_CET_STATE.bits() != 0
    }

    /// Returns whether L1 may have shadow VMCSs.
    pub(super) const fn has_shadowing(&self) -> bool {
        self.secondary.may_be_one() & SecondaryControls::VMCS_SHADOWING.bits() != 0
    }

    /// Returns the field with this encoding; `None` where L1's processor has none.
    pub(super) fn field(&self, encoding: u64) -> Option<Access> {
        let encoding = u32::try_from(encoding).ok()?;
        let index = fields::index(encoding & !1)?;
        let is_high = encoding & 1 == 1;
        let info = FIELDS[index];
        let is_there = self.has_field(info) && (!is_high || info.width() == Width::Bits64);
        is_there.then_some(Access { index, is_high })
    }

    /// Returns whether L1's processor has the field: those that only one control uses exist where it is offered (SDM,
    /// appendix "Field Encoding in VMCS"), and nobody has those of what is never offered.
    pub(super) fn has_field(&self, field: FieldInfo) -> bool {
        let entry = |control: EntryControls| self.entry.may_be_one() & control.bits() != 0;
        let exit = |control: ExitControls| self.exit.may_be_one() & control.bits() != 0;
        let exists = match field.exists {
            Exists::Always => true,
            Exists::PinBased(control) => self.pin_based.may_be_one() & control.bits() != 0,
            Exists::Primary(control) => self.primary.may_be_one() & control.bits() != 0,
            Exists::Secondary(control) => self.secondary.may_be_one() & control.bits() != 0,
            Exists::Entry(control) => entry(control),
            Exists::Exit(control) => exit(control),
            Exists::EntryOrExit(loaded, saved) => entry(loaded) || exit(saved),
        };
        exists && field.treatment != Treatment::Absent
    }

    /// Returns whether CR0 can hold `value` in VMX operation, bits of `ignored` aside.
    pub(super) const fn allows_cr0(&self, value: u64, ignored: u64) -> bool {
        are_fixed_bits_right(value, self.cr0_fixed, ignored)
    }

    /// Returns whether CR4 can hold `value` in VMX operation.
    pub(super) const fn allows_cr4(&self, value: u64) -> bool {
        are_fixed_bits_right(value, self.cr4_fixed, 0)
    }
}

const PIN_BASED_MSRS: (Msr, Msr) = (Msr::IA32_VMX_PINBASED_CTLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS);
const PRIMARY_MSRS: (Msr, Msr) = (Msr::IA32_VMX_PROCBASED_CTLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS);
const EXIT_MSRS: (Msr, Msr) = (Msr::IA32_VMX_EXIT_CTLS, Msr::IA32_VMX_TRUE_EXIT_CTLS);
const ENTRY_MSRS: (Msr, Msr) = (Msr::IA32_VMX_ENTRY_CTLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS);

/// Returns the controls of `list`, and those that the hardware demands.
fn offer(hardware: Allowed, list: u32) -> Allowed {
    let must_be_one = hardware.must_be_one();
    let may_be_one = hardware.may_be_one() & (list | must_be_one);
    Allowed(u64::from(may_be_one) << 32 | u64::from(must_be_one))
}

const fn are_fixed_bits_right(value: u64, [must_be_one, may_be_one]: [u64; 2], ignored: u64) -> bool {
    (value & !may_be_one | must_be_one & !value) & !ignored == 0
}

/// Returns the highest index of a field that L1 has, where IA32_VMX_VMCS_ENUM has it (bits 9:1).
fn highest_index(capability: &Capability) -> u64 {
    let there = FIELDS.iter().filter(|&&field| capability.has_field(field));
    there.map(|field| u64::from(field.encoding & 0x3fe)).max().unwrap_or_default()
}

#[cfg(test)]
#[path = "capability_tests.rs"]
mod tests;
