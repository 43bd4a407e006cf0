//! What this processor's registers take, found by trying before a guest runs: CPUID does not say it.
//!
//! A VM entry checks what the hypervisor writes into a VMCS in a guest's stead. Values are accepted from the guest by
//! what is found here, so that nothing is accepted that an entry refuses.

use hw::Msrs;
use x86::cr::Cr4;
use x86::msr::{GuestMsr, Msr};

use crate::exit::control_register::{CR4_KNOWN, CR4_OWNED};

/// Bits of IA32_DEBUGCTL that the manual defines (SDM, "IA32_DEBUGCTL MSR").
const DEBUGCTL: u64 = 0xffc7;
/// An address that is canonical with 57 bits and not with 48.
const WIDE_ADDRESS: u64 = 0x0080_0000_0000_0000;

/// Returns the bits that IA32_DEBUGCTL has. Each is set alone, for some instructions, and what was there comes back.
// UNSAFETY: writes IA32_DEBUGCTL.
#[expect(unsafe_code, reason = "IA32_DEBUGCTL")]
pub(super) fn debugctl(msrs: &impl Msrs) -> u64 {
    let Ok(old) = msrs.read(Msr::IA32_DEBUGCTL) else { return 0 };
    let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| DEBUGCTL & bit != 0);
    let write = |value| {
        // SAFETY: branches are stored to memory by two bits together alone, and one is set at a time; what was there
        // comes back (SDM, "Branch Trace Store (BTS)").
        unsafe { msrs.write_trusted(Msr::IA32_DEBUGCTL, value) }
    };
    let takes = |&bit: &u64| write(bit).is_ok() && msrs.read(Msr::IA32_DEBUGCTL) == Ok(bit);
    let found = bits.filter(takes).fold(0, |found, bit| found | bit);
    // What was read can be written.
    let _ = write(old);
    found
}

/// Returns whether registers take addresses of 57 bits while four levels of paging are used, as the hypervisor uses
/// them. A processor does (SDM, "Canonical Addressing"); an emulator of one, or a hypervisor beneath, may go by the
/// mode, and would refuse to enter a guest that has such an address from its five-level paging.
pub(super) fn takes_wide_addresses(msrs: &impl Msrs) -> bool {
    // The hypervisor does not use SYSENTER.
    let Ok(old) = msrs.read(Msr::IA32_SYSENTER_ESP) else { return false };
    let is_taken = msrs.write(GuestMsr::IA32_SYSENTER_ESP, WIDE_ADDRESS).is_ok();
    let _ = msrs.write(GuestMsr::IA32_SYSENTER_ESP, old);
    is_taken
}

/// CR4 bits that a guest may set, VMXE aside: those that the processor has in VMX operation and the hypervisor knows.
/// Five-level paging is among them only where an entry takes what a guest with it may have in its registers.
pub(crate) fn cr4_for_guest(msrs: &impl Msrs) -> Cr4 {
    let has = Cr4::from_bits_retain(msrs.read(Msr::IA32_VMX_CR4_FIXED1).unwrap_or_default());
    let offered = has & CR4_KNOWN & !CR4_OWNED;
    if offered.contains(Cr4::LA57) && !takes_wide_addresses(msrs) { offered - Cr4::LA57 } else { offered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::GeneralProtection;
    use hw::sim::SimMsrs;

    /// Registers of which some take certain bits only.
    struct Picky {
        msrs: SimMsrs,
        debugctl: u64,
        address_bits: u32,
    }

    // UNSAFETY: writes IA32_DEBUGCTL.
    #[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
    impl Msrs for Picky {
        fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
            self.msrs.read(msr)
        }

        fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
            // SAFETY: a fake's registers.
            unsafe { self.write_trusted(msr.msr(), value) }
        }

        unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
            let is_bad = match msr {
                Msr::IA32_DEBUGCTL => value & !self.debugctl != 0,
                _ => value >> (self.address_bits - 1) != 0,
            };
            if is_bad { Err(GeneralProtection) } else { self.msrs.write(msr, value) }
        }
    }

    fn picky(debugctl: u64, address_bits: u32) -> Picky {
        let msrs = SimMsrs::new([
            (Msr::IA32_DEBUGCTL, 0),
            (Msr::IA32_SYSENTER_ESP, 0x1234),
            (Msr::IA32_VMX_CR4_FIXED1, 0x1_1fff_ffff),
        ]);
        Picky { msrs, debugctl, address_bits }
    }

    #[test]
    fn bits_of_debugctl_are_those_that_it_keeps() {
        let processor = picky(0x1fc3, 48);
        assert_eq!(debugctl(&processor), 0x1fc3);
        assert_eq!(processor.read(Msr::IA32_DEBUGCTL), Ok(0));
        assert_eq!(debugctl(&SimMsrs::new([])), 0, "there is no such register");
        assert_eq!(debugctl(&picky(!0, 48)), DEBUGCTL, "bits that nobody knows are not tried");
    }

    #[test]
    fn five_levels_are_offered_where_registers_take_their_addresses() {
        let with = cr4_for_guest(&picky(0, 57));
        assert_eq!(with - cr4_for_guest(&picky(0, 48)), Cr4::LA57);
        let processor = picky(0, 57);
        assert!(takes_wide_addresses(&processor));
        assert_eq!(processor.read(Msr::IA32_SYSENTER_ESP), Ok(0x1234));
    }

    #[test]
    fn bits_that_the_hypervisor_does_not_know_are_not_offered() {
        let unknown = Cr4::from_bits_retain(1 << 32 | 1 << 26 | 1 << 15) | Cr4::SMXE | Cr4::VMXE;
        assert!(!cr4_for_guest(&picky(0, 57)).intersects(unknown));
    }
}
