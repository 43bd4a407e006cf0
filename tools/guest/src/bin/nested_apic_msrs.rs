//! APIC MSRs: a guest's guest finds every x2APIC and VMX register as its hypervisor does, or leaves for it.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest::cpu::{cpuid, rdmsr, rdmsr_existing, wrmsr_existing};
use guest::vmx::prelude::*;
use guest::vmx::{allocate, write};
use x86::msr::Msr;

guest!(main);

const X2APIC: u64 = 1 << 10;
/// The local APIC's, those of VMX and some beside, and those that stand alone.
const RANGES: [(u32, u32); 4] = [(0x800, 0x8ff), (0x480, 0x4a0), (0x3a, 0x3b), (0xc000_0080, 0xc000_0084)];
const CURRENT_COUNT: u32 = 0x839;

static NUMBER: AtomicU32 = AtomicU32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
static IS_FAULT: AtomicU32 = AtomicU32::new(0);

fn main() {
    enter_operation();
    let mut nested = Guest::new(read);
    let bitmap = allocate();
    nested.write(vmcs::MSR_BITMAPS, bitmap);
    each(&mut nested, bitmap);
    if cpuid(1, 0).ecx >> 21 & 1 == 1 {
        let base = rdmsr_existing(Msr::IA32_APIC_BASE);
        wrmsr_existing(Msr::IA32_APIC_BASE, base | X2APIC);
        each(&mut nested, bitmap);
    }
    leave_operation();
}

/// L2.
extern "C" fn read() {
    let result = rdmsr(Msr(NUMBER.load(Ordering::SeqCst)));
    VALUE.store(result.unwrap_or(0), Ordering::SeqCst);
    IS_FAULT.store(result.is_err().into(), Ordering::SeqCst);
}

fn each(nested: &mut Guest, bitmap: u64) {
    for number in RANGES.into_iter().flat_map(|(first, last)| first..=last) {
        let msr = Msr(number);
        let own = rdmsr(msr);
        NUMBER.store(number, Ordering::SeqCst);
        let place = place(bitmap, number);
        for is_wanted in [false, true] {
            write(place, if is_wanted { 1 << (number % 64) } else { 0 });
            nested.call(read);
            let reason = nested.run();
            if is_wanted {
                check_eq!(reason, ExitReason::RDMSR, "RDMSR of {number:#x} that its hypervisor wants");
                continue;
            }
            check_eq!(reason, ExitReason::VMCALL, "RDMSR of {number:#x}");
            check_eq!(IS_FAULT.load(Ordering::SeqCst) == 1, own.is_err(), "whether {number:#x} faults");
            // This one counts.
            if number != CURRENT_COUNT {
                check_eq!(VALUE.load(Ordering::SeqCst), own.unwrap_or(0), "value of {number:#x}");
            }
        }
        write(place, 0);
    }
}

/// The quadword of the bitmap that has the register's bit for reads.
fn place(bitmap: u64, number: u32) -> u64 {
    let high = if number >> 16 != 0 { 1024 } else { 0 };
    bitmap + high + u64::from(number & 0x1fff) / 64 * 8
}
