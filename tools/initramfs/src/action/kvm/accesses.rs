//! VMREADs and VMWRITEs of the hypervisor beneath, where it counts them: for an exit to KVM and the entry behind it.

use super::super::Failure;
use super::machine::{Block, Machine};
use std::arch::x86_64::__cpuid_count;

/// CPUID leaf that tells both counts.
const LEAF: u32 = u32::from_le_bytes(*b"VMCS");
/// Exits of a short run, and of a long one.
const ROUNDS: [u32; 2] = [101, 1101];
const ATTEMPTS: usize = 5;

/// Prints both numbers, where there is a count.
pub(super) fn count(machine: &mut Machine) -> Result<(), Failure> {
    if so_far().is_none() {
        return Ok(());
    }
    let [short, long] = ROUNDS.map(|rounds| of_run(machine, rounds));
    let exits = ROUNDS[1] - ROUNDS[0];
    for ((kind, short), long) in ["vmreads", "vmwrites"].into_iter().zip(short?).zip(long?) {
        println!("xmhf-guest: bench l2_cpuid_kvm_{kind} ticks={}", long.saturating_sub(short) / exits);
    }
    Ok(())
}

fn so_far() -> Option<[u32; 2]> {
    let answer = __cpuid_count(LEAF, 0);
    (answer.edx == LEAF).then_some([answer.eax, answer.ebx])
}

/// The least of several runs: interrupts and new pages come on top.
fn of_run(machine: &mut Machine, rounds: u32) -> Result<[u32; 2], Failure> {
    let mut least = [u32::MAX; 2];
    for _ in 0..ATTEMPTS {
        let before = so_far().unwrap_or_default();
        machine.measure(Block::Cpuid, [0; 3], rounds.into())?;
        let after = so_far().unwrap_or_default();
        for (least, (after, before)) in least.iter_mut().zip(after.into_iter().zip(before)) {
            *least = after.wrapping_sub(before).min(*least);
        }
    }
    Ok(least)
}
