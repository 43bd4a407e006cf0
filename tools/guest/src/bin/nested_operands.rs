//! Operands of VMX instructions in every addressing form and in every register, as a hypervisor in the guest has them.
#![no_std]
#![no_main]

use guest::memory::FREE;
use guest::vmx::instruction::{vmptrst, vmread, vmwrite};
use guest::vmx::prelude::*;
use guest::vmx::{Outcome, attempt, read, write};
use guest::{Mode, Regs, Snippet, snippet};

guest!(main);

const FIELD: u64 = vmcs::GUEST_RIP.encoding() as u64;
const VALUE: u64 = 0x8877_6655_4433_2211;

fn main() {
    enter_operation();
    let nested = Guest::new(nothing);
    stores_in_every_form(nested.region);
    other_segments(nested.region);
    every_register();
    same_register();
    memory_operands_of_fields();
    leave_operation();
}

/// VMPTRST to [`FREE`] by each way to say so.
fn stores_in_every_form(current: u64) {
    let at = Regs { rsi: FREE, ..Regs::default() };
    let half = Regs { rsi: FREE - 0x100, rdi: 0x20, ..Regs::default() };
    let forms: [(&str, Snippet, Regs); 21] = [
        ("base", snippet!("vmptrst [rsi]"), at),
        ("base, 8-bit displacement", snippet!("vmptrst [rsi+0x40]"), Regs { rsi: FREE - 0x40, ..at }),
        ("base, negative displacement", snippet!("vmptrst [rsi-0x80]"), Regs { rsi: FREE + 0x80, ..at }),
        ("base, 32-bit displacement", snippet!("vmptrst [rsi+0x12345]"), Regs { rsi: FREE - 0x12345, ..at }),
        ("base, negative 32-bit", snippet!("vmptrst [rsi-0x12345]"), Regs { rsi: FREE + 0x12345, ..at }),
        ("base and index", snippet!("vmptrst [rsi+rdi]"), Regs { rsi: FREE - 0x20, ..half }),
        ("index by 2", snippet!("vmptrst [rsi+rdi*2]"), Regs { rsi: FREE - 0x40, ..half }),
        ("index by 4", snippet!("vmptrst [rsi+rdi*4]"), Regs { rsi: FREE - 0x80, ..half }),
        ("index by 8", snippet!("vmptrst [rsi+rdi*8]"), half),
        (
            "index by 8, displacement",
            snippet!("vmptrst [rsi+rdi*8+0x1000]"),
            Regs { rsi: FREE - 0x1100, ..half },
        ),
        ("negative index", snippet!("vmptrst [rsi+rdi*8]"), Regs { rsi: FREE + 0x100, rdi: !0x1f, ..half }),
        ("index alone", snippet!("vmptrst [rdi*8]"), Regs { rdi: FREE / 8, ..at }),
        ("absolute", snippet!("vmptrst [0x200000]"), Regs::default()),
        ("RIP-relative", snippet!("vmptrst [rip+0x100000]"), Regs::default()),
        ("R8", snippet!("mov r8, rsi", "vmptrst [r8]"), at),
        ("R12", snippet!("mov r12, rsi", "vmptrst [r12]"), at),
        ("R13", snippet!("mov r13, rsi", "vmptrst [r13]"), at),
        ("R15 and R14", snippet!("mov r15, rsi", "mov r14, rdi", "vmptrst [r15+r14*8]"), half),
        ("RSP", snippet!("mov r15, rsp", "mov rsp, rsi", "vmptrst [rsp]", "mov rsp, r15"), at),
        ("RBP", snippet!("mov rbp, rsi", "vmptrst [rbp]"), at),
        ("32-bit address", snippet!("vmptrst [esi]"), Regs { rsi: 0xffff_ffff << 32 | FREE, ..at }),
    ];
    for (name, code, mut regs) in forms {
        // The one form whose place the snippet's own place decides.
        let place = if name == "RIP-relative" { rip_relative(code) } else { FREE };
        write(place, 0);
        check_eq!(attempt(Mode::Kernel64, code, &mut regs), Outcome::Done, "VMPTRST with {name}");
        check_eq!(read(place), current, "VMPTRST with {name}");
        write(place, 0);
    }
}

/// Seven bytes of VMPTRST, and what it adds to the address behind it.
fn rip_relative(code: Snippet) -> u64 {
    code.address() + 7 + 0x10_0000
}

fn other_segments(current: u64) {
    use guest::cpu::{rdmsr_existing, wrmsr_existing};
    use x86::msr::Msr;
    let at = Regs { rsi: 0x40, ..Regs::default() };
    let forms = [
        ("FS", Msr::IA32_FS_BASE, snippet!("vmptrst fs:[rsi]")),
        ("GS", Msr::IA32_GS_BASE, snippet!("vmptrst gs:[rsi]")),
    ];
    for (name, base, code) in forms {
        let old = rdmsr_existing(base);
        wrmsr_existing(base, FREE - 0x40);
        write(FREE, 0);
        check_eq!(attempt(Mode::Kernel64, code, &mut { at }), Outcome::Done, "VMPTRST by {name}");
        check_eq!(read(FREE), current, "VMPTRST by {name}");
        wrmsr_existing(base, old);
    }
    // DS, ES and CS have no base in 64-bit mode.
    for code in [snippet!("vmptrst ds:[rsi]"), snippet!("vmptrst es:[rsi]"), snippet!("vmptrst cs:[rsi]")] {
        write(FREE, 0);
        let mut regs = Regs { rsi: FREE, ..Regs::default() };
        check_eq!(attempt(Mode::Kernel64, code, &mut regs), Outcome::Done, "VMPTRST by a flat segment");
        check_eq!(read(FREE), current, "VMPTRST by a flat segment");
    }
}

macro_rules! each {
    ($with:ident: $($register:ident)*) => {
        [$((stringify!($register), $with!($register))),*]
    };
}

/// VMREAD to the register, then by way of RCX; and VMWRITE from it.
macro_rules! through {
    ($register:ident) => {
        (
            snippet!(
                "mov [0x200100], rsp",
                concat!("vmread ", stringify!($register), ", rcx"),
                concat!("mov [0x200000], ", stringify!($register)),
                "mov rsp, [0x200100]"
            ),
            snippet!(
                "mov [0x200100], rsp",
                concat!("mov ", stringify!($register), ", [0x200000]"),
                concat!("vmwrite rcx, ", stringify!($register)),
                "mov rsp, [0x200100]"
            ),
            snippet!(
                "mov [0x200100], rsp",
                concat!("mov ", stringify!($register), ", rcx"),
                concat!("vmread rdx, ", stringify!($register)),
                "mov rsp, [0x200100]"
            ),
        )
    };
}

fn every_register() {
    let all = each!(through: rax rbx rdx rbp rsp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15);
    for (name, (load, store, by_field)) in all {
        let run = |code, what: &str| {
            let mut regs = Regs { rcx: FIELD, ..Regs::default() };
            check_eq!(attempt(Mode::Kernel64, code, &mut regs), Outcome::Done, "{what} {name}");
            regs
        };
        check_eq!(vmwrite(FIELD, VALUE), Ok(()), "VMWRITE");
        write(FREE, 0);
        run(load, "VMREAD to");
        check_eq!(read(FREE), VALUE, "VMREAD to {name}");
        let other = !VALUE ^ name.len() as u64;
        write(FREE, other);
        run(store, "VMWRITE from");
        check_eq!(vmread(FIELD), Ok(other), "VMWRITE from {name}");
        if name != "rdx" {
            check_eq!(run(by_field, "VMREAD of the field in").rdx, other, "VMREAD of the field in {name}");
        }
    }
}

/// Source and destination in one register.
fn same_register() {
    check_eq!(vmwrite(FIELD, VALUE), Ok(()), "VMWRITE");
    let mut regs = Regs { rax: FIELD, ..Regs::default() };
    check_eq!(attempt(Mode::Kernel64, snippet!("vmread rax, rax"), &mut regs), Outcome::Done, "VMREAD");
    check_eq!(regs.rax, VALUE, "VMREAD of the field in the register that it loads");
    let mut regs = Regs { rax: FIELD, ..Regs::default() };
    check_eq!(attempt(Mode::Kernel64, snippet!("vmwrite rax, rax"), &mut regs), Outcome::Done, "VMWRITE");
    check_eq!(vmread(FIELD), Ok(FIELD), "VMWRITE of the register that names the field");
    // A narrow field fills the register; in memory eight bytes are written.
    let selector = u64::from(vmcs::GUEST_CS_SELECTOR.encoding());
    let mut regs = Regs { rax: u64::MAX, rcx: selector, rsi: FREE, ..Regs::default() };
    write(FREE, u64::MAX);
    write(FREE + 8, u64::MAX);
    let code = snippet!("vmread [rsi], rcx", "vmread rax, rcx");
    check_eq!(attempt(Mode::Kernel64, code, &mut regs), Outcome::Done, "VMREAD of a selector");
    check_eq!(regs.rax, 8, "VMREAD of a selector to a register");
    check_eq!((read(FREE), read(FREE + 8)), (8, u64::MAX), "VMREAD of a selector to memory");
}

fn memory_operands_of_fields() {
    let regs = Regs { rcx: FIELD, rsi: FREE, ..Regs::default() };
    write(FREE, VALUE);
    let code = snippet!("vmwrite rcx, [rsi]");
    check_eq!(attempt(Mode::Kernel64, code, &mut { regs }), Outcome::Done, "VMWRITE from memory");
    check_eq!(vmread(FIELD), Ok(VALUE), "VMWRITE from memory");
    // Across two pages, at any alignment.
    for offset in 0xff9..0x1000 {
        let mut across = Regs { rsi: FREE + offset, ..regs };
        check_eq!(
            attempt(Mode::Kernel64, snippet!("vmread [rsi], rcx", "mov rdx, [rsi]"), &mut across),
            Outcome::Done,
            "VMREAD across pages"
        );
        check_eq!(across.rdx, VALUE, "VMREAD across pages at {offset:#x}");
        let mut across = Regs { rsi: FREE + offset, rdx: offset, ..regs };
        let code = snippet!("vmwrite rdx, [rsi]");
        across.rdx = FIELD;
        check_eq!(attempt(Mode::Kernel64, code, &mut across), Outcome::Done, "VMWRITE across pages");
    }
    let region = vmptrst();
    write(FREE + 0x1ff8, region << 32);
    write(FREE + 0x2000, region >> 32);
    let mut across = Regs { rsi: FREE + 0x1ffc, ..Regs::default() };
    check_eq!(
        attempt(Mode::Kernel64, snippet!("vmptrld [rsi]"), &mut across),
        Outcome::Done,
        "VMPTRLD with its operand across pages"
    );
    check_eq!(vmptrst(), region, "VMPTRLD with its operand across pages");
}

extern "C" fn nothing() {}
