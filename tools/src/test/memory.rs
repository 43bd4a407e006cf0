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
    let mut starts = [None; 2];
    for (memory_mib, start) in [SMALL_MIB, LARGEST_MEMORY_MIB].into_iter().zip(&mut starts) {
        let options = options(memory_mib, folder);
        let outcome = run(&options)?;
        if let Some(why) = outcome.failure() {
            return Ok(Verdict::of(Some(format!("with {memory_mib} MiB: {why}")), &outcome, &options));
        }
        *start = Start::of(&outcome);
    }
    Ok(failure(starts).map_or(Verdict::Passed, Verdict::failed))
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

/// What a machine's summary tells of the start.
#[derive(Clone, Copy, Debug)]
struct Start {
    ticks: u64,
    hidden_bytes: u64,
}

impl Start {
    fn of(outcome: &Outcome) -> Option<Self> {
        let figure = |name| outcome.summary.hypervisor.get(name).copied();
        Some(Self { ticks: figure("start_ticks")?, hidden_bytes: figure("hidden_bytes")? })
    }
}

/// Why the starts of the small and the large machine are no sign of a start that leaves the guest's memory alone.
fn failure(starts: [Option<Start>; 2]) -> Option<String> {
    let [Some(small), Some(large)] = starts else {
        return Some(format!("the summaries do not tell of the start: {starts:?}"));
    };
    // The hypervisor's own memory is zeroed, eight bytes a tick, and its pool grows up to a limit. Beside that there
    // is a table or two more, and nothing for each page.
    let zeroing = large.hidden_bytes.saturating_sub(small.hidden_bytes) / 8;
    (large.ticks > small.ticks + small.ticks / 50 + zeroing)
        .then(|| format!("{large:?} with {LARGEST_MEMORY_MIB} MiB, {small:?} with {SMALL_MIB}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_grows_with_memory_fails() {
        let start = |ticks, hidden_bytes| Some(Start { ticks, hidden_bytes });
        assert_eq!(failure([start(1000, 800), start(1020, 800)]), None);
        assert!(failure([start(1000, 800), start(1021, 800)]).unwrap().starts_with("Start { ticks: 1021"));
        assert_eq!(failure([start(1000, 800), start(1120, 1600)]), None);
        assert!(failure([start(1000, 800), start(1121, 1600)]).is_some());
        assert!(failure([start(1000, 800), None]).is_some());
    }
}
