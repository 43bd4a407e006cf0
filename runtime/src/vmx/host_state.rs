//! The host-state area: what a VM exit loads (SDM, "Host-State Area").
//!
//! UNSAFETY: by what is written here, exits run the hypervisor.
#![expect(unsafe_code, reason = "host state")]

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
///
/// # Safety
///
/// 1. `registers` are those under which the hypervisor runs on this CPU, which is `cpu`, with its GDT and TSS loaded.
/// 2. RIP is code that takes an exit, and RSP the top of what that code finds its registers on.
pub(super) unsafe fn write(vmcs: &mut impl Vmcs, cpu: &PerCpu, registers: &HostRegisters) {
    macro_rules! write {
        ($field:expr, $value:expr) => {{
            let (field, value) = ($field, $value);
            // SAFETY: by the caller's duties.
            unsafe { vmcs.write_trusted(field, value) }
        }};
    }
    write!(vmcs::HOST_CR0, registers.cr0);
    write!(vmcs::HOST_CR3, registers.cr3);
    write!(vmcs::HOST_CR4, registers.cr4);
    write!(vmcs::HOST_EFER, registers.efer);
    write!(vmcs::HOST_PAT, registers.pat);
    write!(vmcs::HOST_CS_SELECTOR, CODE_SELECTOR);
    for field in [vmcs::HOST_SS_SELECTOR, vmcs::HOST_DS_SELECTOR, vmcs::HOST_ES_SELECTOR] {
        write!(field, DATA_SELECTOR);
    }
    write!(vmcs::HOST_FS_SELECTOR, 0);
    write!(vmcs::HOST_GS_SELECTOR, 0);
    write!(vmcs::HOST_TR_SELECTOR, TASK_SELECTOR);
    write!(vmcs::HOST_FS_BASE, 0);
    write!(vmcs::HOST_GS_BASE, (&raw const *cpu) as u64);
    write!(vmcs::HOST_TR_BASE, cpu.tss_base());
    write!(vmcs::HOST_GDTR_BASE, cpu.gdt_base());
    write!(vmcs::HOST_IDTR_BASE, registers.idt_base);
    write!(vmcs::HOST_SYSENTER_CS, 0);
    write!(vmcs::HOST_SYSENTER_ESP, 0);
    write!(vmcs::HOST_SYSENTER_EIP, 0);
    write!(vmcs::HOST_RIP, registers.rip);
    write!(vmcs::HOST_RSP, registers.rsp);
}
