//! Registers that hold the guest's values while the hypervisor runs, since no VMCS field switches them.

use core::arch::asm;

const DR6_AFTER_INIT: u64 = 0xffff_0ff0;
/// The guest's virtual-processor identifier.
const VPID: u64 = 1;
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

/// Drops this processor's translations of the guest's linear addresses, global ones included.
pub fn invalidate_translations() {
    let descriptor = [VPID, 0u64];
    // SAFETY: dropping translations is always correct; guests run with a VPID, so INVVPID exists. A failure
    // leaves flags only.
    unsafe {
        asm!("invvpid {kind}, [{operand}]", kind = in(reg) SINGLE_CONTEXT, operand = in(reg) &raw const descriptor,
            options(nostack));
    }
}
