//! The verdict on a run, from what was seen of it.

use crate::stage::{Origin, Stage};
use crate::summary::{PANICS, Summary};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Lines kept to show where a run died.
const LAST_LINES: usize = 12;

/// How the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched it off.
    Off,
    /// The emulator gave up, with its words.
    Fault(String),
    /// The runner ended it behind the marker, as meant for this guest.
    Endless,
    /// The runner ended it after words that leave no hope.
    GaveUp,
    /// The runner ended it because nothing was heard of it for too long, or because it went on for too long.
    Timeout,
    /// The user asked for an end.
    Interrupted,
}

/// All that is known of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The last stage that was reached.
    pub stage: Stage,
    /// Figures and complaints.
    pub summary: Summary,
    /// Every line of both consoles, in the order seen.
    pub lines: Vec<(Origin, String)>,
    /// How the machine ended; `None` while it runs.
    pub end: Option<End>,
    /// Whether the guest showed what it had to.
    pub marked: bool,
    /// Host time taken.
    pub elapsed: Duration,
    /// Whether the guest has a userspace that tells of itself.
    pub has_userspace: bool,
    bare: bool,
}

impl Outcome {
    /// A run that has just begun.
    #[must_use]
    pub fn new(bare: bool) -> Self {
        Self {
            stage: Stage::Firmware,
            summary: Summary::default(),
            lines: Vec::new(),
            end: None,
            marked: false,
            elapsed: Duration::ZERO,
            has_userspace: true,
            bare,
        }
    }

    /// Takes in one line and gives the stage that begins with it; `failed` says that the guest complains there.
    pub fn read_line(&mut self, origin: Origin, line: &str, failed: bool) -> Option<Stage> {
        self.summary.read_line(origin, line);
        if failed {
            self.summary.failures.push(line.to_owned());
        }
        self.lines.push((origin, line.to_owned()));
        let stage = Stage::of_line(origin, line).filter(|stage| *stage != self.stage)?;
        // GRUB on the guest's disk is the machine's first program where there is no hypervisor.
        self.stage = stage;
        Some(stage)
    }

    /// Whether something was printed after which nothing good can come.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        !self.summary.stops.is_empty()
            || self.summary.failures.iter().any(|line| PANICS.iter().any(|words| line.contains(words)))
    }

    /// Notes how the run ended, and whether the guest showed its marker.
    pub fn finish(&mut self, end: End, marked: bool, elapsed: Duration) {
        self.end = Some(end);
        self.marked = marked;
        self.elapsed = elapsed;
    }

    /// Whether the guest did what it had to and the machine ended as it should.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failure().is_none()
    }

    /// Why the run failed, in one line; `None` where it did not.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let stage = self.stage;
        if let Some(line) = self.summary.stops.first().or(self.summary.failures.first()) {
            return Some(format!("in stage {stage}: {line}"));
        }
        match &self.end {
            None => Some(format!("the machine still runs, in stage {stage}")),
            Some(End::Interrupted) => Some(format!("ended on request in stage {stage}")),
            Some(End::Fault(words)) => Some(format!("the machine died in stage {stage}: {words}")),
            Some(End::Timeout | End::GaveUp) if self.marked => Some("the guest did not switch off".into()),
            Some(End::Timeout) => Some(format!("time was over in stage {stage}")),
            Some(End::GaveUp) => Some(format!("ended in stage {stage}")),
            Some(End::Off | End::Endless) if self.marked => None,
            Some(End::Off | End::Endless) => Some(format!("the machine was switched off in stage {stage}")),
        }
    }

    /// What [`Self`] prints, for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "failure": self.failure(),
            "hypervisor": !self.bare,
            "stage": self.stage.to_string(),
            "seconds": self.elapsed.as_secs_f64(),
            "guest_cpus": self.summary.guest_cpus,
            "userspace_ticks": self.summary.userspace_ticks,
            "forkexec_ticks": self.summary.forkexec_ticks,
            "measured": self.summary.measured,
            "figures": self.summary.hypervisor,
            "exits": self.summary.exits,
        })
    }

    /// The last lines of each console.
    #[must_use]
    pub fn last_lines(&self) -> VecDeque<&(Origin, String)> {
        let mut last = VecDeque::new();
        for origin in [Origin::Hypervisor, Origin::Guest] {
            let lines: Vec<_> = self.lines.iter().filter(|(from, _)| *from == origin).collect();
            last.extend(&lines[lines.len().saturating_sub(LAST_LINES)..]);
        }
        last
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "====== summary")?;
        match self.failure() {
            None => {
                writeln!(formatter, "the guest did what it had to, in {:.1} s", self.elapsed.as_secs_f64())?
            }
            Some(why) => {
                writeln!(formatter, "FAILED after {:.1} s: {why}", self.elapsed.as_secs_f64())?;
                writeln!(formatter, "last lines:")?;
                for (origin, line) in self.last_lines() {
                    writeln!(formatter, "  {origin} {line}")?;
                }
            }
        }
        writeln!(formatter, "hypervisor                   {}", if self.bare { "none" } else { "XMHF" })?;
        if self.has_userspace {
            let reached = if self.summary.userspace_ticks.is_some() { "yes" } else { "no" };
            writeln!(formatter, "userspace reached            {reached}")?;
        }
        write!(formatter, "{}", self.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[(Origin, &str)], end: End, marked: bool) -> Outcome {
        let mut outcome = Outcome::new(false);
        for (origin, line) in lines {
            outcome.read_line(*origin, line, line.starts_with("FAIL "));
        }
        outcome.finish(end, marked, Duration::from_secs(3));
        outcome
    }

    const BOOT: [(Origin, &str); 3] = [
        (Origin::Hypervisor, "GRUB loads the hypervisor"),
        (Origin::Hypervisor, "stage=runtime"),
        (Origin::Guest, "Linux version 6.1"),
    ];

    #[test]
    fn a_run_succeeds_with_marker_and_power_off_only() {
        assert!(outcome(&BOOT, End::Off, true).is_success());
        assert!(outcome(&BOOT, End::Endless, true).is_success());
        assert!(!outcome(&BOOT, End::Off, false).is_success());
        assert!(!outcome(&BOOT, End::Timeout, true).is_success());
        assert!(!outcome(&BOOT, End::Fault("triple fault".into()), true).is_success());
    }

    #[test]
    fn the_stage_of_death_is_named_with_the_last_lines() {
        let text = outcome(&BOOT, End::Timeout, false).to_string();
        assert!(text.contains("FAILED after 3.0 s: time was over in stage guest kernel\n"), "{text}");
        assert!(text.contains("  guest | Linux version 6.1\n"), "{text}");
        assert!(text.contains("userspace reached            no\n"));
    }

    #[test]
    fn of_userspace_only_those_speak_that_have_one() {
        let mut outcome = outcome(&[(Origin::Guest, "PASS hello checks=3")], End::Off, true);
        assert!(outcome.to_string().contains("userspace reached            no\n"));
        outcome.has_userspace = false;
        let text = outcome.to_string();
        assert!(!text.contains("userspace") && !text.contains("not reported"), "{text}");
    }

    #[test]
    fn programs_get_the_verdict_and_the_figures() {
        let mut lines = BOOT.to_vec();
        lines.push((Origin::Hypervisor, "summary hidden_bytes=8388608"));
        lines.push((Origin::Hypervisor, "summary cpu=1 exit=\"CPUID\" count=7"));
        let json = outcome(&lines, End::Off, true).to_json();
        assert_eq!(
            (&json["failure"], &json["figures"]["hidden_bytes"]),
            (&serde_json::Value::Null, &8_388_608.into())
        );
        assert_eq!(json["exits"]["CPUID"]["1"], 7);
        assert!(outcome(&BOOT, End::Timeout, false).to_json()["failure"].is_string());
    }

    #[test]
    fn a_run_that_the_user_ends_is_no_success() {
        assert!(outcome(&BOOT, End::Interrupted, false).failure().unwrap().contains("on request"));
    }

    #[test]
    fn a_stop_is_the_reason_even_where_the_guest_had_its_marker() {
        let mut lines = BOOT.to_vec();
        lines.push((Origin::Hypervisor, "stop: EPT misconfiguration"));
        let outcome = outcome(&lines, End::GaveUp, true);
        assert!(outcome.is_hopeless());
        assert!(outcome.failure().unwrap().contains("stop: EPT misconfiguration"));
    }

    #[test]
    fn a_guest_that_says_fail_has_failed() {
        let outcome = outcome(&[(Origin::Guest, "FAIL cpuid: leaf 1")], End::Off, true);
        assert_eq!(outcome.failure().unwrap(), "in stage firmware: FAIL cpuid: leaf 1");
    }
}
