//! The crossing between guest and hypervisor: general-purpose registers, nothing else.
//!
//! A VM exit lands on the top of this CPU's stack, pushes the guest's registers there and calls
//! [`crate::vmx::run::handle_exit`]; the way back pops them and enters. Everything else that differs between the
//! two compartments is switched by the VMCS, or never touched by the hypervisor (FPU and vector state, CR2,
//! debug registers, the SYSCALL MSRs).
//!
//! Between the look at [`PerCpu::attention`](crate::smp::percpu::PerCpu) and VMRESUME an NMI could ask for
//! attention and go unnoticed until the next exit. The NMI handler therefore asks [`restart`]: an NMI in
//! that stretch starts it afresh, which is sound because the registers' memory is still whole.
//!
//! A guest's own guest has a VMCS of its own, whose exits land at another address. It wants VMLAUNCH once: a
//! VMRESUME that fails for that is followed by one.
//!
//! UNSAFETY: the stack is switched by the processor, and registers are moved by hand.
#![expect(unsafe_code, reason = "VM entry")]

use crate::smp::percpu;
use core::arch::global_asm;

/// Puts the guest's registers on the stack, in the order of their encodings.
macro_rules! save_registers {
    () => {
        concat!(
            "push r15\n push r14\n push r13\n push r12\n push r11\n push r10\n push r9\n push r8\n",
            "push rdi\n push rsi\n push rbp\n",
            "push rax\n", // the slot of RSP, which the VMCS keeps
            "push rbx\n push rdx\n push rcx\n push rax\n mov rdi, rsp",
        )
    };
}

/// Takes the guest's registers from the stack.
macro_rules! load_registers {
    () => {
        concat!(
            "pop rax\n pop rcx\n pop rdx\n pop rbx\n",
            "pop rbp\n", // the slot of RSP
            "pop rbp\n pop rsi\n pop rdi\n",
            "pop r8\n pop r9\n pop r10\n pop r11\n pop r12\n pop r13\n pop r14\n pop r15",
        )
    };
}

global_asm!(
    ".pushsection .text.vm_entry, \"ax\"",
    // Exits of a guest's own guest.
    ".balign 16",
    ".global xmhf_l2_exit",
    "xmhf_l2_exit:",
    save_registers!(),
    "call {handle_l2_exit}",
    "jmp xmhf_vm_resume",
    // Exits of the guest.
    ".balign 16",
    ".global xmhf_vm_exit",
    "xmhf_vm_exit:",
    save_registers!(),
    "call {handle_exit}",
    ".global xmhf_vm_resume",
    "xmhf_vm_resume:",
    // The look comes before the registers: an NMI from here to VMRESUME, which blocks none, sends the CPU back to it, RSP
    // set anew, and the registers that were popped are still whole in memory (`restart`).
    "cmp byte ptr gs:[{attention}], 0",
    "jne 3f",
    load_registers!(),
    "vmresume",
    ".global xmhf_vm_resume_end",
    "xmhf_vm_resume_end:",
    // VMRESUME was refused, and the stack's pointer was popped past the registers.
    "mov rsp, gs:[{registers}]",
    "mov rdi, rsp",
    "call {entry_failed}",
    "test al, al",
    "jz xmhf_vm_resume",
    // VMLAUNCH. The registers are on the top of this CPU's stack, and RSP points to them.
    ".global xmhf_vm_launch",
    "xmhf_vm_launch:",
    "cmp byte ptr gs:[{attention}], 0",
    "jne 4f",
    load_registers!(),
    "vmlaunch",
    ".global xmhf_vm_launch_end",
    "xmhf_vm_launch_end:",
    "mov rsp, gs:[{registers}]",
    "mov rdi, rsp",
    "call {entry_failed}",
    "test al, al",
    "jz xmhf_vm_resume",
    "ud2",
    // First entry: rdi = the registers.
    ".global xmhf_vm_begin",
    "xmhf_vm_begin:",
    "mov rsp, rdi",
    "jmp xmhf_vm_launch",
    "3: mov rdi, rsp",
    "call {attend}",
    "jmp xmhf_vm_resume",
    "4: mov rdi, rsp",
    "call {attend}",
    // What was looked at may have made another VMCS current: VMRESUME tells.
    "jmp xmhf_vm_resume",
    ".popsection",
    handle_exit = sym crate::vmx::run::handle_exit,
    handle_l2_exit = sym crate::vmx::nested::handle_l2_exit,
    attend = sym crate::vmx::run::attend,
    entry_failed = sym crate::vmx::run::entry_failed,
    attention = const percpu::ATTENTION_OFFSET,
    registers = const percpu::REGISTERS_OFFSET,
);

unsafe extern "C" {
    fn xmhf_vm_exit();
    fn xmhf_l2_exit();
    fn xmhf_vm_resume();
    fn xmhf_vm_resume_end();
    fn xmhf_vm_launch();
    fn xmhf_vm_launch_end();
    fn xmhf_vm_begin(registers: *mut crate::vcpu::Registers) -> !;
}

/// Returns where VM exits land: HOST_RIP.
#[must_use]
pub(super) fn exit_address() -> u64 {
    xmhf_vm_exit as *const () as u64
}

/// Returns where VM exits of a guest's own guest land.
#[must_use]
pub(super) fn l2_exit_address() -> u64 {
    xmhf_l2_exit as *const () as u64
}

/// Returns where an NMI that interrupted the hypervisor at `rip` has to return to, when not to `rip` itself: the
/// look at `attention` that it came too late for.
#[must_use]
pub(crate) fn restart(rip: u64) -> Option<u64> {
    let stretches = [
        xmhf_vm_resume as *const () as u64..xmhf_vm_resume_end as *const () as u64,
        xmhf_vm_launch as *const () as u64..xmhf_vm_launch_end as *const () as u64,
    ];
    stretches.into_iter().find(|stretch| stretch.contains(&rip)).map(|stretch| stretch.start)
}

/// Enters the guest for the first time on this CPU.
///
/// # Safety
///
/// 1. The current VMCS is complete and its launch state is clear.
/// 2. `registers` lies on the top of this CPU's stack, where HOST_RSP points behind it.
pub(super) unsafe fn launch(registers: *mut crate::vcpu::Registers) -> ! {
    // SAFETY: by the caller's duties.
    unsafe { xmhf_vm_begin(registers) }
}
