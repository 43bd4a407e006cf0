//! The local APIC in either mode (SDM, "Advanced Programmable Interrupt Controller (APIC)").
//!
//! Nothing here executes IRET, so NMI handlers may use it.

#![expect(unsafe_code, reason = "memory-mapped registers")]
// UNSAFETY: volatile accesses to the page that IA32_APIC_BASE names.

use x86::msr::Msr;

use crate::cpu::{pause, rdmsr_existing, wrmsr_existing};

/// Register offsets of xAPIC mode; x2APIC MSRs are 0x800 + offset / 16.
pub mod register {
    #![expect(missing_docs, reason = "register names")]
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TPR: u32 = 0x80;
    pub const EOI: u32 = 0xb0;
    pub const LDR: u32 = 0xd0;
    pub const DFR: u32 = 0xe0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const ISR: u32 = 0x100;
    pub const ICR: u32 = 0x300;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
}

const OTHERS: u32 = 3 << 18;
const SELF: u32 = 1 << 18;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;
const ASSERT: u32 = 1 << 14;
const DELIVERY_PENDING: u32 = 1 << 12;
const X2APIC_ENABLED: u64 = 1 << 10;

/// Whether this CPU's APIC is in x2APIC mode.
pub fn is_x2apic() -> bool {
    rdmsr_existing(Msr::IA32_APIC_BASE) & X2APIC_ENABLED != 0
}

/// Reads a register of this CPU's APIC.
pub fn read(register: u32) -> u32 {
    if is_x2apic() {
        return rdmsr_existing(Msr(0x800 + register / 16)) as u32;
    }
    let address = (base() + u64::from(register)) as *const u32;
    // SAFETY: a register of the APIC's page.
    unsafe { address.read_volatile() }
}

/// Writes a register of this CPU's APIC.
pub fn write(register: u32, value: u32) {
    if is_x2apic() {
        wrmsr_existing(Msr(0x800 + register / 16), value.into());
        return;
    }
    let address = (base() + u64::from(register)) as *mut u32;
    // SAFETY: as above.
    unsafe { address.write_volatile(value) };
}

/// Physical address of the registers in xAPIC mode.
pub fn base() -> u64 {
    rdmsr_existing(Msr::IA32_APIC_BASE) & 0xff_ffff_f000
}

/// This CPU's APIC ID.
pub fn id() -> u32 {
    let id = read(register::ID);
    if is_x2apic() { id } else { id >> 24 }
}

/// Sends `command` (low half of the interrupt command register) to the CPU with ID `target`.
pub fn send(target: u32, command: u32) {
    if is_x2apic() {
        wrmsr_existing(Msr::X2APIC_ICR, u64::from(target) << 32 | u64::from(command));
        return;
    }
    write(register::ICR + 0x10, target << 24);
    write(register::ICR, command);
    while read(register::ICR) & DELIVERY_PENDING != 0 {
        pause();
    }
}

/// INIT to every other CPU.
pub fn init_others() {
    send(0, OTHERS | INIT | ASSERT);
}

/// Start-up IPI to every other CPU.
pub fn startup_others(vector: u8) {
    send(0, OTHERS | STARTUP | ASSERT | u32::from(vector));
}

/// NMI to every other CPU.
pub fn nmi_others() {
    send(0, OTHERS | NMI | ASSERT);
}

/// NMI to one CPU.
pub fn nmi(target: u32) {
    send(target, NMI | ASSERT);
}

/// INIT to one CPU.
pub fn init(target: u32) {
    send(target, INIT | ASSERT);
}

/// Start-up IPI to one CPU.
pub fn startup(target: u32, vector: u8) {
    send(target, STARTUP | ASSERT | u32::from(vector));
}

/// A fixed interrupt to this CPU itself.
pub fn interrupt_self(vector: u8) {
    send(id(), SELF | ASSERT | u32::from(vector));
}

/// A fixed interrupt to one CPU.
pub fn interrupt(target: u32, vector: u8) {
    send(target, ASSERT | u32::from(vector));
}

/// End of interrupt.
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Enables this CPU's APIC with spurious vector 255.
pub(crate) fn initialise() {
    write(register::SPURIOUS, 0x1ff);
}
