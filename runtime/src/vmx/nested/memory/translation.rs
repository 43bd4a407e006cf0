//! How addresses of L2 are translated: the tables and the VPID that the hardware gets for it.
//!
//! UNSAFETY: the tables under which a guest is entered.
#![expect(unsafe_code, reason = "EPT pointer")]

use super::ept02::machine_cache as ept02;
use super::vpid::{Invvpid, VpidMap};
use crate::machine::SECOND_LEVEL;
use crate::memory::TableRoot;
use crate::smp::percpu::PerCpu;
use crate::vmx::invalidate::VPID;
use crate::vmx::nested::Operation;
use crate::vmx::nested::bitmap::pages;
use crate::vmx::nested::cpu::{self, NestedCpu};
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use core::sync::atomic::Ordering;
use hw::Vmcs;
use hw::bare::vmx::CurrentVmcs;
use x86::vmx::controls::SecondaryControls;
use x86::vmx::ept::EptPointer;
use x86::vmx::vmcs;

/// Puts L2 under L1's tables, or L1's own, and under a VPID of its own.
pub(crate) fn set_translation(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, vpids: &mut VpidMap, cpu: &PerCpu) {
    let has_vpid = L1Controls::of(vmcs12).secondary.contains(SecondaryControls::ENABLE_VPID);
    let assigned = vpids.enter(has_vpid.then(|| vmcs12.read(vmcs::VPID)));
    if assigned.is_stale {
        cpu::drop_translations(Invvpid::of(assigned.vpid));
    }
    if !has_vpid {
        drop_l1_translations();
    }
    vmcs02.write(vmcs::VPID, assigned.vpid);
    set_tables(vmcs02, vmcs12, cpu);
}

/// The tables under which L2 runs: they can change with each entry.
pub(crate) fn set_tables(vmcs02: &mut CurrentVmcs, vmcs12: &Vmcs12, cpu: &PerCpu) {
    let pointer = if L1Controls::of(vmcs12).has_ept() {
        Some(ept02::enter(cpu, EptPointer(vmcs12.read(vmcs::EPT_POINTER))))
    } else {
        SECOND_LEVEL.lock().root(cpu.view()).map(|root| EptPointer::new(root.table()))
    };
    if let Some(pointer) = pointer {
        // SAFETY: L1's own tables, or some that are derived from them and L1's: no page is the hypervisor's.
        unsafe { vmcs02.write_trusted(vmcs::EPT_POINTER, pointer.0) }
    }
}

/// Drops L1's translations, which under VPID 0000H each entry and exit does, as L1 sees it (SDM, "Operations that
/// Invalidate Cached Mappings").
pub(crate) fn drop_l1_translations() {
    cpu::drop_translations(Invvpid::of(VPID));
}

/// What the hypervisor changed meanwhile reaches L2 before it goes on: addresses, and the view of this CPU. A
/// compartment has tables of its own, and L2 follows when it is back from it.
pub(in crate::vmx) fn follow(cpu: &PerCpu) {
    if cpu.is_in_compartment() {
        return;
    }
    let Some(mut state) = cpu::of(cpu) else { return };
    let NestedCpu { nested, hardware, .. } = &mut *state;
    if nested.operation == Operation::NonRoot {
        let mut vmcs02 = hardware.current();
        pages::follow(&mut vmcs02, &nested.vmcs12, hardware);
        set_tables(&mut vmcs02, &nested.vmcs12, cpu);
    }
}

/// Runs L1 on `cpu` on the tables under `root`; what L2 runs on follows before it goes on. Returns whether L2
/// runs: else the VMCS of L1 is current.
pub(in crate::vmx) fn use_second_level(cpu: &PerCpu, root: TableRoot) -> bool {
    let Some(state) = cpu::of(cpu) else { return false };
    if state.nested.operation != Operation::NonRoot {
        return false;
    }
    let pointer = EptPointer::new(root.table());
    // SAFETY: tables that give L1 nothing of the hypervisor's, as all roots are.
    unsafe { state.hardware.select_l1().write_trusted(vmcs::EPT_POINTER, pointer.0) }
    state.hardware.select_l2();
    // L2's own tables follow on the way back: a CPU that has flushed asks for them anew.
    cpu.flush.store(true, Ordering::SeqCst);
    cpu.demand_attention();
    true
}
