//! Features L1 may switch on: the controls that load IA32_PERF_GLOBAL_CTRL are offered where there is such a register.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr, rdmsr_existing, under_hypervisor, wrmsr_existing};
use guest::vmx::instruction::vmread;
use guest::vmx::prelude::*;
use guest::vmx::verdict::{CONTROLS, Entry, GUEST_STATE, HOST_STATE, end};
use guest::vmx::{Failure, capability};
use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls};
use x86::vmx::vmcs::TrustedField;

guest!(main);

const REGISTER: Msr = Msr::IA32_PERF_GLOBAL_CTRL;
const ENTRY: u32 = EntryControls::LOAD_PERF_GLOBAL_CTRL.bits();
const EXIT: u32 = ExitControls::LOAD_PERF_GLOBAL_CTRL.bits();

static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let mut nested = Guest::new(end);
    if rdmsr(REGISTER).is_ok() {
        there(&mut nested)
    } else {
        absent(&mut nested)
    }
    leave_operation();
}

/// Control, its word, the capability MSR of that, and the field that it brings to life.
const WAYS: [(u32, TrustedField<u32>, Msr, TrustedField<u64>); 2] = [
    (ENTRY, vmcs::ENTRY_CONTROLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS, vmcs::GUEST_PERF_GLOBAL_CTRL.trusted()),
    (EXIT, vmcs::EXIT_CONTROLS, Msr::IA32_VMX_TRUE_EXIT_CTLS, vmcs::HOST_PERF_GLOBAL_CTRL),
];

/// Neither control may be 1, an entry with it is refused, and no field is there for it. Bochs offers both without the
/// register, so what is seen is told apart.
fn absent(nested: &mut Guest) {
    let level = if under_hypervisor() { "in a guest" } else { "bare" };
    for (control, word, msr, field) in WAYS {
        check_eq!(capability(msr).may_be_one() & control, 0, "{level}, control {control:#x} is offered");
        let unsupported = Err(Failure::Valid(12));
        check_eq!(vmread(field.encoding().into()), unsupported, "{level}, the field of control {control:#x}");
        let old = nested.read(word);
        nested.call(end);
        nested.write(word, old | control);
        check_eq!(nested.try_entry(), CONTROLS, "{level}, an entry with control {control:#x}");
        nested.write(word, old);
        nested.call(end);
        check_eq!(nested.try_entry(), Entry::Entered, "an entry without it");
    }
}

/// L2: the register as it finds it.
extern "C" fn look() {
    SEEN.store(rdmsr_existing(REGISTER), Ordering::SeqCst);
    wrmsr_existing(REGISTER, 0);
}

/// An entry loads one value, its exit another; reserved bits are refused.
fn there(nested: &mut Guest) {
    let old = rdmsr_existing(REGISTER);
    for (control, word, msr, _) in WAYS {
        check_eq!(capability(msr).may_be_one() & control, control, "control {control:#x} is offered");
        nested.write(word, nested.read(word) | control);
    }
    nested.write(vmcs::GUEST_PERF_GLOBAL_CTRL, 1);
    nested.write(vmcs::HOST_PERF_GLOBAL_CTRL, 2);
    nested.call(look);
    check_eq!(nested.try_entry(), Entry::Entered, "both loaded");
    check_eq!([SEEN.load(Ordering::SeqCst), rdmsr_existing(REGISTER)], [1, 2], "in L2 and after its exit");
    nested.call(end);
    nested.write(vmcs::GUEST_PERF_GLOBAL_CTRL, 1 << 63);
    check_eq!(nested.try_entry(), GUEST_STATE, "a reserved bit of the guest's");
    nested.write(vmcs::HOST_PERF_GLOBAL_CTRL, 1 << 63);
    check_eq!(nested.try_entry(), HOST_STATE, "a reserved bit of the host's");
    wrmsr_existing(REGISTER, old);
}
