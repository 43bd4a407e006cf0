//! Snippets in 16-bit and 32-bit modes outside long mode.

#![expect(unsafe_code, reason = "shares a block of memory with legacy.S")]
// UNSAFETY: only the bootstrap processor comes here, with interrupts off; the block is copied in and out.

use core::cell::Cell;

use crate::{Fault, Mode, Regs, Snippet, smp};

#[repr(C)]
struct Input {
    /// EDI ESI EBP ESP EBX EDX ECX EAX.
    registers: Cell<[u32; 8]>,
    eflags: Cell<u32>,
    cs: Cell<u32>,
    eip: Cell<u32>,
    esp: Cell<u32>,
    ds: Cell<u32>,
    cr3: Cell<u32>,
    cr4: Cell<u32>,
    output: Output,
}

#[repr(C)]
struct Output {
    registers: Cell<[u32; 8]>,
    vector: Cell<u32>,
    error_code: Cell<u32>,
    eip: Cell<u32>,
    cs: Cell<u32>,
    eflags: Cell<u32>,
    esp: Cell<u32>,
    ss: Cell<u32>,
    /// ES DS FS GS where virtual-8086 mode was left.
    segments: Cell<[u32; 4]>,
    /// CR0 CR2 CR3 CR4.
    control: Cell<[u32; 4]>,
}

unsafe extern "C" {
    static legacy_in: Input;
    static legacy_stubs: u8;
    static legacy_user_stack_end: u8;
    static legacy_stack_end: u8;
    static legacy_tss: [Cell<u32>; 26];
    static legacy_idt: [Cell<u64>; 0x81];
    static _snippet_area: [u8; 4096];
    fn legacy_enter(kind: u32);
}

/// Linear address at which a snippet runs in a legacy mode.
pub(crate) fn snippet_area() -> u32 {
    &raw const _snippet_area as u32
}

/// A gate of the 32-bit interrupt descriptor table, for a test to change and put back.
pub fn gate(vector: u8) -> &'static Cell<u64> {
    // SAFETY: the table has 0x81 gates; a higher vector panics.
    unsafe { &legacy_idt[usize::from(vector)] }
}

/// A word of the task-state segment in use outside long mode, at selector 0x48.
pub fn tss_word(index: usize) -> &'static Cell<u32> {
    // SAFETY: 26 words; a higher index panics.
    unsafe { &legacy_tss[index] }
}

/// Fills the 32-bit interrupt descriptor table and the task-state segment.
pub(crate) fn initialise() {
    let stubs = &raw const legacy_stubs as u64;
    for vector in (0..32).chain([0x80]) {
        let target = stubs + 16 * vector.min(32);
        let dpl = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
        let gate = target & 0xffff | 0x18 << 16 | (0x8e00 | dpl << 13) << 32 | (target >> 16 & 0xffff) << 48;
        // SAFETY: the table has 0x81 gates.
        unsafe { legacy_idt[vector as usize].set(gate) };
    }
    let base = &raw const legacy_tss as u64;
    // SAFETY: 104 bytes; ESP0, SS0 and the I/O map's offset (SDM, "Task-State Segment (TSS)").
    let tss = unsafe { &legacy_tss };
    tss[1].set(&raw const legacy_stack_end as u32);
    tss[2].set(0x10);
    tss[25].set(104 << 16);
    smp::descriptor(0x48).set(0x0000_8900_0000_0067 | (base & 0xff_ffff) << 16 | (base >> 24) << 56);
}

pub(crate) fn run(mode: Mode, code: Snippet, regs: &mut Regs) -> Result<(), Fault> {
    let (kind, cs, ds) = match mode {
        Mode::Protected16 => (0, 0x20, 0x28),
        Mode::ProtectedUser32 | Mode::PagedUser32 { .. } => (1, 0x33, 0x3b),
        Mode::Virtual8086 => (2, 0, 0x10),
        Mode::Real => (3, 0, 0),
        _ => (0, 0x18, 0x10),
    };
    let extra_flags = if mode == Mode::Virtual8086 { 0x2_3002 } else { 2 };
    assert!(smp::number() == 0 && code.length() <= 4096, "snippet cannot run in {mode:?}");
    let (from, to) = (code.address() as *const u8, snippet_area() as *mut u8);
    // SAFETY: one page, ours; the snippet's bytes are in the image.
    unsafe { core::ptr::copy_nonoverlapping(from, to, code.length()) };
    // SAFETY: legacy.S defines it, in this layout.
    let input = unsafe { &legacy_in };
    input.registers.set([regs.rdi, regs.rsi, regs.rbp, 0, regs.rbx, regs.rdx, regs.rcx, regs.rax].map(low));
    input.eflags.set(low(regs.rflags) | extra_flags);
    input.cs.set(cs);
    input.eip.set(snippet_area());
    input.esp.set(&raw const legacy_user_stack_end as u32);
    input.ds.set(ds);
    let (cr3, cr4) = if let Mode::PagedUser32 { cr3, cr4 } = mode { (cr3, cr4) } else { (0, 0) };
    input.cr3.set(cr3);
    input.cr4.set(cr4);
    // SAFETY: the input is complete and this is the bootstrap processor.
    unsafe { legacy_enter(kind) };
    take(&input.output, regs)
}

fn take(output: &Output, regs: &mut Regs) -> Result<(), Fault> {
    let [edi, esi, ebp, _, ebx, edx, ecx, eax] = output.registers.get().map(u64::from);
    (regs.rdi, regs.rsi, regs.rbp, regs.rbx) = (edi, esi, ebp, ebx);
    (regs.rdx, regs.rcx, regs.rax) = (edx, ecx, eax);
    regs.rflags = output.eflags.get().into();
    regs.rip = output.eip.get().wrapping_sub(snippet_area()).into();
    regs.rsp = output.esp.get().into();
    regs.cs = output.cs.get() as u16;
    regs.cr2 = output.control.get()[1].into();
    match output.vector.get() {
        0x80 => Ok(()),
        vector => Err(Fault { vector: vector as u8, error_code: output.error_code.get() }),
    }
}

const fn low(value: u64) -> u32 {
    value as u32
}
