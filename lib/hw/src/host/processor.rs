//! The processor that a thread is.

use super::{Act, did, own};
use crate::{Barriers, Caches, Cpuid, GeneralProtection, Msrs, PortWidth, Ports, Xcrs};
use x86::cpuid::CpuidResult;
use x86::msr::{GuestMsr, Msr};

/// The processor that executes this code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor;

impl Cpuid for Processor {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        own(|cpu| cpu.cpuid.cpuid(leaf, subleaf))
    }
}

impl Msrs for Processor {
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        own(|cpu| cpu.msrs.read(msr))
    }

    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
        own(|cpu| cpu.msrs.write(msr.msr(), value))
    }

    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        own(|cpu| cpu.msrs.write(msr, value))
    }
}

impl Xcrs for Processor {
    fn xsetbv(&self, index: u32, value: u64) -> Result<(), GeneralProtection> {
        own(|cpu| cpu.xcrs.xsetbv(index, value))
    }
}

impl Ports for Processor {
    fn read(&self, port: u16, width: PortWidth) -> u32 {
        own(|cpu| cpu.ports.read(port, width))
    }

    fn write(&self, port: u16, width: PortWidth, value: u32) {
        own(|cpu| cpu.ports.write(port, width, value));
    }
}

impl Barriers for Processor {
    fn fill_return_stack(&self) {
        did(Act::FillReturnStack);
    }

    fn overwrite_buffers(&self) {
        did(Act::OverwriteBuffers);
    }
}

impl Caches for Processor {
    fn write_back_and_invalidate(&self) {
        did(Act::WriteBack);
    }
}

/// Time-stamp counter, in ticks.
#[must_use]
pub fn time_stamp() -> u64 {
    // SAFETY: RDTSC touches no memory, and programs of a host may execute it.
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

/// Ends the thread, as nothing runs on a processor that halts.
pub fn halt() -> ! {
    panic!("this CPU halts")
}

/// CR2.
#[must_use]
pub const fn cr2() -> u64 {
    0
}

/// Ends the thread.
pub fn shut_down() -> ! {
    panic!("this CPU shuts down")
}
