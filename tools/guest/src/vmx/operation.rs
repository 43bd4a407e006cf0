//! VMX operation: what the processor has, VMXON and VMXOFF (SDM, "Enabling and Entering VMX Operation").

use x86::msr::Msr;
use x86::vmx::capability::{Allowed, VmxBasic};

use super::instruction::{vmxoff, vmxon};
use super::page;
use crate::cpu::{cpuid, rdmsr_existing, read_cr0, read_cr4, write_cr0, write_cr4, wrmsr_existing};

const LOCK: u64 = 1;
const OUTSIDE_SMX: u64 = 1 << 2;
const VMXE: u64 = 1 << 13;

/// Whether the processor has VMX.
pub fn has_vmx() -> bool {
    cpuid(1, 0).ecx >> 5 & 1 == 1
}

/// VMCS revision identifier.
pub fn revision() -> u32 {
    VmxBasic(rdmsr_existing(Msr::IA32_VMX_BASIC)).revision()
}

/// What the controls of the TRUE capability MSR `msr` are allowed to be.
pub fn capability(msr: Msr) -> Allowed {
    Allowed(rdmsr_existing(msr))
}

/// A page with the revision in its first word.
pub fn region() -> u64 {
    let page = page::allocate();
    page::write(page, revision().into());
    page
}

/// Makes CR0, CR4 and IA32_FEATURE_CONTROL of this CPU fit for VMXON.
pub fn prepare() {
    let control = rdmsr_existing(Msr::IA32_FEATURE_CONTROL);
    if control & LOCK == 0 {
        wrmsr_existing(Msr::IA32_FEATURE_CONTROL, control | LOCK | OUTSIDE_SMX);
    }
    let _ = write_cr0(read_cr0() | rdmsr_existing(Msr::IA32_VMX_CR0_FIXED0));
    let _ = write_cr4(read_cr4() | VMXE);
}

/// Enters VMX operation on this CPU and gives the VMXON region.
pub fn enter_operation() -> u64 {
    assert!(has_vmx(), "the processor has no VMX");
    prepare();
    let region = region();
    if let Err(failure) = vmxon(region) {
        panic!("VMXON: {failure:?}");
    }
    region
}

/// Leaves VMX operation on this CPU.
pub fn leave_operation() {
    if let Err(failure) = vmxoff() {
        panic!("VMXOFF: {failure:?}");
    }
    let _ = write_cr4(read_cr4() & !VMXE);
}
