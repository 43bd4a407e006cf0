//! The crossing between guest and hypervisor: general-purpose registers, nothing else.
//!
//! A VM exit lands on the top of this CPU's stack, pushes the guest's registers there and calls
//! [`super::run::handle_exit`]; the way back pops them and enters. Everything else that differs between the
//! two worlds is switched by the VMCS, or never touched by the hypervisor (FPU and vector state, CR2,
//! debug registers, the SYSCALL MSRs).
//!
//! Between the look at [`PerCpu::attention`](crate::smp::percpu::PerCpu) and VMRESUME an NMI could ask for
//! attention and go unnoticed until the next exit. The NMI handler therefore asks [`restart`]: an NMI in
//! that stretch starts it afresh, which is sound because the registers' memory is still whole.
//!
//! UNSAFETY: the stack is switched by the processor, and registers are moved by hand.
#![expect(unsafe_code, reason = "world switch")]

use crate::smp::percpu;
use core::arch::global_asm;

global_asm!(
    ".pushsection .text.world_switch, \"ax\"",
    ".balign 16",
    ".global xmhf_vm_exit",
    "xmhf_vm_exit:",
    "push r15",
    "push r14",
    "push r13",
    "push r12",
    "push r11",
    "push r10",
    "push r9",
    "push r8",
    "push rdi",
    "push rsi",
    "push rbp",
    "push rax", // the slot of RSP, which the VMCS keeps
    "push rbx",
    "push rdx",
    "push rcx",
    "push rax",
    "mov rdi, rsp",
    "call {handle_exit}",
    ".global xmhf_vm_resume",
    "xmhf_vm_resume:",
    "cmp byte ptr gs:[{attention}], 0",
    "jne 3f",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rbx",
    "pop rbp", // the slot of RSP
    "pop rbp",
    "pop rsi",
    "pop rdi",
    "pop r8",
    "pop r9",
    "pop r10",
    "pop r11",
    "pop r12",
    "pop r13",
    "pop r14",
    "pop r15",
    "vmresume",
    ".global xmhf_vm_resume_end",
    "xmhf_vm_resume_end:",
    "mov rsp, gs:[{registers}]",
    "jmp {entry_failed}",
    "3: mov rdi, rsp",
    "call {attend}",
    "jmp xmhf_vm_resume",
    // First entry: rdi = registers of the guest, on the top of this CPU's stack.
    ".global xmhf_vm_launch",
    "xmhf_vm_launch:",
    "mov rsp, rdi",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rbx",
    "pop rbp",
    "pop rbp",
    "pop rsi",
    "pop rdi",
    "pop r8",
    "pop r9",
    "pop r10",
    "pop r11",
    "pop r12",
    "pop r13",
    "pop r14",
    "pop r15",
    "vmlaunch",
    "mov rsp, gs:[{registers}]",
    "jmp {entry_failed}",
    ".popsection",
    handle_exit = sym super::run::handle_exit,
    attend = sym super::run::attend,
    entry_failed = sym super::run::entry_failed,
    attention = const percpu::ATTENTION_OFFSET,
    registers = const percpu::REGISTERS_OFFSET,
);

unsafe extern "C" {
    fn xmhf_vm_exit();
    fn xmhf_vm_resume();
    fn xmhf_vm_resume_end();
    fn xmhf_vm_launch(registers: *mut crate::vcpu::Registers) -> !;
}

/// Where VM exits land: HOST_RIP.
#[must_use]
pub(super) fn exit_address() -> u64 {
    xmhf_vm_exit as *const () as u64
}

/// Where an NMI that interrupted the hypervisor at `rip` has to return to, when not to `rip` itself: the
/// look at `attention` that it came too late for.
#[must_use]
pub(crate) fn restart(rip: u64) -> Option<u64> {
    let start = xmhf_vm_resume as *const () as u64;
    (start..xmhf_vm_resume_end as *const () as u64).contains(&rip).then_some(start)
}

/// Enters the guest for the first time on this CPU.
///
/// # Safety
///
/// 1. The current VMCS is complete and its launch state is clear.
/// 2. `registers` lies on the top of this CPU's stack, where HOST_RSP points behind it.
pub(super) unsafe fn launch(registers: *mut crate::vcpu::Registers) -> ! {
    // SAFETY: by the caller's duties.
    unsafe { xmhf_vm_launch(registers) }
}
