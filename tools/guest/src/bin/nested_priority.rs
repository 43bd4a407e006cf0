//! Stale state: a virtual task priority that L2 lowers in memory, below its threshold, fails no entry of its hypervisor's:
//! that finds it at an exit, with its own registers and L2's.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{in8, write_cr8};
use guest::vmx::prelude::*;
use guest::vmx::{allocate, write};
use x86::vmx::controls::PrimaryControls;

guest!(main);

const VTPR: u64 = 0x80;
/// The keyboard controller's status, at which a hypervisor beneath looks.
const PORT: u16 = 0x64;
const ROUNDS: u64 = 3;

static PAGE: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let mut nested = Guest::new(lower_in_memory);
    let page = allocate();
    PAGE.store(page, Ordering::SeqCst);
    check!(nested.add_primary(PrimaryControls::USE_TPR_SHADOW), "the processor has a TPR shadow");
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, page);
    nested.write(vmcs::TPR_THRESHOLD, 3);
    for round in 0..ROUNDS {
        write(page + VTPR, 0x70);
        STEPS.store(0, Ordering::SeqCst);
        nested.call(lower_in_memory);
        check_eq!(nested.enter(), Ok(ExitReason::TPR_BELOW_THRESHOLD), "round {round}");
        // By the move to CR8, or where a hypervisor beneath enters in between.
        let steps = STEPS.load(Ordering::SeqCst);
        check!(steps == 1 || steps == 2, "round {round}: {steps} steps");
        check_eq!(
            nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31,
            0,
            "round {round}: nothing was delivered"
        );
        write(page + VTPR, 0x70);
        nested.write(vmcs::TPR_THRESHOLD, 0);
        check_eq!(nested.enter(), Ok(ExitReason::VMCALL), "round {round}: L2 goes on");
        check!(nested.has_ended(), "round {round}: to its end");
        check_eq!(STEPS.load(Ordering::SeqCst), 3, "round {round}: by every step");
        nested.write(vmcs::TPR_THRESHOLD, 3);
    }
    leave_operation();
}

/// L2.
extern "C" fn lower_in_memory() {
    write(PAGE.load(Ordering::SeqCst) + VTPR, 0x10);
    STEPS.store(1, Ordering::SeqCst);
    let _ = in8(PORT);
    STEPS.store(2, Ordering::SeqCst);
    let _ = write_cr8(2);
    STEPS.store(3, Ordering::SeqCst);
}
