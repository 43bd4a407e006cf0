//! The first entry into the guest, on each CPU.
//!
//! UNSAFETY: enters the guest for the first time.
#![expect(unsafe_code, reason = "enters the guest")]

use super::setup;
use crate::features;
use crate::memory::host;
use crate::smp::percpu::PerCpu;
use crate::smp::startup;
use crate::speculation::Mitigations;
use crate::vmx::vm_entry;
use core::sync::atomic::Ordering;
use hw::bare::processor::{halt, time_stamp};
use hw::bare::{Processor, address_space};

/// Enters the guest at its boot sector, behind `finish`. Never returns: the guest's exits come to [`handle_exit`](super::run::handle_exit).
pub(crate) fn run_bootstrap_processor(cpu: &'static PerCpu, finish: &mut dyn FnMut()) -> ! {
    let registers = match setup::set_up(cpu) {
        Ok(registers) => registers,
        Err(error) => panic!("cpu={} cannot run a guest: {error:?}", cpu.index),
    };
    cpu.runs_again();
    cpu.is_ready.store(true, Ordering::SeqCst);
    // After `set_up`, which asks CPUID for leaves that the firmware may have hidden.
    finish();
    log::info!("stage=guest");
    crate::log::end_boot();
    cpu.first_entry.store(time_stamp(), Ordering::Relaxed);
    // SAFETY: `set_up` completed the VMCS and returned this CPU's register place.
    unsafe { vm_entry::launch(registers) }
}

/// Waits, as a guest, for the guest's start-up IPI.
pub(crate) fn run_application_processor(cpu: &'static PerCpu) -> ! {
    host::follow_apic();
    cpu.set_mtrrs();
    // While CPUID is asked for what this CPU has: the firmware may have limited it, and the guest finds that again.
    let limit = features::show_all_leaves(&Processor);
    cpu.crossing.start(Mitigations::of(&Processor, &Processor), &Processor);
    let result = setup::set_up(cpu);
    features::limit_cpuid_again(&Processor, limit);
    match result {
        Ok(registers) => {
            cpu.is_ready.store(true, Ordering::SeqCst);
            startup::await_finish();
            address_space::invalidate_all();
            // SAFETY: as on the bootstrap processor.
            unsafe { vm_entry::launch(registers) }
        }
        Err(error) => {
            log::error!("cpu={} cannot run a guest: {error:?}", cpu.index);
            halt()
        }
    }
}
