//! Calls of other CPUs out of their guests, by the local APIC.

use super::percpu::PerCpu;
use super::{call, cpus};
use crate::memory::host;
use hw::apic::{Command, Destination};

/// Makes another CPU leave its guest, whatever for.
pub(crate) fn wake(cpu: &PerCpu) {
    if cpu.is_running() {
        call(cpu);
    } else {
        cpu.demand_attention();
    }
}

/// Sends an NMI whose predecessors, so many since the first, seem lost.
pub(super) fn call_again(own: &PerCpu, cpu: &PerCpu, attempt: u32) {
    log::warn!("cpu={} does not answer, NMI sent again", cpu.index);
    let others = cpus::all().iter().copied().filter(|cpu| cpu.index != own.index);
    call::call_again(cpu, others, attempt, send);
}

/// Calls `cpu`, unless it has been and not come yet.
pub(super) fn call(cpu: &PerCpu) {
    call::call(cpu, send);
}

fn send(to: Destination) {
    if host::local_apic().send(to, Command::Nmi).is_err() {
        log::warn!("{to:?} cannot be called: the local APIC takes no such command");
    }
}
