//! VMXOFF (SDM, "VMXOFF-Leave VMX Operation").

use super::{Hardware, L1, Status};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use crate::vmx::vcpu::CR0_MASK;
use hw::Vmcs;
use x86::event::Event;
use x86::vmx::vmcs;

/// Leaves VMX operation. What L1 did not VMCLEAR is written back all the same: a processor may do so at any
/// time.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &mut Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    // While it is still known where the current VMCS goes.
    nested.write_back_current(l1.memory, l1.hardware);
    nested.switch_off();
    l1.hardware.left_operation();
    l1.vcpu.vmcs.write(vmcs::CR0_MASK, CR0_MASK.bits());
    Ok(Status::Succeed)
}
