//! The microTPM's commands, which PALs give from inside.
//!
//! One is carried out at a time, and none for long: what takes long is done in steps, and between two of them the
//! PAL stands suspended at its VMCALL, so that its CPU takes interrupts.

use crate::command::Arguments;
use crate::memory::Machine;
use crate::state::{self, Pal};
use crate::{calls, heap, revocation};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::task::Poll;
use microtpm::{Conditioned, Credentials, Noise, PerBootRoot};
use pals::debug;
use pals::pal::State;
use pals::tpm::{MicroTpm, PalMemory, Request};
use runtime::exit::CompartmentExit;
use runtime::services::{self, private};
use runtime::vcpu::Vcpu;
use spin::Mutex;
use trustvisor::command::Command;
use trustvisor::flags::DEBUG;
use trustvisor::status::Status;

type Source = Conditioned<Processor>;

/// In private memory, as all that is secret.
static MICROTPM: Mutex<Option<Box<MicroTpm<Source>>>> = Mutex::new(None);

/// The processor's noise.
#[derive(Debug)]
pub(crate) struct Processor;

impl Noise for Processor {
    fn seed_word(&self) -> Option<u64> {
        services::seed_word()
    }

    fn random_word(&self) -> Option<u64> {
        services::random_word()
    }

    fn time(&self) -> u64 {
        services::time_stamp()
    }
}

/// Draws this boot's secret. Where there is no entropy, everything but the microTPM works.
pub(crate) fn start() {
    let root = &mut PerBootRoot(Conditioned(Processor));
    #[expect(clippy::disallowed_methods, reason = "at boot")]
    let made = heap::of_microtpm(|| MicroTpm::new(root, Conditioned(Processor)).map(Box::new));
    match made {
        Ok(microtpm) => *MICROTPM.lock() = Some(microtpm),
        Err(_) => log::warn!("no entropy: PALs have no microTPM"),
    }
    private::wipe_stack();
}

/// Forgets every secret: the guest's end. No guest code runs any more.
pub(crate) fn end() {
    *MICROTPM.lock() = None;
}

/// Carries out a command of the PAL that runs on `vcpu`. Where there is more to do, the PAL is suspended, and gives the
/// command again.
pub(crate) fn answer(
    vcpu: &mut dyn Vcpu,
    command: Command,
    arguments: &Arguments,
) -> Poll<Result<(), Status>> {
    // Cloned, as to suspend the call below takes the same lock.
    let running = state::running(vcpu.index()).and_then(|running| Some(running.lock().as_ref()?.pal.clone()));
    let Some(pal) = running else { return Poll::Ready(Err(Status::NOT_IN_PAL)) };
    let outcome = carry_out(&pal, command, arguments);
    private::wipe_stack();
    if outcome.is_pending() {
        calls::compartment_exit(vcpu, CompartmentExit::TimeOver);
    }
    outcome
}

/// Has the PAL that runs on `vcpu` print, if it may.
pub(crate) fn print(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Status> {
    let running = state::running(vcpu.index()).and_then(|running| Some(running.lock().as_ref()?.pal.clone()));
    let pal = running.ok_or(Status::NOT_IN_PAL)?;
    let line = debug::line(&pal.lock().layout, &Machine, arguments.ecx, arguments.edx)?;
    log::info!("pal={} says: {line}", pal.number);
    Ok(())
}

fn carry_out(pal: &Arc<Pal>, command: Command, arguments: &Arguments) -> Poll<Result<(), Status>> {
    // Before the microTPM is taken: these are steps of this PAL's alone, and others go on meanwhile.
    if revocation::measure(pal) || revocation::verify(pal) {
        return Poll::Pending;
    }
    // Another CPU's command: waiting for it would keep this CPU's interrupts waiting.
    let Some(mut microtpm) = MICROTPM.try_lock() else { return Poll::Pending };
    let microtpm = microtpm.as_mut().ok_or(Status::INSUFFICIENT_ENTROPY)?;
    heap::of_microtpm(|| carry_out_with(microtpm, pal, command, arguments))
}

fn carry_out_with(
    microtpm: &mut MicroTpm<Source>,
    pal: &Pal,
    command: Command,
    arguments: &Arguments,
) -> Poll<Result<(), Status>> {
    let mut inner = pal.lock();
    let inner = &mut *inner;
    if !matches!(inner.state, State::Running(_)) {
        // Revoked by another CPU: this one is about to learn of it.
        return Poll::Pending;
    }
    let measurement = inner.belongings.measurement.as_mut().ok_or(Status::OTHER)?;
    let credentials =
        Credentials { is_debug: inner.layout.flags & DEBUG != 0, signer: measurement.signing.signer()? };
    let Some(banks) = measurement.banks(&inner.layout) else { return Poll::Pending };
    let memory = PalMemory { layout: &inner.layout, pages: &Machine };
    let Arguments { ecx, edx, esi, edi, .. } = *arguments;
    let request = Request { command, ecx, edx, esi, edi };
    microtpm.carry_out(&request, banks, &credentials, &memory)
}
