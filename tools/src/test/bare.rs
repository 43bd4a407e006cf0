//! Every bare guest, without the hypervisor and with it: what it expects has to hold in both.
//!
//! `tools/emulator-faults.txt` lists the checks that the emulator itself does not meet.

use super::job::{Job, Needs, Verdict};
use crate::backtrace;
use crate::bare_guest::{self, BareGuest};
use crate::guest::Guest;
use crate::machine::Quirks;
use crate::run::{RunOptions, run};
use crate::stage::Origin;
use crate::summary::cpus;
use crate::verdict::{End, Outcome};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

/// The group of these tests.
pub(super) const GROUP: &str = "bare";
const FAULTS: &str = include_str!("../../emulator-faults.txt");
const PATIENCE: Duration = Duration::from_secs(180);

/// A check that the emulator does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault<'a> {
    guest: &'a str,
    /// Words of the check's line.
    words: &'a str,
}

/// Machines that the bare guests run on instead of those that they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machines {
    /// Model of processor.
    pub model: Option<String>,
    /// CPUs, for guests that want several.
    pub cpus: Option<u32>,
}

/// One job for each guest, on `machines` where these say something, else on the guest's own; where they say how many
/// CPUs there are, for each guest that wants several.
///
/// # Errors
///
/// A guest's first lines, or the list of the emulator's faults, cannot be understood.
pub(super) fn jobs(machines: &Machines) -> Result<Vec<Job>> {
    let guests = bare_guest::find()?;
    let faults = faults(FAULTS)?;
    for Fault { guest: name, .. } in &faults {
        let is_bare = guests.iter().any(|guest| guest.name == *name && guest.runs_bare);
        ensure!(is_bare, "emulator-faults.txt: no guest that runs bare is called {name}");
    }
    let job = |guest: BareGuest| {
        let (guest, machines) = (on(guest, machines), machines.clone());
        let faults: Vec<_> = faults.iter().filter(|fault| fault.guest == guest.name).copied().collect();
        Job {
            name: format!("guest/{}", guest.name),
            group: GROUP,
            seconds: 5 * guest.cpus,
            needs: Some(Needs { guest: guest.name.clone(), hypapp: guest.hypapp.clone() }),
            work: Box::new(move |folder| test(&guest, &faults, &machines, folder)),
        }
    };
    // One that runs in neither way is a whole boot's.
    let runs = |guest: &BareGuest| {
        (guest.runs_bare || guest.runs_under_hypervisor)
            && machines.cpus.is_none_or(|cpus| suits(guest, cpus))
    };
    Ok(guests.into_iter().filter(runs).map(job).collect())
}

/// Whether a machine of `cpus` CPUs shows something of the guest that its own does not, or is its own.
const fn suits(guest: &BareGuest, cpus: u32) -> bool {
    guest.cpus > 1 && (!guest.cpus_are_exact || guest.cpus == cpus)
}

/// The emulator's fault of every line `NAME: WORDS: why`.
fn faults(list: &'static str) -> Result<Vec<Fault<'static>>> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let fault = |line: &'static str| -> Option<Fault<'static>> {
        let (guest, rest) = line.split_once(": ")?;
        let (words, _) = rest.split_once(": ")?;
        Some(Fault { guest, words })
    };
    lines.map(|line| fault(line).with_context(|| format!("emulator-faults.txt: `{line}`"))).collect()
}

/// The guest on `machines`.
fn on(guest: BareGuest, machines: &Machines) -> BareGuest {
    BareGuest {
        cpu_model: machines.model.clone().or(guest.cpu_model),
        cpus: machines.cpus.filter(|_| guest.cpus > 1).unwrap_or(guest.cpus),
        ..guest
    }
}

/// On the machine that the guest asks for each of the emulator's faults has to show, and the processor has to have what
/// the guest is about.
fn test(guest: &BareGuest, faults: &[Fault<'_>], machines: &Machines, folder: &Path) -> Result<Verdict> {
    let is_own = *machines == Machines::default();
    for bare in [true, false] {
        if if bare { guest.runs_bare } else { guest.runs_under_hypervisor } {
            let options = options(guest, bare, folder);
            let mut outcome = run(&options)?;
            let unseen = forgive(&mut outcome, faults);
            let unseen = unseen.filter(|_| bare && is_own).map(|fault| {
                format!(
                    "emulator-faults.txt lists `{}`, which does not fail without the hypervisor",
                    fault.words
                )
            });
            if let Some(lack) = lack(guest, &outcome).filter(|_| machines.model.is_some()) {
                return Ok(Verdict::Skipped(lack));
            }
            if let Some(why) = unseen.or_else(|| failure(guest, &outcome, bare)) {
                let place = if bare { "without the hypervisor" } else { "under the hypervisor" };
                return Ok(Verdict::of(Some(format!("{place}: {why}")), &outcome, &options));
            }
        }
    }
    Ok(Verdict::Passed)
}

/// Takes the checks that the emulator is known to fail out of what the guest complained of, and gives a fault
/// that did not show. Where nothing else failed the guest's verdict counts as a good one.
fn forgive<'a>(outcome: &mut Outcome, faults: &'a [Fault<'a>]) -> Option<&'a Fault<'a>> {
    let failures = &mut outcome.summary.failures;
    let unseen = faults.iter().find(|fault| !failures.iter().any(|line| line.contains(fault.words)));
    let before = failures.len();
    failures.retain(|line| !faults.iter().any(|fault| line.contains(fault.words)));
    let forgiven = before - failures.len();
    if let [verdict] = failures.as_slice()
        && forgiven > 0
        && verdict.contains(&format!(": {forgiven} of "))
        && verdict.ends_with(" checks failed")
    {
        failures.clear();
        outcome.marked = true;
    }
    unseen
}

/// What the processor does not have, where the guest has complained of that alone.
fn lack(guest: &BareGuest, outcome: &Outcome) -> Option<String> {
    let [verdict] = outcome.summary.failures.as_slice() else { return None };
    let (_, lack) = verdict.split_once(&format!("FAIL {}: the processor has no ", guest.name))?;
    Some(format!("{} has no {lack}", guest.cpu_model.as_deref().unwrap_or("the processor")))
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
            has_devices: guest.has_devices,
            ..Quirks::default()
        },
        hypapp: guest.hypapp.clone(),
        arguments: guest.arguments.clone(),
        bare,
        keep: Some(folder.join(if bare { "bare" } else { "xmhf" })),
        patience: PATIENCE,
        quiet: true,
        ..RunOptions::default()
    }
}

/// Why this run shows that something is wrong.
fn failure(guest: &BareGuest, outcome: &Outcome, bare: bool) -> Option<String> {
    if guest.expects_stop() {
        let goes_on =
            || (outcome.end != Some(End::GaveUp)).then(|| "the machine goes on behind the stop".into());
        return missing(guest, outcome).or_else(|| nameless_backtrace(guest, outcome)).or_else(goes_on);
    }
    if let Some(why) = outcome.failure() {
        return Some(why);
    }
    // A verdict of FAIL that is still here was forgiven.
    let verdicts = [format!("PASS {} ", guest.name), format!("FAIL {}: ", guest.name)];
    if !verdicts.iter().any(|verdict| said(outcome, Origin::Guest, verdict)) {
        return Some(format!("the guest did not print `{}`", verdicts[0].trim_end()));
    }
    if bare {
        return None;
    }
    if outcome.summary.hypervisor.get("cpus") != Some(&guest.cpus.into()) {
        return Some(format!("the hypervisor's summary does not tell of {}", cpus(guest.cpus)));
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
    fn a_guest_may_say_that_the_processor_lacks_what_it_is_about() {
        let guest = BareGuest { cpu_model: Some("pentium".into()), ..guest() };
        let lack_of = |lines: &[&str]| lack(&guest, &outcome(true, lines, &[]));
        let alone = "xmhf-guest: FAIL hello: the processor has no shadow stacks";
        assert_eq!(lack_of(&[alone]).as_deref(), Some("pentium has no shadow stacks"));
        assert!(failure(&guest, &outcome(true, &[alone], &[]), true).is_some());
        assert_eq!(lack_of(&[PASS]), None);
        assert_eq!(lack_of(&["xmhf-guest: FAIL hello: 1 of 3 checks failed"]), None);
        assert_eq!(lack_of(&[alone, "xmhf-guest: FAIL hello: 1 of 3 checks failed"]), None);
    }

    #[test]
    fn the_guest_and_the_hypervisor_both_have_to_speak() {
        let why = |lines: &[&str]| failure(&guest(), &outcome(false, &[PASS], lines), false);
        assert_eq!(why(&["summary cpus=1", "cpu=0 hello, world"]), None);
        assert_eq!(why(&["summary cpus=1"]).unwrap(), "the hypervisor did not print `hello, world`");
        assert!(why(&["hello, world"]).unwrap().contains("summary"));
        assert!(why(&["summary cpus=2", "hello, world"]).unwrap().contains("of 1 CPU"));
        assert!(why(&["stop: runtime: broken", "summary cpus=1"]).unwrap().contains("stop: runtime: broken"));
        let other = failure(&guest(), &outcome(true, &["xmhf-guest: PASS other checks=3"], &[]), true);
        assert_eq!(other.unwrap(), "the guest did not print `PASS hello`");
    }

    #[test]
    fn a_listed_failure_is_forgiven_and_no_other() {
        let faults = [Fault { guest: "hello", words: "odd thing" }];
        let forgiven = |lines: &[&str]| {
            let mut outcome = outcome(true, lines, &[]);
            let unseen = forgive(&mut outcome, &faults).is_some();
            (unseen, failure(&guest(), &outcome, true).is_none())
        };
        let odd = "xmhf-guest: check failed: odd thing: seen 1, expected 2";
        let other = "xmhf-guest: check failed: other thing: seen 1, expected 2";
        assert_eq!(forgiven(&[odd, "xmhf-guest: FAIL hello: 1 of 3 checks failed"]), (false, true));
        assert_eq!(forgiven(&[odd, "xmhf-guest: FAIL hello: 2 of 3 checks failed"]), (false, false));
        assert_eq!(forgiven(&[odd, other, "xmhf-guest: FAIL hello: 2 of 3 checks failed"]), (false, false));
        assert_eq!(forgiven(&[odd, "xmhf-guest: FAIL hello: panic at x: y"]), (false, false));
        assert_eq!(forgiven(&[odd]), (false, false));
        assert_eq!(forgiven(&[PASS]), (true, true));
    }

    #[test]
    fn other_machines_are_given_to_bare_guests_alone() {
        let model = |name: &str| Machines { model: Some(name.into()), cpus: None };
        let on_model = |own: Option<&str>, machines: Machines| {
            let guest = BareGuest { cpu_model: own.map(str::to_owned), ..guest() };
            options(&on(guest, &machines), false, Path::new("x")).cpu_model
        };
        assert_eq!(on_model(None, Machines::default()), None);
        assert_eq!(on_model(Some("own"), Machines::default()).as_deref(), Some("own"));
        assert_eq!(on_model(Some("own"), model("other")).as_deref(), Some("other"));
        let jobs = crate::test::jobs(&crate::test::Filter::All, &model("m")).unwrap();
        assert!(jobs.iter().all(|job| job.group == GROUP));
    }

    #[test]
    fn more_cpus_are_given_to_guests_that_want_several() {
        let eight = Machines { model: None, cpus: Some(8) };
        let cpus = |own| on(BareGuest { cpus: own, ..guest() }, &eight).cpus;
        assert_eq!([1, 2, 14].map(cpus), [1, 8, 8]);
        let suits = |cpus, cpus_are_exact| suits(&BareGuest { cpus, cpus_are_exact, ..guest() }, 8);
        assert!(suits(2, false) && suits(8, true) && !suits(2, true) && !suits(1, false));
        let all = jobs(&Machines::default()).unwrap().len();
        let several = jobs(&eight).unwrap().len();
        assert!(several > 10 && several < all, "{several} of {all}");
    }

    #[test]
    fn every_listed_fault_names_a_guest() {
        let fault = Fault { guest: "hello", words: "words" };
        assert_eq!(faults("# comment\n\nhello: words: why: because\n").unwrap(), [fault]);
        assert!(faults("hello: why\n").is_err());
        jobs(&Machines::default()).unwrap();
    }
}
