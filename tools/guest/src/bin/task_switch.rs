//! Hardware task switches in 32-bit mode: CALL, JMP, IRET and task gates move the whole state and its flags.
#![no_std]
#![no_main]

use guest::cpu::{read_dr6, write_dr6};
use guest::legacy::{gate, tss_word};
use guest::memory::{FREE, low, read32, write32, write64};
use guest::run::legacy_address;
use guest::smp::descriptor;
use guest::{Fault, Mode, Regs, Snippet, check, check_eq, guest, run, snippet};

guest!(main);

const OLD: u16 = 0x48;
const NEW: u16 = 0x50;
const TSS: u64 = FREE;
/// Where the new task leaves what it sees.
const NOTES: u64 = FREE + 0x1000;
const STACK: u64 = FREE + 0x3000;
const DIRECTORY: u64 = FREE + 0x4000;
const OTHER_DIRECTORY: u64 = FREE + 0x5000;
const WINDOW: u64 = 0x40_0000;
const NESTED_TASK: u32 = 1 << 14;
const TASK_SWITCHED: u32 = 1 << 3;
const BUSY: u64 = 2 << 40;
/// Task gates to the new task, of DPL 3 and 0.
const USER_GATE: u64 = 0xe500_0050_0000;
const GATE: u64 = 0x8500_0050_0000;

/// What a new task does first: its registers to its stack, then TR, CR0 and the old task's descriptor, to whose
/// address ESI points, to memory. It begins two bytes into the snippet, behind a jump over it.
macro_rules! note {
    () => {
        "jmp 2f
         3:
         pushfd
         pushad
         xor eax, eax
         str ax
         mov [0x201000], eax
         mov eax, cr0
         mov [0x201004], eax
         mov eax, [esi + 4]
         mov [0x201008], eax"
    };
}

fn main() {
    let call = snippet!(code32: note!(), "iretd", "jmp 3b", "2:", ".byte 0x9a, 0, 0, 0, 0, 0x50, 0");
    switch("CALL", call, NESTED_TASK, true);
    check_eq!(word(0), u32::from(OLD), "link to the old task");
    let twice = snippet!(code32: note!(), "add esp, 36", "iretd", "jmp 3b", "2:",
        ".byte 0x9a, 0, 0, 0, 0, 0x50, 0", ".byte 0x9a, 0, 0, 0, 0, 0x50, 0");
    prepare();
    check_eq!(run(Mode::Protected32, twice, &mut Regs::default()), Ok(()), "CALL twice");
    check_eq!(word(14), low(STACK), "the second CALL goes on behind the new task's IRET");
    let jump =
        snippet!(code32: note!(), ".byte 0xea, 0, 0, 0, 0, 0x48, 0", "2:", ".byte 0xea, 0, 0, 0, 0, 0x50, 0");
    switch("JMP", jump, 0, false);
    check_eq!(word(0), 0, "no link after JMP");
    let old_gate = gate(3).replace(USER_GATE);
    let interrupt = snippet!(code32: note!(), "iretd", "2:", "int3");
    switch("INT3 by a task gate", interrupt, NESTED_TASK, true);
    gate(3).set(old_gate);
    faults_by_task_gate();
    paging();
    refusals();
    debug_trap();
}

/// Word `index` of the new task's segment.
fn word(index: u64) -> u32 {
    read32(TSS + 4 * index).unwrap_or(0)
}

/// Lays out the new task's segment, entry behind the jump (SDM, "Task-State Segment (TSS)").
fn prepare() {
    for index in 0..26 {
        check_eq!(write32(TSS + 4 * index, 0), Ok(()), "write");
    }
    let old_descriptor = low(core::ptr::from_ref(descriptor(OLD)) as u64);
    // EIP, EFLAGS, EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, ES, CS, SS, DS, FS, GS, LDT, I/O map.
    let words = [legacy_address() + 2, 2, 0x10, 0x11, 0x12, 0x13, low(STACK), 0x15, old_descriptor, 0x17];
    let segments = [0x10, 0x18, 0x10, 0x10, 0x10, 0x10, 0, 104 << 16];
    for (index, value) in (8..).zip(words.into_iter().chain(segments)) {
        check_eq!(write32(TSS + 4 * index, value), Ok(()), "write");
    }
    set_descriptor(0x67, 0x89);
    for place in 0..8 {
        check_eq!(write32(NOTES + 4 * place, 0), Ok(()), "write");
    }
}

fn set_descriptor(limit: u64, rights: u64) {
    descriptor(NEW).set(limit | (TSS & 0xff_ffff) << 16 | rights << 40);
}

fn switch(what: &str, code: Snippet, flags: u32, old_is_busy: bool) {
    prepare();
    let before =
        Regs { rax: 1, rbx: 2, rcx: 3, rdx: 4, rsi: 5, rdi: 6, rbp: 7, rflags: 0x8d7, ..Regs::default() };
    let mut regs = before;
    check_eq!(run(Mode::Protected32, code, &mut regs), Ok(()), "{what}");
    let seen = [regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp];
    check_eq!(seen, [1, 2, 3, 4, 5, 6, 7], "registers of the old task after {what}");
    check_eq!(regs.rflags & 0x48d5, 0x8d5, "flags of the old task after {what}");
    let pushed: [u32; 9] = core::array::from_fn(|i| read32(STACK - 36 + 4 * i as u64).unwrap_or(0));
    let old_descriptor = low(core::ptr::from_ref(descriptor(OLD)) as u64);
    let expected = [0x17, old_descriptor, 0x15, low(STACK) - 4, 0x13, 0x12, 0x11, 0x10, flags | 2];
    check_eq!(
        pushed,
        expected,
        "EDI, ESI, EBP, ESP, EBX, EDX, ECX, EAX, EFLAGS of the new task after {what}"
    );
    check_eq!(read32(NOTES), Ok(NEW.into()), "task register within {what}");
    let cr0 = read32(NOTES + 4).unwrap_or(0);
    check_eq!(cr0 & TASK_SWITCHED, TASK_SWITCHED, "CR0.TS within {what}");
    let old_rights = read32(NOTES + 8).unwrap_or(0);
    check_eq!(old_rights & 0x200 != 0, old_is_busy, "old task busy within {what}");
    check_eq!(descriptor(NEW).get() & BUSY, 0, "new task not busy after {what}");
    check_eq!(descriptor(OLD).get() & BUSY, BUSY, "old task busy after {what}");
    check_eq!(word(9) & NESTED_TASK, 0, "nested-task flag that the new task left after {what}");
    check!(word(8) > legacy_address() + 2, "EIP that the new task left after {what}");
    check_eq!(word(14), low(STACK) - 36, "ESP that the new task left after {what}");
    check_eq!(tss_word(10).get(), 1, "EAX that the old task left at {what}");
}

/// The new task moves the old one's EIP past the instruction that faulted and returns.
fn faults_by_task_gate() {
    let undefined = snippet!(code32: "jmp 2f", "add dword ptr [edi], 2", "iretd", "2:", "ud2");
    let protection = snippet!(code32: "jmp 2f", "pop eax", "mov [0x201000], eax", "add dword ptr [edi], 2",
        "iretd", "2:", "mov ds, ecx");
    for (vector, code, error_code) in [(6, undefined, 0), (13, protection, 0x1234)] {
        prepare();
        check_eq!(write32(TSS + 4 * 17, low(core::ptr::from_ref(tss_word(8)) as u64)), Ok(()), "write");
        let old_gate = gate(vector).replace(GATE);
        let mut regs = Regs { rcx: 0x1234, ..Regs::default() };
        check_eq!(run(Mode::Protected32, code, &mut regs), Ok(()), "vector {vector} by a task gate");
        gate(vector).set(old_gate);
        check_eq!(read32(NOTES), Ok(error_code), "error code of vector {vector} on the new task's stack");
    }
}

/// Each task has its own page directory.
fn paging() {
    for page in 0..1024 {
        let (first, second) =
            (if page == 256 { 0 } else { page << 22 }, if page == 256 { WINDOW } else { page << 22 });
        check_eq!(write32(DIRECTORY + 4 * page, low(first | 0x83)), Ok(()), "write");
        check_eq!(write32(OTHER_DIRECTORY + 4 * page, low(second | 0x83)), Ok(()), "write");
    }
    check_eq!(write64(WINDOW, 0x7777), Ok(()), "write");
    prepare();
    check_eq!(write32(TSS + 28, low(OTHER_DIRECTORY)), Ok(()), "write");
    let old_directory = tss_word(7).replace(low(DIRECTORY));
    let code = snippet!(code32: "jmp 2f", "mov eax, [0x40000000]", "mov [0x201000], eax", "mov eax, cr3",
        "mov [0x201004], eax", "iretd", "2:", "mov cr3, edi", "mov eax, cr4", "or eax, 0x10", "mov cr4, eax",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax", ".byte 0x9a, 0, 0, 0, 0, 0x50, 0",
        "mov ebx, cr3", "and eax, 0x7fffffff", "mov cr0, eax");
    let mut regs = Regs { rdi: DIRECTORY, ..Regs::default() };
    check_eq!(run(Mode::Protected32, code, &mut regs), Ok(()), "task switch with paging");
    check_eq!(read32(NOTES), Ok(0x7777), "memory as the new task's directory has it");
    check_eq!(read32(NOTES + 4), Ok(low(OTHER_DIRECTORY)), "CR3 within the new task");
    check_eq!(regs.rbx, DIRECTORY, "CR3 back in the old task");
    tss_word(7).set(old_directory);
}

fn refusals() {
    let code = snippet!(code32: ".byte 0xea, 0, 0, 0, 0, 0x50, 0");
    for (what, limit, rights, vector) in
        [("absent", 0x67, 0x09, 11), ("busy", 0x67, 0x8b, 13), ("too short", 0x66, 0x89, 10)]
    {
        prepare();
        set_descriptor(limit, rights);
        let mut regs = Regs { rax: 9, ..Regs::default() };
        let expected = Err(Fault { vector, error_code: NEW.into() });
        check_eq!(run(Mode::Protected32, code, &mut regs), expected, "JMP to a task that is {what}");
        check_eq!((regs.rip, regs.rax), (0, 9), "JMP to a task that is {what} faults at the instruction");
        check_eq!(descriptor(OLD).get() & BUSY, BUSY, "old task stays busy");
    }
    prepare();
    let expected = Err(Fault { vector: 13, error_code: NEW.into() });
    let result = run(Mode::ProtectedUser32, code, &mut Regs::default());
    check_eq!(result, expected, "JMP to a task of CPL 0 at CPL 3");
    let mut regs = Regs { rflags: NESTED_TASK.into(), ..Regs::default() };
    tss_word(0).set(0);
    let expected = Err(Fault { vector: 10, error_code: 0 });
    check_eq!(run(Mode::Protected32, snippet!(code32: "iretd"), &mut regs), expected, "IRET to a null link");
}

/// SDM, "Task-Switch Exception Condition".
fn debug_trap() {
    prepare();
    check_eq!(write32(TSS + 100, 104 << 16 | 1), Ok(()), "write");
    let code = snippet!(code32: "jmp 2f", "nop", "iretd", "2:", ".byte 0x9a, 0, 0, 0, 0, 0x50, 0");
    check_eq!(write_dr6(0), Ok(()), "DR6 cleared");
    let mut regs = Regs::default();
    check_eq!(run(Mode::Protected32, code, &mut regs), Err(Fault::DB), "task with the trap flag");
    check_eq!(regs.rip, 2, "trap before the new task's first instruction");
    check_eq!(read_dr6() & 0x8000, 0x8000, "DR6.BT");
}
