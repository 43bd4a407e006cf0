//! A VMCS of which everything is this CPU as it runs: controls at their least, host and guest in 64-bit mode.

#![expect(unsafe_code, reason = "asks the processor for its descriptor tables")]
// UNSAFETY: two instructions that store ten bytes each.

use core::arch::asm;

use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls};
use x86::vmx::vmcs::{self, Field, TrustedField};

use super::instruction::{read, write};
use super::operation::capability;
use crate::cpu::{rdmsr_existing, read_cr0, read_cr3, read_cr4};
use crate::smp::{self, Cpu};

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const CODE_RIGHTS: u32 = 0xa09b;
const DATA_RIGHTS: u32 = 0xc093;
const TASK_RIGHTS: u32 = 0x8b;
const UNUSABLE: u32 = 1 << 16;

/// Selector, base, limit and access rights.
type SegmentFields = (Field<u16>, Field<u64>, Field<u32>, Field<u32>);

#[repr(C, packed)]
#[derive(Default)]
struct Table {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    fn vmx_exit();
}

/// Fills the current VMCS, which VMCLEAR has just initialised.
pub(super) fn write_all(rip: u64, rsp: u64) {
    write_controls();
    write_host();
    write_guest_segments();
    write_guest(rip, rsp);
}

/// The least controls; the current VMCS was initialised by VMCLEAR.
pub fn write_controls() {
    let controls = [
        (vmcs::PIN_BASED_CONTROLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS, 0),
        (vmcs::PRIMARY_CONTROLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS, 0),
        (vmcs::EXIT_CONTROLS, Msr::IA32_VMX_TRUE_EXIT_CTLS, ExitControls::HOST_ADDRESS_SPACE_SIZE.bits()),
        (vmcs::ENTRY_CONTROLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS, EntryControls::IA32E_MODE_GUEST.bits()),
    ];
    for (field, msr, wanted) in controls {
        write(field, capability(msr).must_be_one() | wanted);
    }
    for field in [
        vmcs::EXCEPTION_BITMAP,
        vmcs::PAGE_FAULT_ERROR_CODE_MASK,
        vmcs::PAGE_FAULT_ERROR_CODE_MATCH,
        vmcs::CR3_TARGET_COUNT,
        vmcs::ENTRY_INTERRUPTION_INFORMATION,
    ] {
        write(field, 0);
    }
    for field in [
        vmcs::EXIT_MSR_STORE_COUNT,
        vmcs::EXIT_MSR_LOAD_COUNT,
        vmcs::ENTRY_MSR_LOAD_COUNT,
        vmcs::SECONDARY_CONTROLS,
    ] {
        write(field, 0);
    }
    for field in [vmcs::CR0_MASK, vmcs::CR4_MASK, vmcs::CR0_READ_SHADOW, vmcs::CR4_READ_SHADOW] {
        write(field, 0);
    }
}

/// The host state.
pub fn write_host() {
    let (gdt, idt) = tables();
    write(vmcs::HOST_CR0, read_cr0());
    write(vmcs::HOST_CR3, read_cr3());
    write(vmcs::HOST_CR4, read_cr4());
    write(vmcs::HOST_CS_SELECTOR, CODE);
    for field in [
        vmcs::HOST_SS_SELECTOR,
        vmcs::HOST_DS_SELECTOR,
        vmcs::HOST_ES_SELECTOR,
        vmcs::HOST_FS_SELECTOR,
        vmcs::HOST_GS_SELECTOR,
    ] {
        write(field, DATA);
    }
    write(vmcs::HOST_TR_SELECTOR, task_selector());
    write(vmcs::HOST_FS_BASE, rdmsr_existing(Msr::IA32_FS_BASE));
    write(vmcs::HOST_GS_BASE, rdmsr_existing(Msr::IA32_GS_BASE));
    write(vmcs::HOST_TR_BASE, Cpu::current().tss_base());
    write(vmcs::HOST_GDTR_BASE, gdt.base);
    write(vmcs::HOST_IDTR_BASE, idt.base);
    write(vmcs::HOST_SYSENTER_CS, 0);
    write(vmcs::HOST_SYSENTER_ESP, 0);
    write(vmcs::HOST_SYSENTER_EIP, 0);
    write(vmcs::HOST_RIP, vmx_exit as *const () as u64);
}

/// The segments of the guest state.
pub fn write_guest_segments() {
    let segments: [SegmentFields; 6] = [
        (vmcs::GUEST_CS_SELECTOR, vmcs::GUEST_CS_BASE, vmcs::GUEST_CS_LIMIT, vmcs::GUEST_CS_ACCESS_RIGHTS),
        (vmcs::GUEST_SS_SELECTOR, vmcs::GUEST_SS_BASE, vmcs::GUEST_SS_LIMIT, vmcs::GUEST_SS_ACCESS_RIGHTS),
        (vmcs::GUEST_DS_SELECTOR, vmcs::GUEST_DS_BASE, vmcs::GUEST_DS_LIMIT, vmcs::GUEST_DS_ACCESS_RIGHTS),
        (vmcs::GUEST_ES_SELECTOR, vmcs::GUEST_ES_BASE, vmcs::GUEST_ES_LIMIT, vmcs::GUEST_ES_ACCESS_RIGHTS),
        (vmcs::GUEST_FS_SELECTOR, vmcs::GUEST_FS_BASE, vmcs::GUEST_FS_LIMIT, vmcs::GUEST_FS_ACCESS_RIGHTS),
        (vmcs::GUEST_GS_SELECTOR, vmcs::GUEST_GS_BASE, vmcs::GUEST_GS_LIMIT, vmcs::GUEST_GS_ACCESS_RIGHTS),
    ];
    for (index, (selector, base, limit, rights)) in segments.into_iter().enumerate() {
        let is_code = index == 0;
        write(selector, if is_code { CODE } else { DATA });
        write(base, 0);
        write(limit, u32::MAX);
        write(rights, if is_code { CODE_RIGHTS } else { DATA_RIGHTS });
    }
    write(vmcs::GUEST_TR_SELECTOR, task_selector());
    write(vmcs::GUEST_TR_BASE, Cpu::current().tss_base());
    write(vmcs::GUEST_TR_LIMIT, 0x67);
    write(vmcs::GUEST_TR_ACCESS_RIGHTS, TASK_RIGHTS);
    write(vmcs::GUEST_LDTR_SELECTOR, 0);
    write(vmcs::GUEST_LDTR_BASE, 0);
    write(vmcs::GUEST_LDTR_LIMIT, 0);
    write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, UNUSABLE);
}

/// Code and stack of 64-bit mode at CPL 0.
pub(super) fn write_code_and_stack() {
    write(vmcs::GUEST_CS_SELECTOR, CODE);
    write(vmcs::GUEST_CS_ACCESS_RIGHTS, CODE_RIGHTS);
    write(vmcs::GUEST_SS_SELECTOR, DATA);
    write(vmcs::GUEST_SS_ACCESS_RIGHTS, DATA_RIGHTS);
}

/// The rest of the guest state.
pub fn write_guest(rip: u64, rsp: u64) {
    let (gdt, idt) = tables();
    write(vmcs::GUEST_CR0, read_cr0());
    write(vmcs::GUEST_CR3, read_cr3());
    write(vmcs::GUEST_CR4, read_cr4());
    write(vmcs::GUEST_GDTR_BASE, gdt.base);
    write(vmcs::GUEST_GDTR_LIMIT, gdt.limit.into());
    write(vmcs::GUEST_IDTR_BASE, idt.base);
    write(vmcs::GUEST_IDTR_LIMIT, idt.limit.into());
    write(vmcs::GUEST_DR7, 0x400);
    write(vmcs::GUEST_RIP, rip);
    write(vmcs::GUEST_RSP, rsp);
    write(vmcs::GUEST_RFLAGS, 2);
    write(vmcs::GUEST_DEBUGCTL, 0);
    write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    write(vmcs::GUEST_ACTIVITY, 0);
    write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    write(vmcs::GUEST_SYSENTER_CS, 0);
    write(vmcs::GUEST_SYSENTER_ESP, 0);
    write(vmcs::GUEST_SYSENTER_EIP, 0);
    write(vmcs::VMCS_LINK_POINTER, u64::MAX);
}

/// Sets `bits` in the control word `field` of the current VMCS; `false` where the processor lacks one of them.
pub(super) fn add(field: TrustedField<u32>, msr: Msr, bits: u32) -> bool {
    let is_there = bits & !capability(msr).may_be_one() == 0;
    if is_there {
        write(field, read(field) | bits);
    }
    is_there
}

fn task_selector() -> u16 {
    (0x70 + 16 * smp::number()) as u16
}

fn tables() -> (Table, Table) {
    let (mut gdt, mut idt) = (Table::default(), Table::default());
    // SAFETY: stores ten bytes.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut gdt, options(nostack)) };
    // SAFETY: as above.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut idt, options(nostack)) };
    (gdt, idt)
}
