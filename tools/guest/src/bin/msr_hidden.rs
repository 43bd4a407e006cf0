//! MSRs of a feature that is hidden: without nesting, those of VMX raise #GP(0), and the lock says that VMX is off.
//! cmdline: nested=off
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{rdmsr, wrmsr};
use guest::{Fault, check, check_eq, guest};
use x86::msr::Msr;

guest!(main);

const LOCK: u64 = 1 << 0;
const VMX: u64 = 0b110;

fn main() {
    for number in Msr::IA32_VMX_BASIC.0..=Msr::IA32_VMX_LAST.0 {
        check_eq!(rdmsr(Msr(number)), Err(Fault::GP), "RDMSR of {number:#x}");
        check_eq!(wrmsr(Msr(number), 0), Err(Fault::GP), "WRMSR of {number:#x}");
    }
    let control = rdmsr(Msr::IA32_FEATURE_CONTROL);
    check!(control.is_ok_and(|value| value & (LOCK | VMX) == LOCK), "the lock reads {control:x?}");
    check_eq!(wrmsr(Msr::IA32_FEATURE_CONTROL, LOCK | VMX), Err(Fault::GP), "the lock takes no write");
}
