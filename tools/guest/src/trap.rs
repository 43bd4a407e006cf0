//! Interrupts and exceptions of 64-bit mode: one entry, a handler a vector, else the end of a snippet.

#![expect(unsafe_code, reason = "interrupt descriptor table and the entry that assembly calls")]
// UNSAFETY: the table is written while interrupts are off; handlers are plain functions kept as addresses.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::transmute;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::smp::Cpu;
use crate::{Regs, Snippet};

/// What the processor and the entry code push, lowest address first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "register names")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Takes care of a vector. `true` returns to the interrupted code with the frame as it then is; `false` leaves
/// the event to end the snippet or, outside one, the guest.
pub type Handler = fn(&mut Frame) -> bool;

/// Puts `handler` in charge of `vector` on every CPU; `None` takes it out.
///
/// In a handler of NMIs, [`crate::run()`] and what is made of it end the blocking, for it executes IRET.
pub fn handle(vector: u8, handler: Option<Handler>) {
    HANDLERS[usize::from(vector)].store(handler.map_or(0, |f| f as usize), Ordering::SeqCst);
}

/// Points `vector` of the table straight at `code`, which must end by IRETQ itself; for measurements.
pub fn set_gate(vector: u8, code: Snippet) {
    IDT.set(vector, code.address(), 0);
}

/// Points `vector` back at the common entry.
pub fn reset_gate(vector: u8) {
    let dpl = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
    IDT.set(vector, entry(vector), dpl);
}

/// Address of the common entry's first instruction for `vector`.
pub fn entry(vector: u8) -> u64 {
    &raw const trap_stubs as u64 + 16 * u64::from(vector)
}

/// Loads this CPU's IDTR with `limit` bytes of the table, less one.
pub fn load_idt(limit: u16) {
    let pointer = Pointer { limit, base: IDT.0.get() as u64 };
    // SAFETY: the table is static; a short limit is what a test of shutdown asks for.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack)) };
}

static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
static IDT: Table = Table(UnsafeCell::new([[0; 2]; 256]));

struct Table(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: gates are written with interrupts off, by the one CPU that runs the story.
unsafe impl Sync for Table {}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

// The way back from legacy modes finds the table here.
#[unsafe(no_mangle)]
static idt_pointer: Table2 = Table2(UnsafeCell::new(Pointer { limit: 0xfff, base: 0 }));

#[repr(transparent)]
struct Table2(UnsafeCell<Pointer>);

// SAFETY: written once at start.
unsafe impl Sync for Table2 {}

unsafe extern "C" {
    static trap_stubs: u8;
    fn snippet_leave(kept_rsp: u64) -> !;
}

pub(crate) fn initialise() {
    for vector in 0..=255 {
        reset_gate(vector);
    }
    // SAFETY: the only CPU running.
    unsafe { *idt_pointer.0.get() = Pointer { limit: 0xfff, base: IDT.0.get() as u64 } };
    load_idt(0xfff);
}

impl Table {
    fn set(&self, vector: u8, target: u64, dpl: u64) {
        let low = target & 0xffff | 0x08 << 16 | (0x8e00 | dpl << 13) << 32 | (target >> 16 & 0xffff) << 48;
        // SAFETY: the index is below 256, the cell is static.
        unsafe { (*self.0.get())[usize::from(vector)] = [low, target >> 32] };
    }
}

#[unsafe(no_mangle)]
extern "C" fn guest_trap(frame: &mut Frame) {
    let handler = HANDLERS[frame.vector as usize & 0xff].load(Ordering::SeqCst);
    if handler != 0 {
        // SAFETY: only `handle` stores here, and it stores a `Handler`.
        let handler = unsafe { transmute::<usize, Handler>(handler) };
        if handler(frame) {
            return;
        }
    }
    let cpu = Cpu::current();
    let kept_rsp = cpu.resume_rsp.get();
    if kept_rsp == 0 {
        panic!("unexpected vector {} cr2={:#x} {:x?}", frame.vector, crate::cpu::read_cr2(), frame);
    }
    cpu.outcome.set(*frame);
    // SAFETY: `snippet_enter` of this CPU kept that stack pointer and has not returned.
    unsafe { snippet_leave(kept_rsp) }
}

impl Frame {
    /// All zero.
    pub(crate) const ZERO: Self = Self {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rdi: 0,
        rsi: 0,
        rbp: 0,
        rbx: 0,
        rdx: 0,
        rcx: 0,
        rax: 0,
        vector: 0,
        error_code: 0,
        rip: 0,
        cs: 0,
        rflags: 0,
        rsp: 0,
        ss: 0,
    };

    pub(crate) fn from_regs(regs: &Regs) -> Self {
        Self {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rbp: regs.rbp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rflags: regs.rflags | 2,
            ..Self::ZERO
        }
    }

    pub(crate) fn to_regs(self, regs: &mut Regs) {
        *regs = Regs {
            rax: self.rax,
            rbx: self.rbx,
            rcx: self.rcx,
            rdx: self.rdx,
            rsi: self.rsi,
            rdi: self.rdi,
            rbp: self.rbp,
            r8: self.r8,
            r9: self.r9,
            r10: self.r10,
            r11: self.r11,
            r12: self.r12,
            r13: self.r13,
            r14: self.r14,
            r15: self.r15,
            rflags: self.rflags,
            rip: self.rip,
            rsp: self.rsp,
            cs: self.cs as u16,
            cr2: 0,
        };
    }
}
