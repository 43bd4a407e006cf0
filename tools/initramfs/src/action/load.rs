//! Fork and exec on all CPUs at once.

use super::{Failure, child};
use crate::machine::Machine;

const PROCESSES_PER_CPU: usize = 50;

/// Has one worker a CPU, bound to it, start and await processes, all workers at the same time.
pub(super) fn perform(machine: &Machine) -> Result<(), Failure> {
    let mut workers = Vec::new();
    for cpu in machine.online_cpus() {
        workers.push((cpu, child::start(move || work(cpu))?));
    }
    for (cpu, worker) in workers {
        child::wait(worker).map_err(|why| format!("CPU {cpu}: {why}"))?;
    }
    Ok(())
}

fn work(cpu: usize) -> i32 {
    let outcome =
        child::bind(cpu).and_then(|()| (0..PROCESSES_PER_CPU).try_for_each(|_| child::fork_exec_wait()));
    if let Err(why) = &outcome {
        println!("xmhf-guest: CPU {cpu}: {why}");
    }
    i32::from(outcome.is_err())
}
