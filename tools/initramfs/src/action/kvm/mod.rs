//! Linux as a hypervisor: KVM and a small guest of its own, timed on one CPU, then on every CPU at once.

mod accesses;
mod machine;
mod process;

use super::pal::PROGRAMS;
use super::{Failure, child};
use crate::machine::Machine as Host;
use machine::{Block, Machine};
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::File;

/// In the order in which they need each other.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-intel"];
/// Measurements of which the least and the median count.
const ROUNDS: u64 = 101;
const FS_BASE: u64 = 0xc000_0100;

/// Loads KVM and runs its guests.
pub(super) fn perform(host: &Host) -> Result<(), Failure> {
    for module in MODULES {
        load(module).map_err(|why| format!("module {module}: {why}"))?;
    }
    let mut machine = Machine::new()?;
    machine.real_mode()?;
    for (name, block, inputs) in [
        ("l2_cpuid_kvm", Block::Cpuid, [0, 0, 0]),
        ("l2_out_kvm", Block::Out, [0, 0, 0x10]),
        ("l2_rdmsr", Block::Rdmsr, [0, FS_BASE, 0]),
        ("l2_wrmsr", Block::Wrmsr, [0, FS_BASE, 0]),
        ("l2_touch_kvm", Block::Touch, [0, 0, 0]),
    ] {
        let mut ticks = machine.measure(block, inputs, ROUNDS).map_err(|why| format!("{name}: {why}"))?;
        ticks.sort_unstable();
        println!("xmhf-guest: bench {name} ticks={} median={}", ticks[0], ticks[ticks.len() / 2]);
    }
    accesses::count(&mut machine)?;
    drop(machine);
    on_every_cpu(host)?;
    if xmhf_pal::is_present() {
        pals(&|line| println!("xmhf-guest: kvm_pal: {line}"))?;
        println!("xmhf-guest: kvm_pal ok");
    }
    Ok(())
}

/// The original's programs for a guest of a guest, each in a machine of its own, which check themselves.
fn pals(tell: &dyn Fn(&str)) -> Result<(), Failure> {
    for (program, arguments, expected) in PROGRAMS {
        let path = format!("/bin/{program}64L2");
        let end = process::run(&path, arguments)?;
        end.output.lines().for_each(|line| tell(&format!("{program} {}: {line}", arguments.join(" "))));
        if end.status != 0 || end.output != expected {
            return Err(format!("{path} ended with {}: {}", end.status, end.output.replace('\n', "|")));
        }
    }
    Ok(())
}

fn load(module: &str) -> Result<(), Failure> {
    let file = File::open(format!("/lib/{module}.ko")).map_err(|why| why.to_string())?;
    finit_module(&file, c"", ModuleInitFlags::empty()).map_err(|why| why.to_string())
}

/// A guest bound to each CPU, all at the same time.
fn on_every_cpu(host: &Host) -> Result<(), Failure> {
    let mut workers = Vec::new();
    for cpu in host.online_cpus() {
        workers.push((cpu, child::start(move || work(cpu))?));
    }
    for (cpu, worker) in workers {
        child::wait(worker).map_err(|why| format!("CPU {cpu}: {why}"))?;
        println!("xmhf-guest: kvm guest on cpu={cpu} done");
    }
    Ok(())
}

fn work(cpu: usize) -> i32 {
    let outcome = child::bind(cpu).and_then(|()| {
        let mut machine = Machine::new()?;
        machine.real_mode()?;
        for (block, inputs) in
            [(Block::Cpuid, [0, 0, 0]), (Block::Out, [0, 0, 0x10]), (Block::Touch, [0, 0, 0])]
        {
            machine.measure(block, inputs, ROUNDS)?;
        }
        drop(machine);
        if xmhf_pal::is_present() { pals(&|_| ()) } else { Ok(()) }
    });
    if let Err(why) = &outcome {
        println!("xmhf-guest: CPU {cpu}: {why}");
    }
    i32::from(outcome.is_err())
}
