//! CPUs taken out and put back, which makes the kernel send INIT and SIPI again.

use super::Failure;
use crate::machine::Machine;
use std::fs;

const ROUNDS: usize = 5;

/// Takes every CPU but the first out and puts it back, several times, and checks the kernel's list.
pub(super) fn perform(machine: &Machine) -> Result<(), Failure> {
    let all = machine.online_cpus();
    for _ in 0..ROUNDS {
        all.iter().skip(1).try_for_each(|&cpu| switch(cpu, "0"))?;
        if machine.online_cpus() != all[..1] {
            return Err(format!("online after removal: {:?}", machine.online_cpus()));
        }
        all.iter().skip(1).try_for_each(|&cpu| switch(cpu, "1"))?;
        if machine.online_cpus() != all {
            return Err(format!("online after return: {:?}, not {all:?}", machine.online_cpus()));
        }
    }
    Ok(())
}

fn switch(cpu: usize, state: &str) -> Result<(), Failure> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    fs::write(&file, state).map_err(|why| format!("write {state} to {file}: {why}"))
}
