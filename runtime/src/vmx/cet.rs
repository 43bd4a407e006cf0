//! Control-flow enforcement of ring 3 where the hypervisor returns from a call in the called code's stead.
//!
//! The guest's state stays in the processor's registers. Of these SSP can be written by a VM entry alone, so the one
//! entry behind such a return loads what exits save anyway.

use super::nested;
use crate::smp::percpu;
use hw::bare::Processor;
use hw::{Msrs, Vmcs};
use x86::cet::CetControl;
use x86::msr::Msr;
use x86::vmx::capability::Allowed;
use x86::vmx::controls::EntryControls;
use x86::vmx::vmcs;

const SHADOW_STACK: u64 = CetControl::SH_STK_EN.bits();
const ENDBR: u64 = CetControl::ENDBR_EN.bits();
const WAITS_FOR_ENDBR: u64 = CetControl::TRACKER.bits();

/// Clears the executing CPU's wait for a branch target in user mode (SDM, "Indirect Branch Tracking"). Where the user has a
/// shadow stack that an entry can set, gives IA32_S_CET for it; of a guest's guest it cannot.
pub(super) fn end_branch_target() -> Option<u64> {
    let value = Processor.read(Msr::IA32_U_CET).ok()?;
    if value & ENDBR != 0 && value & WAITS_FOR_ENDBR != 0 {
        // What was read fits, without this bit too.
        let _ = Processor.write(Msr::IA32_U_CET, value & !WAITS_FOR_ENDBR);
    }
    let cpu = percpu::current();
    let allowed = Allowed(Processor.read(Msr::IA32_VMX_TRUE_ENTRY_CTLS).unwrap_or(0)).may_be_one();
    if value & SHADOW_STACK == 0 || allowed & EntryControls::LOAD_CET_STATE.bits() == 0 || nested::is_l2(cpu)
    {
        return None;
    }
    cpu.set_loads_cet(true);
    Processor.read(Msr::IA32_S_CET).ok()
}

/// Makes entries leave the state alone again.
#[cold]
pub(super) fn stop_loading(vmcs: &mut impl Vmcs) {
    percpu::current().set_loads_cet(false);
    let entry = EntryControls::from_bits_retain(vmcs.read(vmcs::ENTRY_CONTROLS));
    vmcs.write(vmcs::ENTRY_CONTROLS, (entry - EntryControls::LOAD_CET_STATE).bits());
}
