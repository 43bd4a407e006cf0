//! Control merge: bitmaps of L1 on the page that the processor keeps L2's task priority in decide over L2's very next
//! access.
//! cmdline: nested=on
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "numbers of ports, which are small")]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{in8, write_cr8};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate};
use x86::vmx::controls::PrimaryControls;
use x86::vmx::vmcs::TrustedField;

guest!(main);

/// The byte of the task priority is bits of these ports; the priority class is the upper four.
const FIRST_PORT: u64 = 0x80 * 8;
const PRIORITY: u64 = 5;
/// More often than a hypervisor beneath may care to follow by traps.
const ROUNDS: u64 = 40;

static TASK_PRIORITY: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let ept = Ept::identity();
    for has_ept in [false, true] {
        let mut nested = Guest::new(write_and_access);
        if has_ept {
            nested.use_ept(&ept);
        }
        let bitmaps: [u64; 2] = core::array::from_fn(|_| allocate());
        nested.write(vmcs::IO_BITMAP_A, bitmaps[0]);
        nested.write(vmcs::IO_BITMAP_B, bitmaps[1]);
        assert!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "the processor has no I/O bitmaps");
        assert!(nested.add_primary(PrimaryControls::USE_TPR_SHADOW), "the processor has no TPR shadow");
        nested.write(vmcs::TPR_THRESHOLD, 0);
        try_bitmap(&mut nested, vmcs::IO_BITMAP_A, FIRST_PORT);
        try_bitmap(&mut nested, vmcs::IO_BITMAP_B, 0x8000 + FIRST_PORT);
        between_two(&mut nested, bitmaps);
    }
    leave_operation();
}

/// L2's own change of its priority is a change of the bitmap.
fn try_bitmap(nested: &mut Guest, bitmap: TrustedField<u64>, first_port: u64) {
    let page = nested.read(bitmap);
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, page);
    for round in 0..ROUNDS {
        let priority = if round % 2 == 0 { PRIORITY } else { 0 };
        for bit in 4..8 {
            let is_wanted = priority << 4 >> bit & 1 != 0;
            let has_left = access(nested, priority, first_port + bit);
            check_eq!(has_left, is_wanted, "round {round}, port {:#x}", first_port + bit);
        }
    }
}

/// The page is one L2's virtual APIC and another's bitmap, on one processor in turn.
fn between_two(nested: &mut Guest, bitmaps: [u64; 2]) {
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, allocate());
    let mut other = Guest::new(write_and_access);
    assert!(other.add_primary(PrimaryControls::USE_TPR_SHADOW), "the processor has no TPR shadow");
    other.write(vmcs::TPR_THRESHOLD, 0);
    other.write(vmcs::VIRTUAL_APIC_ADDRESS, bitmaps[0]);
    for round in 0..ROUNDS {
        let priority = if round % 2 == 0 { PRIORITY } else { 0 };
        other.load();
        check!(!access(&mut other, priority, FIRST_PORT + 4), "a port that nobody wants");
        nested.load();
        let has_left = access(nested, 0, FIRST_PORT + 4);
        check_eq!(has_left, round % 2 == 0, "between two, round {round}");
    }
}

/// Whether L2's access to `port` leaves after L2 has set its task priority.
fn access(nested: &mut Guest, priority: u64, port: u64) -> bool {
    TASK_PRIORITY.store(priority, Ordering::SeqCst);
    PORT.store(port, Ordering::SeqCst);
    nested.call(write_and_access);
    let reason = nested.run();
    let has_left = reason == ExitReason::IO_INSTRUCTION;
    if has_left {
        nested.advance();
        nested.run();
    }
    check!(nested.has_ended(), "L2 does not end: {reason:?}");
    has_left
}

/// L2.
extern "C" fn write_and_access() {
    let _ = write_cr8(TASK_PRIORITY.load(Ordering::SeqCst));
    let _ = in8(PORT.load(Ordering::SeqCst) as u16);
}
