//! The end of the guest: one path, whatever led to it.
//!
//! What comes before what is said in [`ending`](crate::ending). When all is undone the leader resets the
//! machine, by the very port write that the guest tried where there was one.

use crate::ending::{Cpu, Ending, Part};
use crate::exit::ResetCause;
use crate::machine;
use crate::smp::percpu::{self, PerCpu};
use crate::smp::quiesce;
use crate::{summary, vmx};
use hw::bare::Processor;
use hw::bare::apic::Command;
use hw::bare::processor::{halt, wait_until};
use hw::{PortWidth, Ports};

const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE_RESET: u32 = 0xfe;
const RESET_CONTROL: u16 = 0xcf9;
const FULL_RESET: u32 = 0x06;
/// Ticks after which a CPU that does not come is given up.
const PATIENCE: u64 = 2_000_000_000;
/// Ticks after which a reset has not happened: tens of milliseconds.
const RESET_PATIENCE: u64 = 200_000_000;

static ENDING: Ending = Ending::new();

/// Ends the guest and resets the machine.
pub(crate) fn end_guest(cause: ResetCause) -> ! {
    log::info!("the guest ends: {cause:?}");
    let own = percpu::current();
    let Part::Leads { parked } = ENDING.end(own) else { halt() };
    log::info!("{parked} of {} other CPUs stopped", own.others());
    summary::print();
    reset_machine(cause)
}

/// Parks this CPU if the guest ends.
pub(crate) fn attend(cpu: &PerCpu) {
    if ENDING.attend(cpu) {
        halt();
    }
}

impl Cpu for PerCpu {
    fn rendezvous(&self, act: impl FnOnce()) {
        quiesce::quiesce(|_| act());
    }

    fn join(&self) {
        quiesce::join(self);
    }

    fn call_others(&self) {
        for cpu in machine::cpus().iter().filter(|cpu| cpu.index != self.index) {
            quiesce::wake(cpu);
            if !cpu.is_running() {
                // It waits for a start-up IPI, and takes this one for the guest's.
                let _ = crate::memory::host::local_apic().send(cpu.apic_id, Command::Startup { vector: 0 });
            }
        }
    }

    fn others(&self) -> usize {
        machine::cpus().len() - 1
    }

    fn clean_up(&self) {
        machine::hypapp().shutdown(self.index);
    }

    fn leave_virtualization(&self) {
        vmx::leave_vmx();
        self.waits_for_startup();
    }

    fn wait(&self, is_done: impl Fn() -> bool) -> bool {
        wait_until(PATIENCE, is_done)
    }
}

fn reset_machine(cause: ResetCause) -> ! {
    if let ResetCause::Port { port, width, value } = cause {
        Processor.write(port, width, value);
        if machine::power().cuts_power(port, width, value) {
            // However long it takes: who switches a machine off does not want it to start again.
            halt();
        }
        wait_until(RESET_PATIENCE, || false);
    }
    Processor.write(KEYBOARD_COMMAND, PortWidth::Byte, PULSE_RESET);
    wait_until(RESET_PATIENCE, || false);
    Processor.write(RESET_CONTROL, PortWidth::Byte, FULL_RESET);
    wait_until(RESET_PATIENCE, || false);
    hw::bare::processor::shut_down()
}
