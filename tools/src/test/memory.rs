//! Start-up takes as long on the largest machine that the emulator makes as on a small one.

use super::job::{Job, Verdict};
use crate::guest::Guest;
use crate::machine::LARGEST_MEMORY_MIB;
use crate::run::{RunOptions, run};
use crate::verdict::Outcome;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const SMALL_MIB: u32 = 1024;
const PATIENCE: Duration = Duration::from_secs(300);

struct Scenario {
    name: &'static str,
}

/// One job for both machines.
pub(super) fn jobs() -> Vec<Job> {
    let scenario = Scenario { name: "start-by-memory" };
    vec![Job {
        name: format!("run/{}", scenario.name),
        group: "linux",
        seconds: 10,
        needs: None,
        work: Box::new(test),
    }]
}

fn test(folder: &Path) -> Result<Verdict> {
    let mut ticks = [None; 2];
    for (memory_mib, ticks) in [SMALL_MIB, LARGEST_MEMORY_MIB].into_iter().zip(&mut ticks) {
        let options = options(memory_mib, folder);
        let outcome = run(&options)?;
        if let Some(why) = outcome.failure() {
            return Ok(Verdict::of(Some(format!("with {memory_mib} MiB: {why}")), &outcome, &options));
        }
        *ticks = start_ticks(&outcome);
    }
    Ok(failure(ticks).map_or(Verdict::Passed, Verdict::failed))
}

fn options(memory_mib: u32, folder: &Path) -> RunOptions {
    RunOptions {
        guest: Guest::Mbr,
        cpus: 1,
        memory_mib,
        // A line of the log costs more than all else, and its numbers have more digits on a larger machine.
        arguments: "log=warn".into(),
        keep: Some(folder.join(memory_mib.to_string())),
        patience: PATIENCE,
        quiet: true,
        ..RunOptions::default()
    }
}

fn start_ticks(outcome: &Outcome) -> Option<u64> {
    outcome.summary.hypervisor.get("start_ticks").copied()
}

/// Why the ticks of the small and the large machine are no sign of a start that leaves memory alone.
fn failure(ticks: [Option<u64>; 2]) -> Option<String> {
    let [Some(small), Some(large)] = ticks else {
        return Some(format!("the summaries do not tell of the start: {ticks:?}"));
    };
    // A table or two more, and nothing for each page.
    (large > small + small / 50)
        .then(|| format!("{large} ticks with {LARGEST_MEMORY_MIB} MiB, {small} with {SMALL_MIB}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_grows_with_memory_fails() {
        assert_eq!(failure([Some(1000), Some(1020)]), None);
        assert!(failure([Some(1000), Some(1021)]).unwrap().starts_with("1021 ticks with"));
        assert!(failure([Some(1000), None]).is_some());
    }
}
