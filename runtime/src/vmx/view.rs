//! The tables that a hypapp has the guest of its CPU run on.
//!
//! UNSAFETY: the current VMCS, while an exit is handled.
#![expect(unsafe_code, reason = "current VMCS")]

use super::{compartment, nested};
use crate::memory::TableRoot;
use crate::smp::percpu;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::ept::EptPointer;
use x86::vmx::vmcs;

/// Puts this CPU's guest on the second-level tables under `root` from its next entry on.
pub(crate) fn use_second_level(root: TableRoot) {
    let cpu = percpu::current();
    if nested::use_second_level(cpu, root) {
        return;
    }
    cpu.require_guest();
    let pointer = EptPointer::new(root.table());
    // The tables in force are a compartment's, which stay.
    if cpu.is_in_compartment() {
        return compartment::put_tables_aside(cpu, pointer);
    }
    // SAFETY: this CPU has a guest, and hypapps run while an exit of its is handled: its VMCS is current.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    // SAFETY: tables that give the guest nothing of the hypervisor's, as all roots are.
    unsafe { vmcs.write_trusted(vmcs::EPT_POINTER, pointer.0) }
}
