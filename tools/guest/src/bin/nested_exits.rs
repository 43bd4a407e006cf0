//! Wrong reflection: an instruction of a guest's guest leaves for its hypervisor where a control says so, and else runs.
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::trial;
use guest::{Mode, Regs, Snippet, snippet};
use x86::vmx::controls::{PrimaryControls, SecondaryControls};

guest!(main);

/// An instruction, the control that makes it leave, and how it leaves.
struct Case {
    name: &'static str,
    code: Snippet,
    primary: PrimaryControls,
    secondary: SecondaryControls,
    reason: ExitReason,
    qualification: u64,
    length: u32,
}

fn main() {
    enter_operation();
    for case in primary_cases().into_iter().chain(secondary_cases()).chain(unconditional_cases()) {
        with_and_without(&case);
    }
    ports();
    control_registers();
    leave_operation();
}

fn case(
    name: &'static str,
    code: Snippet,
    primary: PrimaryControls,
    reason: ExitReason,
    (qualification, length): (u64, u32),
) -> Case {
    Case { name, code, primary, secondary: SecondaryControls::empty(), reason, qualification, length }
}

fn primary_cases() -> [Case; 13] {
    use ExitReason as R;
    use PrimaryControls as P;
    [
        case("INVLPG", snippet!("invlpg [rdi]"), P::INVLPG_EXITING, R::INVLPG, (0x1234_5000, 3)),
        case("RDTSC", snippet!("rdtsc"), P::RDTSC_EXITING, R::RDTSC, (0, 2)),
        case(
            "MOV to CR3",
            snippet!("mov rax, cr3", "mov cr3, rax"),
            P::CR3_LOAD_EXITING,
            R::CONTROL_REGISTER,
            (3, 3),
        ),
        case("MOV from CR3", snippet!("mov rbp, cr3"), P::CR3_STORE_EXITING, R::CONTROL_REGISTER, (0x513, 3)),
        case("MOV to CR8", snippet!("mov cr8, rsi"), P::CR8_LOAD_EXITING, R::CONTROL_REGISTER, (0x608, 4)),
        case("MOV from CR8", snippet!("mov r9, cr8"), P::CR8_STORE_EXITING, R::CONTROL_REGISTER, (0x918, 4)),
        case("MOV to DR3", snippet!("mov dr3, rdx"), P::MOV_DR_EXITING, R::MOV_DR, (0x203, 3)),
        case("MOV from DR7", snippet!("mov r11, dr7"), P::MOV_DR_EXITING, R::MOV_DR, (0xb17, 4)),
        case("IN", snippet!("in al, 0x61"), P::UNCONDITIONAL_IO_EXITING, R::IO_INSTRUCTION, (0x61_0048, 2)),
        case(
            "OUT",
            snippet!("mov edx, 0x80", "out dx, eax"),
            P::UNCONDITIONAL_IO_EXITING,
            R::IO_INSTRUCTION,
            (0x80_0003, 1),
        ),
        case("PAUSE", snippet!("pause"), P::PAUSE_EXITING, R::PAUSE, (0, 2)),
        case(
            "RDTSC at the trap flag",
            snippet!("nop", "nop"),
            P::MONITOR_TRAP_FLAG,
            R::MONITOR_TRAP_FLAG,
            (0, 0),
        ),
        case(
            "MONITOR",
            snippet!("mov rax, rsp", "xor ecx, ecx", "xor edx, edx", "monitor"),
            P::MONITOR_EXITING,
            R::MONITOR,
            (0, 3),
        ),
    ]
}

fn secondary_cases() -> [Case; 5] {
    use ExitReason as R;
    use SecondaryControls as S;
    let case = |name, code, secondary, reason, length| Case {
        name,
        code,
        primary: PrimaryControls::empty(),
        secondary,
        reason,
        qualification: 0,
        length,
    };
    [
        case("WBINVD", snippet!("wbinvd"), S::WBINVD_EXITING, R::WBINVD, 2),
        case("SLDT", snippet!("sldt eax"), S::DESCRIPTOR_TABLE_EXITING, R::LDTR_TR, 3),
        case("STR", snippet!("str eax"), S::DESCRIPTOR_TABLE_EXITING, R::LDTR_TR, 3),
        case("RDRAND", snippet!("rdrand eax"), S::RDRAND_EXITING, R::RDRAND, 3),
        case("RDSEED", snippet!("rdseed eax"), S::RDSEED_EXITING, R::RDSEED, 3),
    ]
}

/// What leaves whatever the controls say.
fn unconditional_cases() -> [Case; 3] {
    let none = PrimaryControls::empty();
    [
        case("CPUID", snippet!("cpuid"), none, ExitReason::CPUID, (0, 2)),
        case("INVD", snippet!("invd"), none, ExitReason::INVD, (0, 2)),
        case("VMCALL", snippet!("vmcall"), none, ExitReason::VMCALL, (0, 3)),
    ]
}

fn with_and_without(case: &Case) {
    let name = case.name;
    let is_always = case.primary.is_empty() && case.secondary.is_empty();
    for wanted in [true, false] {
        let mut nested = Guest::new(trial::perform);
        if wanted
            && !(nested.add_primary(case.primary)
                && (case.secondary.is_empty() || nested.add_secondary(case.secondary)))
        {
            // The processor does not have the control, hence not the exit.
            return;
        }
        let regs = Regs { rdi: 0x1234_5000, rsi: 0, rdx: 0x5555, ..Regs::default() };
        trial::begin(&mut nested, Mode::Kernel64, case.code, regs);
        if !wanted && !is_always {
            check_eq!(nested.run(), ExitReason::VMCALL, "{name} that nobody wants");
            check!(nested.has_ended(), "{name} that nobody wants");
            check_eq!(trial::result().0, Ok(()), "{name} that nobody wants");
            return;
        }
        let reason = nested.run();
        check_eq!(reason.name(), case.reason.name(), "{name}: reason");
        if reason != case.reason {
            return;
        }
        check_eq!(nested.read(vmcs::EXIT_QUALIFICATION), case.qualification, "{name}: qualification");
        if case.length == 0 {
            continue;
        }
        check_eq!(nested.read(vmcs::EXIT_INSTRUCTION_LENGTH), case.length, "{name}: length");
        check_eq!(nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION) >> 31, 0, "{name}: interruption");
        check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "{name}: IDT vectoring");
        nested.advance();
        let end = nested.run();
        check_eq!(end, ExitReason::VMCALL, "{name}: the next exit");
        check!(nested.has_ended(), "{name}: ends after it was stepped over");
    }
}

/// I/O bitmaps by port and by size, REP with its registers.
fn ports() {
    let mut nested = Guest::new(trial::perform);
    let [a, b] = [guest::vmx::allocate(), guest::vmx::allocate()];
    check!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "I/O bitmaps");
    nested.write(vmcs::IO_BITMAP_A, a);
    nested.write(vmcs::IO_BITMAP_B, b);
    guest::vmx::write(a + 0x80 / 8, 1);
    guest::vmx::write(b + (0x9000 - 0x8000) / 8, 1 << 8);
    let trials = [
        (snippet!("in al, dx"), 0x80, Some(0x80_0008)),
        (snippet!("in al, dx"), 0x81, None),
        (snippet!("in ax, dx"), 0x7f, Some(0x7f_0009)),
        (snippet!("in eax, dx"), 0x7d, Some(0x7d_000b)),
        (snippet!("in eax, dx"), 0x84, None),
        (snippet!("in al, dx"), 0x9008, Some(0x9008_0008)),
        (snippet!("in al, dx"), 0x1008, None),
        (snippet!("out dx, al"), 0x80, Some(0x80_0000)),
        // Beyond the last port: always.
        (snippet!("in ax, dx"), 0xffff, Some(0xffff_0009)),
        (snippet!("rep outsb"), 0x80, Some(0x80_0030)),
        (snippet!("rep insw"), 0x7f, Some(0x7f_0039)),
    ];
    for (code, port, qualification) in trials {
        let regs = Regs { rdx: port, rsi: 0x20_0000, rdi: 0x20_0100, rcx: 3, ..Regs::default() };
        trial::begin(&mut nested, Mode::Kernel64, code, regs);
        let reason = nested.run();
        let expected = if qualification.is_some() { ExitReason::IO_INSTRUCTION } else { ExitReason::VMCALL };
        check_eq!(reason, expected, "port {port:#x}");
        if let Some(qualification) = qualification {
            check_eq!(nested.read(vmcs::EXIT_QUALIFICATION), qualification, "port {port:#x}: qualification");
            check_eq!(nested.registers.rcx, 3, "port {port:#x}: RCX, for nothing was done");
        }
    }
}

/// Guest/host masks, read shadows and CR3 targets (SDM, "Changes to Instruction Behavior in VMX Non-Root Operation").
fn control_registers() {
    let mut nested = Guest::new(trial::perform);
    let (cr0, cr4) = (guest::cpu::read_cr0(), guest::cpu::read_cr4());
    // Bits 3 (TS) and 18 (AM) are the hypervisor's; the guest believes TS set and AM clear.
    nested.write(vmcs::CR0_MASK, 1 << 3 | 1 << 18);
    nested.write(vmcs::CR0_READ_SHADOW, 1 << 3);
    nested.write(vmcs::CR4_MASK, 1 << 13 | 1 << 2);
    nested.write(vmcs::CR4_READ_SHADOW, 1 << 2);
    let mut attempt = |code, rax| {
        trial::begin(&mut nested, Mode::Kernel64, code, Regs { rax, ..Regs::default() });
        let reason = nested.run();
        (
            reason,
            if reason == ExitReason::VMCALL {
                trial::result().1.rax
            } else {
                nested.read(vmcs::EXIT_QUALIFICATION)
            },
        )
    };
    let seen0 = cr0 & !(1 << 18) | 1 << 3;
    let seen4 = cr4 & !(1 << 13) | 1 << 2;
    let (done, left) = (ExitReason::VMCALL, ExitReason::CONTROL_REGISTER);
    check_eq!(attempt(snippet!("mov rax, cr0"), 0), (done, seen0), "MOV from CR0");
    check_eq!(attempt(snippet!("mov rax, cr4"), 0), (done, seen4), "MOV from CR4");
    check_eq!(attempt(snippet!("smsw rax"), 0).1 & 0xffff, seen0 & 0xffff, "SMSW");
    check_eq!(attempt(snippet!("mov cr0, rax"), seen0), (done, seen0), "MOV to CR0 of what it holds");
    check_eq!(attempt(snippet!("mov cr0, rax"), seen0 ^ 1 << 3), (left, 0), "MOV to CR0 with another TS");
    check_eq!(attempt(snippet!("mov cr0, rax"), seen0 ^ 1 << 18), (left, 0), "MOV to CR0 with another AM");
    check_eq!(attempt(snippet!("clts"), 0), (left, 0x20), "CLTS");
    check_eq!(attempt(snippet!("lmsw ax"), 0x3b), (done, 0x3b), "LMSW of the shadow's TS");
    check_eq!(attempt(snippet!("lmsw ax"), 0x33), (left, 0x33_0030), "LMSW with another TS");
    check_eq!(attempt(snippet!("mov cr4, rax"), seen4), (done, seen4), "MOV to CR4 of what it holds");
    check_eq!(attempt(snippet!("mov cr4, rax"), seen4 ^ 1 << 2), (left, 4), "MOV to CR4 with another TSD");
    check_eq!(attempt(snippet!("mov cr4, rax"), seen4 ^ 1 << 13), (left, 4), "MOV to CR4 with another VMXE");
    // CR3 targets.
    let cr3 = guest::cpu::read_cr3();
    check!(nested.add_primary(PrimaryControls::CR3_LOAD_EXITING), "CR3-load exiting");
    for (count, target, expected) in [(0, cr3, left), (1, cr3, done), (1, cr3 + 0x1000, left), (4, cr3, done)]
    {
        nested.write(vmcs::CR3_TARGET_COUNT, count);
        nested.write(vmcs::CR3_TARGET_0, target);
        trial::begin(
            &mut nested,
            Mode::Kernel64,
            snippet!("mov cr3, rax"),
            Regs { rax: cr3, ..Regs::default() },
        );
        check_eq!(nested.run(), expected, "MOV to CR3 with {count} targets, the first {target:#x}");
    }
}
