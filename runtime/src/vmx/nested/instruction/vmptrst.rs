//! VMPTRST (SDM, "VMPTRST-Store Pointer to Virtual-Machine Control Structure").

use super::{Hardware, L1, Status, operand};
use crate::memory::guest::GuestMemory;
use crate::vmx::nested::Nested;
use hw::Vmcs;
use x86::event::Event;

/// Stores the current-VMCS pointer, all ones where there is none.
pub(super) fn execute<V: Vmcs, M: GuestMemory, H: Hardware>(
    nested: &Nested,
    l1: &mut L1<'_, '_, V, M, H>,
) -> Result<Status, Event> {
    let pointer = nested.current.map_or(u64::MAX, |current| current.get());
    operand::write(l1.vcpu, l1.memory, &pointer.to_le_bytes())?;
    Ok(Status::Succeed)
}
