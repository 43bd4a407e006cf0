//! The end of the guest: one path, whatever led to it.
//!
//! What comes before what is said in [`ending`](super::ending). When all is undone the leader zeroes what was secret
//! ([`scrub`]) and resets the machine, by the very port write that the guest tried where there was one.

use super::ending::{Cpu, Ending, Part};
use super::power_ports::PowerControl;
use super::scrub::{self, Last, LastWrite};
use super::shutdown_status;
use crate::exit::ResetCause;
use crate::smp::cpus;
use crate::smp::percpu::{self, PerCpu};
use crate::smp::{ipi, quiesce};
use crate::summary;
use hw::apic::{Command, Destination};
use hw::bare::Processor;
use hw::bare::processor::{halt, wait_until};
use hw::{Caches, PortWidth, Ports};

/// Ticks after which a CPU that does not come is given up.
const PATIENCE: u64 = 2_000_000_000;
/// Bits of the high byte of a PM1 control register that [`PowerControl::completing`] gives.
///
/// [`PowerControl::completing`]: super::power_ports::PowerControl::completing
const SLEEP_BITS: u32 = 0x3c00;

static ENDING: Ending = Ending::new();

/// Ends the guest and resets the machine.
pub(crate) fn end_guest(cause: ResetCause) -> ! {
    log::info!("the guest ends: {cause:?}");
    let own = percpu::current();
    let Part::Leads { parked } = ENDING.end(own) else { halt() };
    log::info!("{parked} of {} other CPUs stopped", own.others());
    own.machine.devices.tell_faults();
    // While there is memory to print from: `scrub` leaves none.
    summary::print(own.machine);
    // The firmware could go on with what the guest left in memory, without us.
    shutdown_status::clear(&Processor);
    scrub::leave(last(&own.machine.policies.power, cause))
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
        quiesce::serve(self);
    }

    fn call_others(&self) {
        for cpu in cpus::all().iter().filter(|cpu| cpu.index != self.index) {
            ipi::wake(cpu);
            if !cpu.is_running() {
                // It waits for a start-up IPI, and takes this one for the guest's.
                let _ = crate::memory::host::local_apic()
                    .send(Destination::Cpu(cpu.apic_id()), Command::Startup { vector: 0 });
            }
        }
    }

    fn others(&self) -> usize {
        cpus::all().len() - 1
    }

    fn clean_up(&self) {
        self.machine.hypapp.shutdown(self.index);
    }

    fn leave_virtualization(&self) {
        self.machine.vendor.leave();
        // What this CPU zeroed is to be in memory when the machine is reset.
        Processor.write_back_and_invalidate();
        // Nobody is to wait for this CPU any more: it comes to no rendezvous again.
        self.waits_for_startup();
    }

    fn wait(&self, is_done: impl Fn() -> bool) -> bool {
        wait_until(PATIENCE, is_done)
    }
}

/// Returns how the machine is left.
fn last(power: &PowerControl, cause: ResetCause) -> Last {
    let ResetCause::Port { port, width, value } = cause else { return Last::Reset(LastWrite::default()) };
    let own = LastWrite::new(port, width, value);
    if !power.cuts_power(port, width, value) {
        return Last::Reset(own);
    }
    let mut writes = [own, LastWrite::default(), LastWrite::default()];
    for (write, (port, byte)) in writes[1..].iter_mut().zip(power.completing(port, width, value)) {
        let others = Processor.read(port, PortWidth::Word) & !SLEEP_BITS;
        *write = LastWrite::new(port, PortWidth::Word, others | u32::from(byte) << 8);
    }
    Last::PowerOff(writes)
}
