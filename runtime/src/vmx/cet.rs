//! Control-flow enforcement of guests, where the hypervisor has to change its state.
//!
//! That state stays in the processor's registers, for the hypervisor uses none of it. Of these SSP can be written by a VM
//! entry alone, so the one entry behind a change loads what exits save anyway.

use super::switch;
use crate::smp::percpu;
use hw::bare::Processor;
use hw::{Msrs, Vmcs};
use x86::cet::CetControl;
use x86::msr::{GuestMsr, Msr};
use x86::vmx::capability::Allowed;
use x86::vmx::controls::EntryControls;
use x86::vmx::vmcs;

const SHADOW_STACK: u64 = CetControl::SH_STK_EN.bits();
const ENDBR: u64 = CetControl::ENDBR_EN.bits();
const WAITS_FOR_ENDBR: u64 = CetControl::TRACKER.bits();

/// Clears the executing CPU's wait for a branch target in user mode (SDM, "Indirect Branch Tracking"). Returns whether the
/// user has a shadow stack that an entry can set.
pub(super) fn end_branch_target() -> bool {
    let Ok(value) = Processor.read(Msr::IA32_U_CET) else { return false };
    if value & ENDBR != 0 && value & WAITS_FOR_ENDBR != 0 {
        // What was read fits, without this bit too.
        let _ = Processor.write(GuestMsr::IA32_U_CET, value & !WAITS_FOR_ENDBR);
    }
    let allowed = Allowed(Processor.read(Msr::IA32_VMX_TRUE_ENTRY_CTLS).unwrap_or(0)).may_be_one();
    value & SHADOW_STACK != 0 && allowed & EntryControls::LOAD_CET_STATE.bits() != 0
}

/// Writes the guest's IA32_S_CET and IA32_INTERRUPT_SSP_TABLE_ADDR. The values have been checked.
pub(super) fn write_registers(s_cet: u64, table: u64) {
    let _ = Processor.write(GuestMsr::IA32_S_CET, s_cet);
    let _ = Processor.write(GuestMsr::IA32_INTERRUPT_SSP_TABLE_ADDR, table);
}

/// Loads what the next entry under `vmcs` would load, but for SSP. The values have been checked.
pub(super) fn load_now(vmcs: &impl Vmcs) {
    write_registers(vmcs.read(vmcs::GUEST_S_CET), vmcs.read(vmcs::GUEST_INTERRUPT_SSP_TABLE));
}

/// Has `vmcs` say of the guest's IA32_S_CET and IA32_INTERRUPT_SSP_TABLE_ADDR what the processor has, as its exits do.
#[cold]
pub(super) fn save_registers(vmcs: &mut impl Vmcs) {
    let register = |msr| Processor.read(msr).unwrap_or(0);
    vmcs.write(vmcs::GUEST_S_CET, register(Msr::IA32_S_CET));
    vmcs.write(vmcs::GUEST_INTERRUPT_SSP_TABLE, register(Msr::IA32_INTERRUPT_SSP_TABLE_ADDR));
}

/// Returns whether `msr` is one of these.
pub(super) const fn covers(msr: Msr) -> bool {
    matches!(msr, Msr::IA32_S_CET | Msr::IA32_INTERRUPT_SSP_TABLE_ADDR)
}

/// Makes the next entry, under `vmcs`, load `ssp` and the registers as they are.
#[cold]
pub(super) fn load_at_entry(vmcs: &mut impl Vmcs, ssp: u64) {
    vmcs.write(vmcs::GUEST_SSP, ssp);
    save_registers(vmcs);
    set_loading(vmcs, true);
}

/// Makes entries load the state that `vmcs` has.
#[cold]
pub(super) fn start_loading(vmcs: &mut impl Vmcs) {
    set_loading(vmcs, true);
}

/// Makes entries leave the state alone again.
#[cold]
pub(super) fn stop_loading(vmcs: &mut impl Vmcs) {
    set_loading(vmcs, false);
}

fn set_loading(vmcs: &mut impl Vmcs, is_loaded: bool) {
    percpu::current().set_loads_cet(is_loaded);
    switch::entry(vmcs, EntryControls::LOAD_CET_STATE, is_loaded);
}
