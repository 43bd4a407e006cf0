//! INIT signals for L1's processor (SDM, "INIT" in "Other Causes of VM Exits").

use super::delivery::settle;
use crate::smp::percpu::PerCpu;
use crate::vcpu::Registers;
use crate::vmx::nested::{Operation, cpu};

/// Takes an INIT signal that came: L2 exits for it; in VMX root operation it waits. Returns whether L1 is in VMX operation:
/// outside, the caller has to carry it out.
pub(in crate::vmx) fn init_arrived(registers: &mut Registers, cpu: &PerCpu) -> bool {
    let Some(mut state) = cpu::of(cpu) else { return false };
    if state.nested.operation == Operation::Off {
        return false;
    }
    state.nested.pending.give_init();
    if state.nested.operation == Operation::NonRoot {
        settle(state, registers, cpu);
    }
    true
}

/// Returns whether an INIT signal waited for the VMXOFF that L1 has just executed.
pub(in crate::vmx) fn releases_init(cpu: &PerCpu) -> bool {
    cpu::of(cpu).is_some_and(|mut state| !state.nested.is_on() && state.nested.pending.take_init())
}
