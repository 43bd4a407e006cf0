//! Wrong reflection: events whose delivery needs pages that are not there yet, and debug exceptions that are pending.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::read_dr6;
use guest::trap::{Frame, handle};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, instruction};
use guest::{Snippet, snippet};
use x86::vmx::interruption::{Interruption, InterruptionType};

guest!(main);

const ERROR_CODE: u32 = 0x18;
const LENGTH: u32 = 2;
const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;
const BLOCKING_BY_NMI: u32 = 1 << 3;
const DEBUG: u8 = 1;
/// Pending debug exceptions (SDM, "Guest Non-Register State").
const B0: u64 = 1;
const ENABLED_BREAKPOINT: u64 = 1 << 12;
const SINGLE_STEP: u64 = 1 << 14;

static COUNT: AtomicU64 = AtomicU64::new(0);
static VECTOR: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);
static DR6: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let word = |vector, kind, has_error| Interruption::new(vector, kind, has_error);
    let events = [
        word(0x40, InterruptionType::EXTERNAL, false),
        word(2, InterruptionType::NMI, false),
        word(6, InterruptionType::HARDWARE_EXCEPTION, false),
        word(13, InterruptionType::HARDWARE_EXCEPTION, true),
        word(14, InterruptionType::HARDWARE_EXCEPTION, true),
        word(0x61, InterruptionType::SOFTWARE_INTERRUPT, false),
        word(1, InterruptionType::PRIVILEGED_SOFTWARE_EXCEPTION, false),
        word(3, InterruptionType::SOFTWARE_EXCEPTION, false),
    ];
    for event in events {
        handle(event.vector(), Some(note));
        new_tables(event);
        page_of_the_table_lacks(event);
        handle(event.vector(), None);
    }
    pending();
    leave_operation();
}

fn note(frame: &mut Frame) -> bool {
    COUNT.fetch_add(1, Ordering::SeqCst);
    VECTOR.store(frame.vector, Ordering::SeqCst);
    ERROR.store(frame.error_code, Ordering::SeqCst);
    RIP.store(frame.rip, Ordering::SeqCst);
    true
}

/// A function whose first bytes an injected event may step over; never inlined, for there is to be one of it.
#[inline(never)]
fn landing() -> Snippet {
    snippet!("nop", "nop", "nop", "nop", "ret")
}

extern "C" fn nothing() {}

fn begin(nested: &mut Guest, rflags: u64) {
    nested.call(nothing);
    nested.write(vmcs::GUEST_RIP, landing().address());
    nested.write(vmcs::GUEST_RFLAGS, rflags | 2);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
}

fn inject(nested: &mut Guest, event: Interruption) {
    begin(nested, IF);
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event.0);
    nested.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, ERROR_CODE);
    nested.write(vmcs::ENTRY_INSTRUCTION_LENGTH, LENGTH);
}

/// Once, with what belongs to it.
fn arrives(nested: &mut Guest, event: Interruption, what: &str) {
    let vector = event.vector();
    COUNT.store(0, Ordering::SeqCst);
    let reason = nested.run();
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}, {vector}: {}", reason.name());
    let seen = (COUNT.load(Ordering::SeqCst), VECTOR.load(Ordering::SeqCst));
    check_eq!(seen, (1, u64::from(vector)), "{what}: the event arrives once");
    let length = if event.is_software() { u64::from(LENGTH) } else { 0 };
    check_eq!(RIP.load(Ordering::SeqCst), landing().address() + length, "{what}, {vector}: return address");
    if event.has_error_code() {
        check_eq!(ERROR.load(Ordering::SeqCst), u64::from(ERROR_CODE), "{what}, {vector}: error code");
    }
}

/// Under tables that nobody has used the delivery is the first to touch table, stack and handler.
fn new_tables(event: Interruption) {
    let ept = Ept::identity();
    let mut nested = Guest::new(nothing);
    nested.use_ept(&ept);
    for time in 0..2 {
        inject(&mut nested, event);
        arrives(&mut nested, event, "new tables");
        check_eq!(nested.read(vmcs::GUEST_INTERRUPTIBILITY), 0, "blocking behind the handler, time {time}");
        check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
    }
}

/// Where the hypervisor's own tables lack the page it is told of the event, and can give it again.
fn page_of_the_table_lacks(event: Interruption) {
    let vector = event.vector();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(nothing);
    nested.use_ept(&ept);
    let gate = nested.read(vmcs::GUEST_IDTR_BASE) + 16 * u64::from(vector);
    let page = gate & !0xfff;
    ept.unmap(page);
    inject(&mut nested, event);
    COUNT.store(0, Ordering::SeqCst);
    check_eq!(nested.run(), ExitReason::EPT_VIOLATION, "vector {vector} without its gate");
    check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS) & !0xfff, page, "vector {vector}: the gate's page");
    check_eq!(nested.read(vmcs::EXIT_QUALIFICATION) & 7, 1, "vector {vector}: a read");
    check_eq!(nested.read(vmcs::GUEST_RIP), landing().address(), "vector {vector}: its place");
    let vectoring = Interruption(nested.read(vmcs::IDT_VECTORING_INFORMATION) & !(1 << 12));
    check_eq!(vectoring, event, "vector {vector}: IDT-vectoring information");
    let error_code = nested.read(vmcs::IDT_VECTORING_ERROR_CODE);
    let length = nested.read(vmcs::EXIT_INSTRUCTION_LENGTH);
    if event.has_error_code() {
        check_eq!(error_code, ERROR_CODE, "vector {vector}: IDT-vectoring error code");
    }
    if event.is_software() {
        check_eq!(length, LENGTH, "vector {vector}: length");
    }
    check_eq!(COUNT.load(Ordering::SeqCst), 0, "vector {vector}: handlers");
    ept.map(page, page, 7);
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, vectoring.0);
    nested.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, error_code);
    nested.write(vmcs::ENTRY_INSTRUCTION_LENGTH, length);
    // An NMI that is given again must not find itself blocked (SDM, "Resuming Guest Software").
    let blocking = nested.read(vmcs::GUEST_INTERRUPTIBILITY);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, blocking & !BLOCKING_BY_NMI);
    arrives(&mut nested, event, "given again");
}

/// A debug exception that is pending is the first thing that happens, to whom it concerns.
fn pending() {
    handle(DEBUG, Some(debug));
    for is_wanted in [false, true] {
        let cases = [(B0 | ENABLED_BREAKPOINT, 0, B0), (SINGLE_STEP, TF, SINGLE_STEP)];
        for (pending, rflags, told) in cases {
            let mut nested = Guest::new(nothing);
            begin(&mut nested, rflags);
            nested.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, pending);
            nested.write(vmcs::EXCEPTION_BITMAP, u32::from(is_wanted) << DEBUG);
            COUNT.store(0, Ordering::SeqCst);
            let what = format_args!("pending {pending:#x}, wanted {is_wanted}");
            let reason = nested.run();
            if is_wanted {
                check_eq!(reason, ExitReason::EXCEPTION_OR_NMI, "{what}");
                check_eq!(nested.read(vmcs::EXIT_QUALIFICATION) & 0xe00f, told, "{what}: qualification");
                check_eq!(nested.read(vmcs::GUEST_RIP), landing().address(), "{what}: its place");
                check_eq!(COUNT.load(Ordering::SeqCst), 0, "{what}: handlers");
                continue;
            }
            check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: {}", reason.name());
            check_eq!(COUNT.load(Ordering::SeqCst), 1, "{what}: handlers");
            check_eq!(
                RIP.load(Ordering::SeqCst),
                landing().address(),
                "{what}: before the first instruction"
            );
            check_eq!(DR6.load(Ordering::SeqCst) & 0xe00f, told, "{what}: DR6");
        }
    }
    handle(DEBUG, None);
}

fn debug(frame: &mut Frame) -> bool {
    DR6.store(read_dr6(), Ordering::SeqCst);
    frame.rflags &= !TF;
    note(frame)
}
