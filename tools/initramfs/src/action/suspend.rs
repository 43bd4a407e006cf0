//! Suspend to memory, which the hypervisor ends at once: the kernel has to come back with all its CPUs.

use super::Failure;
use crate::machine::Machine;
use std::fs;

/// Suspends, and checks the kernel's list of CPUs afterwards.
pub(super) fn perform(machine: &Machine) -> Result<(), Failure> {
    let all = machine.online_cpus();
    // S3 rather than a mere idling of the kernel, where it offers both.
    write("/sys/power/mem_sleep", "deep")?;
    write("/sys/power/state", "mem")?;
    let online = machine.online_cpus();
    if online == all { Ok(()) } else { Err(format!("online after the sleep: {online:?}, not {all:?}")) }
}

fn write(file: &str, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|why| format!("write {text} to {file}: {why}"))
}
