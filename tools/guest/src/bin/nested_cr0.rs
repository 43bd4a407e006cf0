//! Control merge: a MOV to CR0 of a guest's guest that leaves for cache bits, which its hypervisor does not own, faults
//! where the processor keeps other bits.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{read_cr0, under_hypervisor, write_cr0};
use guest::snippet;
use guest::vmx::prelude::*;

guest!(main);

const NE: u64 = 1 << 5;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const GP: u32 = 1 << 13;
/// Interruption information of a general-protection exception.
const GP_EXIT: u32 = 0x8000_0b0d;
/// Code of 32 bits.
const CODE32_RIGHTS: u32 = 0xc09b;

/// What became of L2's writes: a bit for each that was done.
static DONE: AtomicU64 = AtomicU64::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let mut nested = Guest::new(toggle);
    check_eq!(nested.run(), ExitReason::VMCALL, "MOV to CR0");
    check!(nested.has_ended(), "the guest's guest ends");
    check_eq!(DONE.load(Ordering::SeqCst), 0b1001, "cache bits alone, and with NE cleared");
    check_eq!(LEFT.load(Ordering::SeqCst) & (NE | CD), NE, "what is left");
    let end_paging = snippet!(code32: "mov eax, cr0", "xor eax, 0xc0000000", "mov cr0, eax", "vmcall");
    nested.call(toggle);
    nested.write(vmcs::EXCEPTION_BITMAP, GP);
    nested.write(vmcs::GUEST_RIP, end_paging.address());
    nested.write(vmcs::GUEST_CS_ACCESS_RIGHTS, CODE32_RIGHTS);
    let reason = nested.run();
    // The emulator's processor lets it end, without the hypervisor.
    if under_hypervisor() || reason != ExitReason::VMCALL {
        check_eq!(reason, ExitReason::EXCEPTION_OR_NMI, "the end of paging without unrestricted guests");
        check_eq!(nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION), GP_EXIT, "the exception");
        check_eq!(nested.read(vmcs::GUEST_RIP) - end_paging.address(), 8, "at its instruction");
    }
    leave_operation();
}

/// L2.
extern "C" fn toggle() {
    let old = read_cr0() & !(CD | NW);
    let writes = [old | CD, (old | CD) & !NE, old & !NE, old];
    let done =
        writes.into_iter().enumerate().map(|(index, value)| u64::from(write_cr0(value).is_ok()) << index);
    DONE.store(done.sum(), Ordering::SeqCst);
    LEFT.store(read_cr0(), Ordering::SeqCst);
}
