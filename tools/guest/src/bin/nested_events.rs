//! Wrong reflection: every vector as each type of event, executed and injected, that the hypervisor wants or not.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, under_hypervisor};
use guest::smp;
use guest::trap::{Frame, handle};
use guest::vmx::prelude::*;
use guest::vmx::{Failure, trial};
use guest::{Fault, Mode, Regs, Snippet, snippet};
use x86::msr::Msr;
use x86::vmx::interruption::{Interruption, InterruptionType};

guest!(main);

const BREAKPOINT: u8 = 3;
const NON_CANONICAL: u64 = 1 << 47;
const UNMAPPED: u64 = 0x7fff_ffff_f000;

/// Vectors that push an error code (SDM, "Error Code").
const WITH_ERROR_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17;

static RIP: AtomicU64 = AtomicU64::new(0);
static VECTOR: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    executed();
    software_interrupts();
    page_faults();
    // Every vector, none, and all but those that push an error code.
    for bitmap in [u32::MAX, 0, !WITH_ERROR_CODE] {
        injected(bitmap);
    }
    injections_refused();
    during_delivery();
    leave_operation();
}

fn executed() {
    // A data segment that is not present.
    smp::descriptor(0x58).set(0x00cf_1300_0000_ffff);
    let hardware = InterruptionType::HARDWARE_EXCEPTION;
    let cases: [(&str, Snippet, Fault, InterruptionType, u32); 7] = [
        ("DIV by 0", snippet!("xor ecx, ecx", "div ecx"), fault(0, 0), hardware, 2),
        ("INT1", snippet!(".byte 0xf1"), fault(1, 0), InterruptionType::PRIVILEGED_SOFTWARE_EXCEPTION, 1),
        ("INT3", snippet!("int3"), fault(3, 0), InterruptionType::SOFTWARE_EXCEPTION, 1),
        ("UD2", snippet!("ud2"), Fault::UD, hardware, 2),
        ("load of no segment", snippet!("mov eax, 0x58", "mov ds, eax"), fault(11, 0x58), hardware, 2),
        ("no address of the stack", snippet!("mov rbp, rdi", "mov rax, [rbp]"), fault(12, 0), hardware, 4),
        ("no address", snippet!("mov rax, [rdi]"), Fault::GP, hardware, 3),
    ];
    for (name, code, expected, kind, length) in cases {
        for bitmap in [0, u32::MAX, 1 << expected.vector, !(1 << expected.vector)] {
            let wanted = bitmap >> expected.vector & 1 == 1;
            let mut nested = Guest::new(trial::perform);
            nested.write(vmcs::EXCEPTION_BITMAP, bitmap & !(1 << 14));
            trial::begin(&mut nested, Mode::Kernel64, code, Regs { rdi: NON_CANONICAL, ..Regs::default() });
            let reason = nested.run();
            if !wanted {
                check_eq!(reason, ExitReason::VMCALL, "{name}, bitmap {bitmap:#x}");
                check_eq!(trial::result().0, Err(expected), "{name}, bitmap {bitmap:#x}");
                continue;
            }
            check_eq!(reason, ExitReason::EXCEPTION_OR_NMI, "{name}, bitmap {bitmap:#x}");
            let has_error = WITH_ERROR_CODE >> expected.vector & 1 == 1;
            let seen = nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION) & !(1 << 12);
            check_eq!(seen, Interruption::new(expected.vector, kind, has_error).0, "{name}: interruption");
            if has_error {
                check_eq!(
                    nested.read(vmcs::EXIT_INTERRUPTION_ERROR_CODE),
                    expected.error_code,
                    "{name}: error code"
                );
            }
            if Interruption(seen).is_software() {
                check_eq!(nested.read(vmcs::EXIT_INSTRUCTION_LENGTH), length, "{name}: length");
            }
            if expected.vector == 1 {
                check_eq!(nested.read(vmcs::EXIT_QUALIFICATION), 0, "{name}: qualification");
            }
        }
    }
}

const fn fault(vector: u8, error_code: u32) -> Fault {
    Fault { vector, error_code }
}

/// INT n is no exception: no bitmap makes it leave.
fn software_interrupts() {
    let cases = [
        (snippet!("int 0x06"), 6),
        (snippet!("int 0x0d"), 13),
        (snippet!("int 0x20"), 0x20),
        (snippet!(".byte 0xcd, 0x03"), 3),
        (snippet!("int 0xff"), 0xff),
        (snippet!(".byte 0xcd, 0x01"), 1),
    ];
    for (code, vector) in cases {
        handle(vector, Some(note));
        let mut nested = Guest::new(trial::perform);
        nested.write(vmcs::EXCEPTION_BITMAP, !(1 << 14));
        // One that pushes no error code would return to the wrong place: it ends the snippet instead.
        if vector == 13 {
            handle(vector, None);
        }
        trial::begin(&mut nested, Mode::Kernel64, code, Regs::default());
        check_eq!(nested.run(), ExitReason::VMCALL, "INT {vector:#x}");
        check!(nested.has_ended(), "INT {vector:#x}");
        if vector != 13 {
            check_eq!(VECTOR.swap(0, Ordering::SeqCst), u64::from(vector), "INT {vector:#x}: vector");
            check_eq!(RIP.load(Ordering::SeqCst), code.address() + 2, "INT {vector:#x}: return address");
        }
        handle(vector, None);
    }
}

/// The bitmap's bit 14 with mask and match of the error code.
fn page_faults() {
    let mut nested = Guest::new(trial::perform);
    for bit in [0, 1] {
        for (mask, matched) in [(0, 0), (0, 1), (2, 0), (2, 2), (u32::MAX, 0), (u32::MAX, 2)] {
            for (code, error) in [(snippet!("mov rax, [rdi]"), 0), (snippet!("mov [rdi], rax"), 2)] {
                nested.write(vmcs::EXCEPTION_BITMAP, bit << 14);
                nested.write(vmcs::PAGE_FAULT_ERROR_CODE_MASK, mask);
                nested.write(vmcs::PAGE_FAULT_ERROR_CODE_MATCH, matched);
                trial::begin(&mut nested, Mode::Kernel64, code, Regs { rdi: UNMAPPED, ..Regs::default() });
                let wanted = (error & mask == matched) == (bit == 1);
                let what = (bit, mask, matched, error);
                let expected = if wanted { ExitReason::EXCEPTION_OR_NMI } else { ExitReason::VMCALL };
                check_eq!(nested.run(), expected, "page fault, bit, mask, match and error {what:x?}");
                if wanted {
                    check_eq!(
                        nested.read(vmcs::EXIT_QUALIFICATION),
                        UNMAPPED,
                        "page fault {what:x?}: address"
                    );
                    check_eq!(
                        nested.read(vmcs::EXIT_INTERRUPTION_ERROR_CODE),
                        error,
                        "page fault {what:x?}: error"
                    );
                } else {
                    check_eq!(trial::result().0, Err(fault(14, error)), "page fault {what:x?}");
                }
            }
        }
    }
}

/// What VM entry injects arrives in the guest whatever the exception bitmap says.
fn injected(bitmap: u32) {
    let mut nested = Guest::new(nothing);
    nested.write(vmcs::EXCEPTION_BITMAP, bitmap);
    let start = landing().address();
    for vector in 0..=255_u8 {
        handle(vector, Some(note));
        let kinds = [
            (InterruptionType::EXTERNAL, vector >= 32),
            (InterruptionType::HARDWARE_EXCEPTION, vector < 32 && vector != 2),
            (InterruptionType::SOFTWARE_INTERRUPT, true),
            (InterruptionType::SOFTWARE_EXCEPTION, matches!(vector, 3 | 4)),
            (InterruptionType::PRIVILEGED_SOFTWARE_EXCEPTION, vector == 1),
        ];
        for (kind, _) in kinds.into_iter().filter(|(_, is_fit)| *is_fit) {
            // The entry code of this program expects one with every vector that has one.
            let pops_error = vector < 32 && WITH_ERROR_CODE >> vector & 1 == 1;
            let has_error = pops_error && kind == InterruptionType::HARDWARE_EXCEPTION;
            if (pops_error || vector == 21) && !has_error {
                continue;
            }
            inject(&mut nested, Interruption::new(vector, kind, has_error));
            check_eq!(nested.run(), ExitReason::VMCALL, "injected vector {vector:#x}, {kind:?}");
            check_eq!(VECTOR.swap(0, Ordering::SeqCst), u64::from(vector), "injected vector, {kind:?}");
            let length = if Interruption::new(vector, kind, false).is_software() { 2 } else { 0 };
            let seen = RIP.load(Ordering::SeqCst);
            check_eq!(seen, start + length, "return address of injected vector {vector:#x}, {kind:?}");
            if has_error {
                check_eq!(ERROR.load(Ordering::SeqCst), 0x1234 & 0x7fff, "error code of vector {vector:#x}");
            }
            check_eq!(
                nested.read(vmcs::ENTRY_INTERRUPTION_INFORMATION) >> 31,
                0,
                "valid bit after the entry"
            );
        }
        handle(vector, None);
    }
}

/// A function whose first bytes an injected event may step over; never inlined, for there is to be one of it.
#[inline(never)]
fn landing() -> Snippet {
    snippet!("nop", "nop", "nop", "nop", "ret")
}

fn inject(nested: &mut Guest, event: Interruption) {
    nested.call(nothing);
    nested.write(vmcs::GUEST_RIP, landing().address());
    nested.write(vmcs::GUEST_RFLAGS, 0x202);
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event.0);
    nested.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, 0x1234);
    nested.write(vmcs::ENTRY_INSTRUCTION_LENGTH, 2);
}

/// SDM, "VM-Entry Control Fields": what may not be injected fails with error 7.
fn injections_refused() {
    let mut nested = Guest::new(nothing);
    let word = |kind: u8, vector, error| Interruption::new(vector, InterruptionType(kind), error).0;
    let refused = [
        ("type 1", word(1, 0x20, false)),
        ("an NMI of vector 3", word(2, 3, false)),
        ("an exception of vector 32", word(3, 32, false)),
        ("other event of vector 1", word(7, 1, false)),
        ("an interrupt with error code", word(0, 0x20, true)),
        ("INT with error code", word(4, 0x20, true)),
        ("INT3 with error code", word(6, 3, true)),
        ("reserved bit 12", word(0, 0x20, false) | 1 << 12),
        ("reserved bit 30", word(0, 0x20, false) | 1 << 30),
    ];
    // Processors that leave it to software take any exception with or without one (SDM, "Basic VMX Information").
    const FREE_ERROR_CODES: u64 = 1 << 56;
    let is_free = rdmsr_existing(Msr::IA32_VMX_BASIC) & FREE_ERROR_CODES != 0;
    for (name, event) in refused {
        // The emulator's such processors take events of all other types with one too.
        if is_free && !under_hypervisor() && name.contains("with error code") {
            continue;
        }
        inject(&mut nested, Interruption(event));
        check_eq!(nested.enter(), Err(Failure::Valid(7)), "injection of {name}");
    }
    for (name, event) in [
        ("#UD with an error code", word(3, 6, true)),
        ("#GP without error code", word(3, 13, false)),
        ("#DF without error code", word(3, 8, false)),
    ] {
        inject(&mut nested, Interruption(event));
        let is_refused = nested.enter() == Err(Failure::Valid(7));
        check_eq!(is_refused, !is_free, "injection of {name}");
    }
    for length in [16, 17, u32::MAX] {
        inject(&mut nested, Interruption(word(4, 0x20, false)));
        nested.write(vmcs::ENTRY_INSTRUCTION_LENGTH, length);
        check_eq!(nested.enter(), Err(Failure::Valid(7)), "injection of INT of length {length}");
    }
    inject(&mut nested, Interruption(word(3, 13, true)));
    nested.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, 1 << 16);
    check_eq!(nested.enter(), Err(Failure::Valid(7)), "injection of an error code of 17 bits");
    // Not valid, so that nothing in it matters.
    inject(&mut nested, Interruption(word(1, 3, true) & !(1 << 31)));
    check_eq!(nested.run(), ExitReason::VMCALL, "injection of nothing");
    // With interrupts off an interrupt cannot come: bad guest state.
    inject(&mut nested, Interruption(word(0, 0x20, false)));
    nested.write(vmcs::GUEST_RFLAGS, 2);
    check_eq!(nested.run(), ExitReason(0x8000_0021), "injection of an interrupt with interrupts off");
}

/// IDT-vectoring information: an event whose delivery leaves the guest is told.
fn during_delivery() {
    let mut nested = Guest::new(trial::perform);
    // Delivery of INT3 pushes to a stack that is not there.
    nested.write(vmcs::EXCEPTION_BITMAP, 1 << 14);
    let code = snippet!("mov rsp, rdi", "int3");
    trial::begin(&mut nested, Mode::Kernel64, code, Regs { rdi: UNMAPPED, ..Regs::default() });
    check_eq!(nested.run(), ExitReason::EXCEPTION_OR_NMI, "INT3 without a stack");
    let seen = Interruption(nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION));
    check_eq!(seen.vector(), 14, "INT3 without a stack: vector");
    let event = Interruption::new(BREAKPOINT, InterruptionType::SOFTWARE_EXCEPTION, false);
    check_eq!(nested.read(vmcs::IDT_VECTORING_INFORMATION) & !(1 << 12), event.0, "INT3: IDT vectoring");
    check_eq!(nested.read(vmcs::EXIT_INSTRUCTION_LENGTH), 1, "INT3: length");
    check_eq!(nested.read(vmcs::GUEST_RIP), code.address() + 3, "INT3: place");
    // Given a stack and injected again it arrives, and returns behind INT3.
    handle(BREAKPOINT, Some(note));
    inject(&mut nested, event);
    nested.write(vmcs::ENTRY_INSTRUCTION_LENGTH, 1);
    check_eq!(nested.run(), ExitReason::VMCALL, "INT3 injected again");
    check_eq!(VECTOR.swap(0, Ordering::SeqCst), u64::from(BREAKPOINT), "INT3 injected again");
    check_eq!(RIP.load(Ordering::SeqCst), landing().address() + 1, "INT3 injected again: return address");
    handle(BREAKPOINT, None);
    nested.write(vmcs::EXCEPTION_BITMAP, 0);
    // #PF in the delivery of #PF is #DF, and without its stack shutdown, which leaves.
    trial::begin(
        &mut nested,
        Mode::Kernel64,
        snippet!("mov rsp, rdi", "mov rax, [rdi]"),
        Regs { rdi: UNMAPPED, ..Regs::default() },
    );
    check_eq!(nested.run(), ExitReason::TRIPLE_FAULT, "no stack at all");
}

fn note(frame: &mut Frame) -> bool {
    RIP.store(frame.rip, Ordering::SeqCst);
    VECTOR.store(frame.vector, Ordering::SeqCst);
    ERROR.store(frame.error_code, Ordering::SeqCst);
    true
}

extern "C" fn nothing() {}
