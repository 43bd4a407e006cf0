//! The processor that executes this code: CPUID, MSRs, XCRs, ports, caches.

use super::port;
use crate::{Caches, Cpuid, GeneralProtection, Msrs, PortWidth, Ports, Xcrs, guarded};
use core::arch::asm;
use x86::cpuid::CpuidResult;
use x86::msr::{GuestMsr, Msr};

/// The processor that executes this code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor;

impl Cpuid for Processor {
    #[inline]
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        CpuidResult { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
    }
}

/// Each is one place in the exception table, which a fault searches.
impl Msrs for Processor {
    #[inline(never)]
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        let (low, high, fault): (u32, u32, u32);
        // SAFETY: RDMSR changes nothing but EDX:EAX, and its fault is caught by the table row.
        unsafe {
            asm!("mov {fault:e}, 1", "2: rdmsr", "xor {fault:e}, {fault:e}", "3:", guarded!(),
                fault = out(reg) fault, in("ecx") msr.0, out("eax") low, out("edx") high,
                options(nomem, nostack));
        }
        if fault == 0 { Ok(u64::from(high) << 32 | u64::from(low)) } else { Err(GeneralProtection) }
    }

    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
        // SAFETY: it may hold anything.
        unsafe { self.write_trusted(msr.msr(), value) }
    }

    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a 64-bit value")]
    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        let fault: u32;
        // SAFETY: the fault is caught by the table row; the rest by the caller's duties.
        unsafe {
            asm!("mov {fault:e}, 1", "2: wrmsr", "xor {fault:e}, {fault:e}", "3:", guarded!(),
                fault = out(reg) fault, in("ecx") msr.0, in("eax") value as u32, in("edx") (value >> 32) as u32,
                options(nostack));
        }
        if fault == 0 { Ok(()) } else { Err(GeneralProtection) }
    }
}

impl Xcrs for Processor {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a 64-bit value")]
    fn xsetbv(&self, index: u32, value: u64) -> Result<(), GeneralProtection> {
        let fault: u32;
        // SAFETY: XCRs govern states that the hypervisor does not use; the fault is caught.
        unsafe {
            asm!("mov {fault:e}, 1", "2: xsetbv", "xor {fault:e}, {fault:e}", "3:", guarded!(),
                fault = out(reg) fault, in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32,
                options(nomem, nostack));
        }
        if fault == 0 { Ok(()) } else { Err(GeneralProtection) }
    }
}

impl Ports for Processor {
    fn read(&self, port: u16, width: PortWidth) -> u32 {
        port::read(port, width)
    }

    fn write(&self, port: u16, width: PortWidth, value: u32) {
        port::write(port, width, value);
    }
}

/// Time-stamp counter, in ticks.
#[must_use]
#[inline]
pub fn time_stamp() -> u64 {
    // SAFETY: RDTSC touches no memory; CR4.TSD does not bind CPL 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits until `is_done`, but for no longer than `ticks` of the time-stamp counter; whether it is done.
pub fn wait_until(ticks: u64, is_done: impl Fn() -> bool) -> bool {
    let start = time_stamp();
    while time_stamp().wrapping_sub(start) < ticks {
        if is_done() {
            return true;
        }
        core::hint::spin_loop();
    }
    is_done()
}

impl Caches for Processor {
    fn write_back_and_invalidate(&self) {
        // SAFETY: WBINVD changes no memory contents.
        unsafe { asm!("wbinvd", options(nostack)) }
    }
}

/// Stops this processor for good. NMIs and INIT may still wake it; it goes back to sleep.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// CR2.
#[must_use]
pub fn cr2() -> u64 {
    let address;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack)) }
    address
}

/// Shuts this processor down, which most chipsets answer with a reset.
pub fn shut_down() -> ! {
    let nothing = [0u16; 5];
    // SAFETY: nothing runs here afterwards: the exception has no table to go by.
    unsafe { asm!("lidt [{}]", "int3", in(reg) &raw const nothing, options(noreturn)) }
}
