//! The register of `pm_base` by PCI configuration space in memory: it keeps its value there too, its neighbours take what
//! MOV stores, and other instructions that write fault, for this guest and for one of its own.
//!
//! The emulator's chipset has no such space. `run/ecam` has a MCFG by which plain memory is, which the memory map does
//! not have: what is stored there can be read again.
//! bare: no
//! hypervisor: no
#![no_std]
#![no_main]

use guest::cpu::wrmsr;
use guest::memory::{FREE, read8, read16, read32, read64, write32};
use guest::run::USER_BASE;
use guest::vmx::instruction::invept;
use guest::vmx::{Ept, ExitReason, Guest, enter_operation, leave_operation, trial};
use guest::{Fault, Mode, Regs, Snippet, acpi, check, check_eq, guest, run, snippet};
use x86::msr::Msr;

guest!(main);

/// Page of the power-management function of the emulator's chipset, 0:1.3, by the made-up MCFG.
const PAGE: u64 = 0x200_b000;
/// Its register that holds the base.
const BASE: u64 = PAGE + 0x40;
/// A register beside it, and one behind those that ports reach.
const OTHERS: [u64; 2] = [PAGE + 0x48, PAGE + 0x548];
const VALUE: u64 = 0x8877_6655_4433_2211;
/// Where a guest of this guest has the page too.
const ALIAS: u64 = 0x3000_0000;

fn main() {
    let mcfg = acpi::table(*b"MCFG").unwrap_or(0);
    check_eq!(read64(mcfg + 44), Ok(PAGE & !0xf_ffff), "where the MCFG has bus 0");
    forms();
    kept();
    others();
    modes();
    beside();
    apic();
    nested();
}

fn regs(at: u64) -> Regs {
    Regs { rdi: at, rax: VALUE, rcx: VALUE, rsi: FREE, r9: VALUE, ..Regs::default() }
}

/// The forms of MOV to [RDI], with what each stores, and how many bytes.
fn stores() -> [(Snippet, u64, u32); 11] {
    [
        (snippet!("mov [rdi], cl"), 0x11, 1),
        (snippet!("mov [rdi], ah"), 0x22, 1),
        (snippet!("mov [rdi], r9b"), 0x11, 1),
        (snippet!("mov [rdi], cx"), 0x2211, 2),
        (snippet!("mov [rdi], ecx"), 0x4433_2211, 4),
        (snippet!("mov fs:[edi + 0x10 - 16], r9d"), 0x4433_2211, 4),
        (snippet!("mov [rdi], rcx"), VALUE, 8),
        (snippet!("mov byte ptr [rdi], 0xfe"), 0xfe, 1),
        (snippet!("mov word ptr [rdi], 0xfedc"), 0xfedc, 2),
        (snippet!("mov dword ptr [rdi], 0xfedcba98"), 0xfedc_ba98, 4),
        (snippet!("mov qword ptr [rdi], -2"), u64::MAX - 1, 8),
    ]
}

fn clear(at: u64) {
    check_eq!(write32(at, 0), Ok(()), "clearing {at:#x}");
    check_eq!(write32(at + 4, 0), Ok(()), "clearing {at:#x}");
}

fn forms() {
    for (index, (code, value, width)) in stores().into_iter().enumerate() {
        for at in OTHERS {
            clear(at);
            let mut after = regs(at);
            check_eq!(run(Mode::Kernel64, code, &mut after), Ok(()), "store {index} at {at:#x}");
            check_eq!(read64(at), Ok(value), "what store {index} of {width} bytes left at {at:#x}");
            check_eq!((after.rdi, after.rcx, after.rsi), (at, VALUE, FREE), "registers behind store {index}");
        }
    }
    // Addresses in the instruction: the page's is fixed.
    for (code, value) in
        [(snippet!("movabs [0x200b048], al"), 0x11), (snippet!("movabs [0x200b048], rax"), VALUE)]
    {
        clear(OTHERS[0]);
        check_eq!(run(Mode::Kernel64, code, &mut regs(0)), Ok(()), "store by an address of 64 bits");
        check_eq!(read64(OTHERS[0]), Ok(value), "what it left");
    }
}

/// The register stays, and so does what a store over it would have changed besides.
fn kept() {
    let before = (read64(BASE - 8), read64(BASE));
    for (index, (code, _, width)) in stores().into_iter().enumerate() {
        for offset in (0..4).step_by(width as usize) {
            let result = run(Mode::Kernel64, code, &mut regs(BASE + offset));
            check_eq!(result, Ok(()), "store {index} at byte {offset} of the register");
            check_eq!((read64(BASE - 8), read64(BASE)), before, "behind store {index} at byte {offset}");
        }
    }
}

/// Instructions that write, and are no MOV, or whose operand is not aligned.
fn refused() -> [(&'static str, Snippet, u64); 9] {
    [
        ("ADD", snippet!("add [rdi], ecx"), 0),
        ("XCHG", snippet!("xchg [rdi], ecx"), 0),
        ("LOCK INC", snippet!("lock inc dword ptr [rdi]"), 0),
        ("MOVNTI", snippet!("movnti [rdi], ecx"), 0),
        ("STOSD", snippet!("stosd"), 0),
        ("MOVSD", snippet!("movsd"), 0),
        ("POP", snippet!("push rcx", "pop qword ptr [rdi]"), 0),
        ("MOV of 4 bytes at byte 1", snippet!("mov [rdi], ecx"), 1),
        ("MOV into the next page", snippet!("mov [rdi], rcx"), 0xffc - 0x48),
    ]
}

fn others() {
    let before = (read64(OTHERS[0]), read64(PAGE + 0xff8));
    for (name, code, offset) in refused() {
        let result = run(Mode::Kernel64, code, &mut regs(OTHERS[0] + offset));
        check_eq!(result, Err(Fault::GP), "{name}");
        check_eq!((read64(OTHERS[0]), read64(PAGE + 0xff8)), before, "behind {name}");
    }
    // Reads cost nothing, whatever reads.
    let mut after = Regs { rsi: OTHERS[0], rdi: FREE, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("movsq"), &mut after), Ok(()), "MOVSQ from the page");
    check_eq!(read64(FREE), before.0, "what it read");
}

fn modes() {
    let at = OTHERS[0];
    let low = Regs { rdi: at, rax: 0x4433_2211, ..Regs::default() };
    let absolute = snippet!(code32: "mov [0x200b048], eax");
    for (mode, code, regs, value) in [
        (Mode::User64, snippet!("mov [rdi], eax"), Regs { rdi: USER_BASE + at, ..low }, 0x4433_2211),
        (Mode::Compatibility32, snippet!(code32: "mov [edi], eax"), low, 0x4433_2211),
        (Mode::Protected32, snippet!(code32: "mov [edi], ax"), low, 0x2211),
        (Mode::Protected32, absolute, low, 0x4433_2211),
    ] {
        clear(at);
        let mut after = regs;
        check_eq!(run(mode, code, &mut after), Ok(()), "store in {mode:?}");
        check_eq!(read64(at), Ok(value), "what the store in {mode:?} left");
    }
}

/// The pages around have no such register.
fn beside() {
    for page in [PAGE - 0x1000, PAGE + 0x1000] {
        clear(page + 0x40);
        check_eq!(
            run(Mode::Kernel64, snippet!("add [rdi], ecx"), &mut regs(page + 0x40)),
            Ok(()),
            "{page:#x}"
        );
        check_eq!(read32(page + 0x40), Ok(0x4433_2211), "{page:#x}");
    }
    check_eq!((read8(PAGE).is_ok(), read16(PAGE + 0xffe).is_ok()), (true, true), "the page's ends");
    // A store that begins on the page before is not aligned, though what the exit tells of is.
    for (code, at) in [
        (snippet!("mov [rdi], rcx"), PAGE - 4),
        (snippet!("mov [rdi], ecx"), PAGE - 2),
        (snippet!("mov [rdi], cx"), PAGE - 1),
    ] {
        let before = (read64(PAGE - 8), read64(PAGE));
        check_eq!(run(Mode::Kernel64, code, &mut regs(at)), Err(Fault::GP), "a store from {at:#x} on");
        check_eq!((read64(PAGE - 8), read64(PAGE)), before, "what it left");
    }
}

/// The local APIC would answer there, for the hypervisor too.
fn apic() {
    let over = wrmsr(Msr::IA32_APIC_BASE, PAGE | 0x900);
    check_eq!(over, Err(Fault::GP), "the local APIC over the page");
}

fn nested() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    ept.map(ALIAS, PAGE, 7);
    nested.use_ept(&ept);
    let before = (read64(BASE), read64(OTHERS[0]));
    for page in [PAGE, ALIAS] {
        let mut perform = |code, offset| {
            trial::begin(&mut nested, Mode::Kernel64, code, regs(page + offset));
            check_eq!(nested.run(), ExitReason::VMCALL, "exit of the guest's guest");
            trial::result().0
        };
        check_eq!(perform(snippet!("mov [rdi], ecx"), 0x40), Ok(()), "store to the register at {page:#x}");
        check_eq!(perform(snippet!("mov [rdi], rcx"), 0x40), Ok(()), "store of 8 bytes at {page:#x}");
        check_eq!(perform(snippet!("xchg [rdi], ecx"), 0x48), Err(Fault::GP), "XCHG at {page:#x}");
        check_eq!((read64(BASE), read64(OTHERS[0])), before, "by {page:#x}");
        clear(OTHERS[1]);
        check_eq!(perform(snippet!("mov [rdi], rcx"), 0x548), Ok(()), "store beside at {page:#x}");
        check_eq!(read64(OTHERS[1]), Ok(VALUE), "what it left at {page:#x}");
    }
    check!(before.0 != Ok(VALUE), "the register held something else");
    // Code that the guest's guest may execute and not read: mov [rdi], ecx; ret.
    check_eq!(write32(FREE, 0x00c3_0f89), Ok(()), "the code");
    ept.map(FREE, FREE, 4);
    check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
    clear(OTHERS[0]);
    trial::begin(&mut nested, Mode::Kernel64, snippet!("call r8"), Regs { r8: FREE, ..regs(OTHERS[0]) });
    check_eq!(nested.run(), ExitReason::VMCALL, "exit behind code that may be executed alone");
    check_eq!(trial::result().0, Ok(()), "its store");
    check_eq!(read32(OTHERS[0]), Ok(0x4433_2211), "what it left");
    leave_operation();
}
