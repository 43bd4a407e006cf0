//! Exceptions of the hypervisor itself: expected ones resume by table, NMIs are noted, the rest stop.
//!
//! UNSAFETY: interrupt entry points, and frames that they built on the stack.
#![expect(unsafe_code, reason = "interrupt entry")]

use crate::disposition::{Disposition, MACHINE_CHECK, NMI, interrupts_nmi};
use crate::smp::percpu::{self, FAULT_STACK, NMI_STACK, PerCpu};
use crate::{panic, stop};
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use hw::bare::processor::cr2;
use hw::bare::{Processor, exception_table};
use x86_64::VirtAddr;
use x86_64::structures::DescriptorTablePointer;

/// What the entry stubs leave on the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// R15 down to RAX, in the order of pushing.
    pub(crate) registers: [u64; 15],
    /// Exception vector.
    pub(crate) vector: u64,
    /// Error code, 0 where the vector has none.
    pub(crate) error_code: u64,
    /// Instruction pointer of the interrupted code.
    pub(crate) rip: u64,
    /// Code segment.
    pub(crate) cs: u64,
    /// Flags.
    pub(crate) rflags: u64,
    /// Stack pointer of the interrupted code.
    pub(crate) rsp: u64,
    /// Stack segment.
    pub(crate) ss: u64,
}

/// Vectors that the processor itself raises; the hypervisor takes no interrupts.
const VECTORS: u8 = 32;

/// The interrupt descriptor table: two words a gate, filled once before it is first loaded.
static IDT: [[AtomicU64; 2]; VECTORS as usize] =
    [const { [const { AtomicU64::new(0) }; 2] }; VECTORS as usize];

/// Loads the interrupt descriptor table before there is a CPU's data: every exception is taken on the stack in use.
pub(crate) fn load_early() {
    load_with(|_| 0);
}

/// Loads the interrupt descriptor table on this CPU, whose data is installed.
pub(crate) fn load() {
    load_with(|vector| match vector {
        NMI => NMI_STACK + 1,
        8 | MACHINE_CHECK => FAULT_STACK + 1,
        _ => 0,
    });
}

fn load_with(stack_of: impl Fn(u64) -> u16) {
    for (vector, words) in IDT.iter().enumerate() {
        let stack = stack_of(vector as u64);
        // The same values on every CPU.
        let [low, high] = gate(stub_address(vector), stack);
        words[0].store(low, Ordering::Relaxed);
        words[1].store(high, Ordering::Relaxed);
    }
    let limit = u16::from(VECTORS) * 16 - 1;
    let pointer = DescriptorTablePointer { limit, base: VirtAddr::from_ptr(&raw const IDT) };
    // SAFETY: the table is static and every gate leads to a stub.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

/// Returns whether the interrupted code goes on with NMIs blocked, as it was.
extern "C" fn handle(frame: &mut Frame) -> bool {
    // No table is loaded on a CPU whose data is not in place, but on the first one.
    let has_cpu = percpu::is_installed();
    let rip = frame.rip;
    let resume = |vector| exception_table::resume_address(vector, rip);
    match Disposition::of(frame.vector, has_cpu, resume, &Processor) {
        Disposition::Nmi => {
            nmi(frame);
            return false;
        }
        Disposition::MachineCheck(resume) => {
            frame.rip = resume.unwrap_or(frame.rip);
            machine_check(frame);
        }
        Disposition::Resume(address) => frame.rip = address,
        Disposition::Stop => stop_on(frame),
    }
    has_cpu && interrupts_nmi(frame.rsp, percpu::current().nmi_stack())
}

#[cold]
fn nmi(frame: &mut Frame) {
    if stop::is_stopping() {
        stop::stand_still();
    }
    // Noted first: the look that may begin anew has to find it.
    percpu::current().note_nmi();
    look_again(frame);
}

#[cold]
fn machine_check(frame: &mut Frame) {
    percpu::current().give_machine_check();
    look_again(frame);
}

#[cold]
fn stop_on(frame: &Frame) -> ! {
    let Frame { vector, error_code, rip, rsp, .. } = frame;
    let what = format_args!(
        "exception {vector} in the hypervisor, error code {error_code:#x}, rip {rip:#x}, cr2 {:#x}",
        cr2()
    );
    panic::stop_on_exception(what, *rsp, frame)
}

/// Makes code that was about to enter the guest look first at what came.
fn look_again(frame: &mut Frame) {
    if let Some(restart) = percpu::current().machine.vendor.restart_after_nmi(frame.rip) {
        frame.rip = restart;
        frame.rsp = PerCpu::registers_address(percpu::current());
    }
}

/// Returns a 64-bit interrupt gate (SDM, "64-Bit Mode IDT").
fn gate(handler: VirtAddr, stack: u16) -> [u64; 2] {
    let address = handler.as_u64();
    let code = u64::from(percpu::CODE_SELECTOR);
    [
        address & 0xffff | code << 16 | u64::from(stack) << 32 | 0x8e << 40 | (address >> 16 & 0xffff) << 48,
        address >> 32,
    ]
}

fn stub_address(vector: usize) -> VirtAddr {
    const STUB_SIZE: usize = 16;
    VirtAddr::new((xmhf_exception_stubs as *const () as usize + vector * STUB_SIZE) as u64)
}

unsafe extern "C" {
    fn xmhf_exception_stubs();
}

/// Takes the interrupted code's registers from the frame.
macro_rules! load_registers {
    () => {
        concat!(
            "pop r15\n pop r14\n pop r13\n pop r12\n pop r11\n pop r10\n pop r9\n pop r8\n",
            "pop rdi\n pop rsi\n pop rbp\n pop rbx\n pop rdx\n pop rcx\n pop rax",
        )
    };
}

global_asm!(
    ".pushsection .text.exception, \"ax\"",
    ".balign 16",
    ".global xmhf_exception_stubs",
    "xmhf_exception_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    // These vectors push an error code by themselves.
    ".if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp 2f",
    ".set vector, vector + 1",
    ".endr",
    "2: push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "push rbp",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "call {handle}",
    "test al, al",
    "jnz 3f",
    load_registers!(),
    "add rsp, 16",
    "iretq",
    // The same without IRET: flags and address go below the interrupted stack's top, and are taken from there.
    "3: mov rcx, [rsp + {frame_rsp}]",
    "sub rcx, 24",
    "mov rax, [rsp + {frame_rflags}]",
    "mov [rcx], rax",
    "mov rax, [rsp + {frame_rip}]",
    "mov [rcx + 8], rax",
    "mov rax, [rsp + {frame_cs}]",
    "mov [rcx + 16], rax",
    "mov [rsp + {frame_rsp}], rcx",
    load_registers!(),
    "mov rsp, [rsp + {frame_rsp} - {frame_vector}]",
    "popfq",
    "retfq",
    ".popsection",
    handle = sym handle,
    frame_vector = const offset_of!(Frame, vector),
    frame_rip = const offset_of!(Frame, rip),
    frame_cs = const offset_of!(Frame, cs),
    frame_rflags = const offset_of!(Frame, rflags),
    frame_rsp = const offset_of!(Frame, rsp),
);
