//! Registers that hold the guest's values while the hypervisor runs, since no VMCS field switches them.

use super::{Processor, vmx};
use crate::Msrs;
use core::arch::asm;
use x86::cet::CetControl;
use x86::msr::{GuestMsr, Msr};
use x86::vmx::instruction_error::VmFail;

const DR6_AFTER_INIT: u64 = 0xffff_0ff0;
/// The guest's virtual-processor identifier.
const VPID: u16 = 1;
const SINGLE_CONTEXT: u64 = 1;

/// Loads CR2 with the address of a page fault that the guest is to take.
pub fn set_cr2(address: u64) {
    // SAFETY: CR2 is the guest's while the hypervisor runs; the hypervisor expects no page faults.
    unsafe { asm!("mov cr2, {}", in(reg) address, options(nomem, nostack)) }
}

/// CR2 and DR0 to DR6 as INIT leaves them; DR7 is switched by the VMCS.
pub fn reset_cr2_and_debug_registers() {
    set_cr2(0);
    // SAFETY: DR7 is clear in the hypervisor, so the address registers trap nothing.
    unsafe {
        asm!("mov dr0, {0}", "mov dr1, {0}", "mov dr2, {0}", "mov dr3, {0}", "mov dr6, {1}",
            in(reg) 0u64, in(reg) DR6_AFTER_INIT, options(nomem, nostack));
    }
}

/// DR0 to DR3.
#[must_use]
pub fn breakpoint_addresses() -> [u64; 4] {
    let (first, second, third, fourth);
    // SAFETY: reads registers; DR7 is clear in the hypervisor, so that DR7.GD stops none of it.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) first, out(reg) second, out(reg) third, out(reg) fourth, options(nomem, nostack));
    }
    [first, second, third, fourth]
}

/// Sets `bits` of DR6, which explain a #DB that the guest is to take.
pub fn set_dr6_bits(bits: u64) {
    // SAFETY: DR6 only reports; its value is the guest's.
    unsafe {
        asm!("mov {old}, dr6", "or {old}, {bits}", "mov dr6, {old}", old = out(reg) _, bits = in(reg) bits,
            options(nomem, nostack));
    }
}

/// PKRU. The guest has CR4.PKE set, so the processor has it.
#[must_use]
pub fn pkru() -> u32 {
    let value: u32;
    // SAFETY: RDPKRU needs CR4.PKE of the code that runs: it is set around it and changes no mapping of the
    // hypervisor, whose pages are all supervisor pages.
    unsafe {
        asm!("mov {old}, cr4", "mov {new}, {old}", "or {new}, {pke}", "mov cr4, {new}", "rdpkru", "mov cr4, {old}",
            old = out(reg) _, new = out(reg) _, pke = const 1 << 22, in("ecx") 0, out("eax") value, out("edx") _,
            options(nomem, nostack));
    }
    value
}

/// IA32_PKRS. The guest has CR4.PKS set, so the processor has it; the hypervisor has not, so it binds nothing here.
#[must_use]
pub fn pkrs() -> u32 {
    u32::try_from(Processor.read(Msr::IA32_PKRS).unwrap_or(0)).unwrap_or(0)
}

/// Requires ENDBR32 or ENDBR64 as the guest's next instruction where it has indirect branches tracked, as a user or as a
/// supervisor (SDM, "Indirect Branch Tracking"). The guest has CR4.CET set, so the processor has the registers; the
/// hypervisor has not.
pub fn expect_branch_target(is_user: bool) {
    let register = if is_user { GuestMsr::IA32_U_CET } else { GuestMsr::IA32_S_CET };
    let Ok(value) = Processor.read(register.msr()) else { return };
    let mut control = CetControl::from_bits_retain(value);
    if control.contains(CetControl::ENDBR_EN) {
        control.remove(CetControl::SUPPRESS);
        control.insert(CetControl::TRACKER);
        // What was read fits, and these bits fit each other.
        let _ = Processor.write(register, control.bits());
    }
}

/// Drops this processor's translations of the guest's linear addresses, global ones included.
///
/// # Errors
///
/// As the processor says: it has no single-context INVVPID, for which the boot has looked.
pub fn invalidate_translations() -> Result<(), VmFail> {
    // SAFETY: dropping translations is always correct; outside VMX root operation the instruction faults and does
    // nothing.
    unsafe { vmx::invvpid(SINGLE_CONTEXT, VPID, 0) }
}
