//! The host-state area: what a VM exit loads (SDM, "Host-State Area").

use crate::smp::percpu::{CODE_SELECTOR, DATA_SELECTOR, PerCpu, TASK_SELECTOR};
use hw::Vmcs;
use x86::vmx::vmcs;

/// Control registers and tables that are the same on every CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostRegisters {
    /// CR0.
    pub(super) cr0: u64,
    /// CR3.
    pub(super) cr3: u64,
    /// CR4.
    pub(super) cr4: u64,
    /// IA32_EFER.
    pub(super) efer: u64,
    /// IA32_PAT.
    pub(super) pat: u64,
    /// Base of the interrupt descriptor table.
    pub(super) idt_base: u64,
    /// Where exits land.
    pub(super) rip: u64,
    /// Stack pointer at exits.
    pub(super) rsp: u64,
}

/// Writes the host-state area for `cpu`.
pub(super) fn write(vmcs: &mut impl Vmcs, cpu: &PerCpu, registers: &HostRegisters) {
    vmcs.write(vmcs::HOST_CR0, registers.cr0);
    vmcs.write(vmcs::HOST_CR3, registers.cr3);
    vmcs.write(vmcs::HOST_CR4, registers.cr4);
    vmcs.write(vmcs::HOST_EFER, registers.efer);
    vmcs.write(vmcs::HOST_PAT, registers.pat);
    vmcs.write(vmcs::HOST_CS_SELECTOR, CODE_SELECTOR);
    for field in [vmcs::HOST_SS_SELECTOR, vmcs::HOST_DS_SELECTOR, vmcs::HOST_ES_SELECTOR] {
        vmcs.write(field, DATA_SELECTOR);
    }
    vmcs.write(vmcs::HOST_FS_SELECTOR, 0);
    vmcs.write(vmcs::HOST_GS_SELECTOR, 0);
    vmcs.write(vmcs::HOST_TR_SELECTOR, TASK_SELECTOR);
    vmcs.write(vmcs::HOST_FS_BASE, 0);
    vmcs.write(vmcs::HOST_GS_BASE, (&raw const *cpu) as u64);
    vmcs.write(vmcs::HOST_TR_BASE, cpu.tss_base());
    vmcs.write(vmcs::HOST_GDTR_BASE, cpu.gdt_base());
    vmcs.write(vmcs::HOST_IDTR_BASE, registers.idt_base);
    vmcs.write(vmcs::HOST_SYSENTER_CS, 0);
    vmcs.write(vmcs::HOST_SYSENTER_ESP, 0);
    vmcs.write(vmcs::HOST_SYSENTER_EIP, 0);
    vmcs.write(vmcs::HOST_RIP, registers.rip);
    vmcs.write(vmcs::HOST_RSP, registers.rsp);
}
