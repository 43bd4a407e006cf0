//! Microcode update: a write to IA32_BIOS_UPDT_TRIG loads nothing, wherever it points, and harms nothing.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, wrmsr};
use guest::{Fault, boot, check, check_eq, guest};
use x86::msr::Msr;

guest!(main);

fn main() {
    let revision = read_revision();
    let somewhere = [0, 0x5000, guest::memory::FREE, 0xfee0_0000, 0xffff_fff0, 0x7fff_ffff_f000, !0, 1 << 63];
    let reserved = boot::e820_24().iter().filter(|record| record.kind != 1).map(boot::Record::base);
    for address in somewhere.into_iter().chain(reserved) {
        let result = wrmsr(Msr::IA32_BIOS_UPDT_TRIG, address);
        check!(matches!(result, Ok(()) | Err(Fault::GP)), "update from {address:#x}: {result:x?}");
        check_eq!(read_revision(), revision, "revision after an update from {address:#x}");
    }
}

/// SDM, "Determining the Signature": write zero, execute CPUID, read.
fn read_revision() -> Result<u64, Fault> {
    let _ = wrmsr(Msr::IA32_BIOS_SIGN_ID, 0);
    let _ = cpuid(1, 0);
    rdmsr(Msr::IA32_BIOS_SIGN_ID)
}
