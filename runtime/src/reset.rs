//! The end of the guest: one path, whatever led to it.
//!
//! The first CPU that finds the guest at its end leads. It calls every other CPU out of its guest; each
//! runs the hypapp's clean-up and leaves VMX operation only when no guest code runs anywhere. Then the
//! leader resets the machine, by the very port write that the guest tried where there was one.

use crate::exit::ResetCause;
use crate::machine;
use crate::smp::percpu::{self, PerCpu};
use crate::smp::quiesce;
use crate::{summary, vmx};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hw::bare::Processor;
use hw::bare::apic::Command;
use hw::bare::processor::{halt, time_stamp};
use hw::{PortWidth, Ports};

const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE_RESET: u32 = 0xfe;
const RESET_CONTROL: u16 = 0xcf9;
const FULL_RESET: u32 = 0x06;
/// Ticks after which a CPU that does not come is given up, or a reset that does not happen.
const PATIENCE: u64 = 2_000_000_000;

static IS_LED: AtomicBool = AtomicBool::new(false);
static IS_ENDING: AtomicBool = AtomicBool::new(false);
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// Ends the guest and resets the machine.
pub(crate) fn end_guest(cause: ResetCause) -> ! {
    let own = percpu::current();
    if IS_LED.swap(true, Ordering::SeqCst) {
        park_when_told(own);
    }
    log::info!("the guest ends: {cause:?}");
    // Behind this every CPU that ran guest code stands in the hypervisor, and looks at `IS_ENDING` before
    // it could enter again.
    quiesce::quiesce(|_| IS_ENDING.store(true, Ordering::SeqCst));
    let others = || machine::cpus().iter().filter(|cpu| cpu.index != own.index);
    for cpu in others() {
        quiesce::wake(cpu);
        if !cpu.is_running.load(Ordering::SeqCst) {
            // It waits for a start-up IPI, and takes this one for the guest's.
            let _ = crate::memory::host::local_apic().send(cpu.apic_id, Command::Startup { vector: 0 });
        }
    }
    let is_alone = || {
        // A CPU that was about to call for a rendezvous of its own waits for this one before it parks.
        quiesce::join(own);
        PARKED.load(Ordering::SeqCst) == others().count()
    };
    if !wait(is_alone) {
        log::warn!("{} of {} other CPUs stopped", PARKED.load(Ordering::SeqCst), others().count());
    }
    machine::hypapp().shutdown(own.index);
    summary::print();
    vmx::leave_vmx();
    reset_machine(cause)
}

/// Parks this CPU if the guest ends.
pub(crate) fn attend(cpu: &PerCpu) {
    if IS_ENDING.load(Ordering::SeqCst) {
        park(cpu);
    }
}

fn park_when_told(cpu: &PerCpu) -> ! {
    while !IS_ENDING.load(Ordering::SeqCst) {
        quiesce::join(cpu);
        core::hint::spin_loop();
    }
    park(cpu)
}

fn park(cpu: &PerCpu) -> ! {
    machine::hypapp().shutdown(cpu.index);
    vmx::leave_vmx();
    cpu.is_running.store(false, Ordering::SeqCst);
    PARKED.fetch_add(1, Ordering::SeqCst);
    halt()
}

fn reset_machine(cause: ResetCause) -> ! {
    if let ResetCause::Port { port, width, value } = cause {
        Processor.write(port, width, value);
        wait(|| false);
    }
    Processor.write(KEYBOARD_COMMAND, PortWidth::Byte, PULSE_RESET);
    wait(|| false);
    Processor.write(RESET_CONTROL, PortWidth::Byte, FULL_RESET);
    wait(|| false);
    hw::bare::processor::shut_down()
}

fn wait(is_done: impl Fn() -> bool) -> bool {
    let start = time_stamp();
    while time_stamp().wrapping_sub(start) < PATIENCE {
        if is_done() {
            return true;
        }
        core::hint::spin_loop();
    }
    is_done()
}
