//! Every bare guest, without the hypervisor and with it: what it expects has to hold in both.
//!
//! `tools/emulator-faults.txt` lists guests whose expectations the emulator itself does not meet.

use super::job::{Job, Verdict};
use crate::backtrace;
use crate::bare_guest::{self, BareGuest};
use crate::guest::Guest;
use crate::machine::Quirks;
use crate::run::{RunOptions, run};
use crate::stage::Origin;
use crate::verdict::Outcome;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

const FAULTS: &str = include_str!("../../emulator-faults.txt");
const TIMEOUT: Duration = Duration::from_secs(180);

/// One job for each guest.
///
/// # Errors
///
/// A guest's first lines, or the list of the emulator's faults, cannot be understood.
pub(super) fn jobs() -> Result<Vec<Job>> {
    let guests = bare_guest::find()?;
    let faults = faults(FAULTS)?;
    for (name, _) in &faults {
        ensure!(
            guests.iter().any(|guest| guest.name == *name),
            "emulator-faults.txt: no guest is called {name}"
        );
    }
    let job = |guest: BareGuest| {
        let fault = faults.iter().find(|(name, _)| *name == guest.name).map(|(_, why)| (*why).to_owned());
        Job {
            name: format!("guest/{}", guest.name),
            group: "bare",
            seconds: 5 * guest.cpus,
            work: Box::new(move |folder| test(&guest, fault.as_deref(), folder)),
        }
    };
    Ok(guests.into_iter().map(job).collect())
}

/// Guest's name and the emulator's fault, of every line `NAME: why`.
fn faults(list: &str) -> Result<Vec<(&str, &str)>> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| line.split_once(": ").with_context(|| format!("emulator-faults.txt: `{line}`")))
        .collect()
}

fn test(guest: &BareGuest, fault: Option<&str>, folder: &Path) -> Result<Verdict> {
    let mut runs = Vec::new();
    for bare in [true, false] {
        if if bare { guest.runs_bare } else { guest.runs_under_hypervisor } {
            let options = options(guest, bare, folder);
            let outcome = run(&options)?;
            runs.push((failure(guest, &outcome, bare), outcome, options));
        }
    }
    if let Some(fault) = fault {
        return Ok(known(fault, &runs));
    }
    let Some((why, outcome, options)) = runs.into_iter().find(|(why, ..)| why.is_some()) else {
        return Ok(Verdict::Passed);
    };
    let place = if options.bare { "without the hypervisor" } else { "under the hypervisor" };
    Ok(Verdict::of(why.map(|why| format!("{place}: {why}")), &outcome, &options))
}

/// The verdict on a guest that the emulator is known to fail.
fn known(fault: &str, runs: &[(Option<String>, Outcome, RunOptions)]) -> Verdict {
    let Some((_, bare, _)) = runs.iter().find(|(why, _, options)| options.bare && why.is_some()) else {
        return Verdict::failed("listed in emulator-faults.txt, but it does not fail without the hypervisor");
    };
    for (why, outcome, options) in runs {
        let same = why.is_some() && outcome.summary.failures == bare.summary.failures;
        if !same {
            let why = why.as_deref().unwrap_or("passes");
            let why =
                format!("fails without the hypervisor ({fault}) but not in the same way with it: {why}");
            return Verdict::of(Some(why), outcome, options);
        }
    }
    Verdict::Skipped(format!("the emulator is wrong: {fault}"))
}

fn options(guest: &BareGuest, bare: bool, folder: &Path) -> RunOptions {
    RunOptions {
        guest: Guest::Bare(guest.name.clone()),
        cpus: guest.cpus,
        memory_mib: guest.memory_mib,
        cpu_model: guest.cpu_model.clone(),
        quirks: Quirks {
            resets_on_triple_fault: guest.resets,
            faults_on_unknown_msrs: !guest.ignores_unknown_msrs,
            ..Quirks::default()
        },
        hypapp: guest.hypapp.clone(),
        arguments: guest.arguments.clone(),
        bare,
        keep: Some(folder.join(if bare { "bare" } else { "xmhf" })),
        timeout: TIMEOUT,
        quiet: true,
        ..RunOptions::default()
    }
}

/// Why this run shows that something is wrong.
fn failure(guest: &BareGuest, outcome: &Outcome, bare: bool) -> Option<String> {
    if guest.expects_stop() {
        return missing(guest, outcome).or_else(|| nameless_backtrace(guest, outcome));
    }
    if let Some(why) = outcome.failure() {
        return Some(why);
    }
    let verdict = format!("PASS {} ", guest.name);
    if !said(outcome, Origin::Guest, &verdict) {
        return Some(format!("the guest did not print `{}`", verdict.trim_end()));
    }
    if bare {
        return None;
    }
    if outcome.summary.hypervisor.get("cpus") != Some(&guest.cpus.into()) {
        return Some(format!("the hypervisor's summary does not tell of {} CPUs", guest.cpus));
    }
    missing(guest, outcome)
}

/// What the hypervisor should have printed and did not.
fn missing(guest: &BareGuest, outcome: &Outcome) -> Option<String> {
    let mut expected = guest.expected_of_hypervisor.iter();
    let missing = expected.find(|words| !said(outcome, Origin::Hypervisor, words))?;
    Some(format!("the hypervisor did not print `{missing}`"))
}

/// Whether the symbols say nothing about the backtrace of a stop.
fn nameless_backtrace(guest: &BareGuest, outcome: &Outcome) -> Option<String> {
    let lines = backtrace::of(outcome, &guest.hypapp);
    let is_named = lines.iter().any(|line| line.contains(" at ") && !line.contains("??"));
    (!is_named).then(|| "the symbols name no function of the backtrace".into())
}

fn said(outcome: &Outcome, origin: Origin, words: &str) -> bool {
    outcome.lines.iter().any(|(from, line)| *from == origin && line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::End;

    fn guest() -> BareGuest {
        BareGuest::from_source("hello", "//! Title.\n//! expect-hypervisor: hello, world\n").unwrap()
    }

    fn outcome(bare: bool, guest: &[&str], hypervisor: &[&str]) -> Outcome {
        let mut outcome = Outcome::new(bare);
        for line in hypervisor {
            outcome.read_line(Origin::Hypervisor, line, false);
        }
        for line in guest {
            outcome.read_line(Origin::Guest, line, line.contains("FAIL "));
        }
        outcome.finish(End::Off, true, Duration::ZERO);
        outcome
    }

    const PASS: &str = "xmhf-guest: PASS hello checks=3";

    #[test]
    fn the_guest_and_the_hypervisor_both_have_to_speak() {
        let why = |lines: &[&str]| failure(&guest(), &outcome(false, &[PASS], lines), false);
        assert_eq!(why(&["summary cpus=1", "cpu=0 hello, world"]), None);
        assert_eq!(why(&["summary cpus=1"]).unwrap(), "the hypervisor did not print `hello, world`");
        assert!(why(&["hello, world"]).unwrap().contains("summary"));
        assert!(why(&["summary cpus=2", "hello, world"]).unwrap().contains("1 CPUs"));
        assert!(why(&["stop: runtime: broken", "summary cpus=1"]).unwrap().contains("stop: runtime: broken"));
        let other = failure(&guest(), &outcome(true, &["xmhf-guest: PASS other checks=3"], &[]), true);
        assert_eq!(other.unwrap(), "the guest did not print `PASS hello`");
    }

    #[test]
    fn a_known_fault_has_to_show_both_times_alike() {
        let verdict = |bare: &str, under: &str| {
            let run = |bare, line: &str| {
                let outcome = outcome(bare, &[line], &["summary cpus=1", "hello, world"]);
                (failure(&guest(), &outcome, bare), outcome, options(&guest(), bare, Path::new("/")))
            };
            known("why", &[run(true, bare), run(false, under)])
        };
        assert_eq!(
            verdict("FAIL hello: a", "FAIL hello: a"),
            Verdict::Skipped("the emulator is wrong: why".into())
        );
        assert!(matches!(verdict("FAIL hello: a", "FAIL hello: b"), Verdict::Failed { .. }));
        assert!(matches!(verdict("FAIL hello: a", PASS), Verdict::Failed { .. }));
        assert!(matches!(verdict(PASS, PASS), Verdict::Failed { .. }));
    }

    #[test]
    fn every_listed_fault_names_a_guest() {
        assert!(faults("# comment\n\nhello: why: because\n").unwrap() == [("hello", "why: because")]);
        assert!(faults("hello\n").is_err());
        jobs().unwrap();
    }
}
