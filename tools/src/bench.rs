//! `tools/xmhf bench`: path lengths in ticks, beside those of the C original.
//!
//! Measured on Bochs, where a tick is about one instruction: the bare test guest `timing`, and Linux on one CPU
//! up to its userspace, each without the hypervisor and with it. The original's figures were taken on the same
//! CPU model at the same clock.

use crate::bare_guest;
use crate::guest::{Guest, LinuxOptions};
use crate::machine::Quirks;
use crate::run::{RunOptions, run};
use crate::stage::Origin;
use crate::summary::thousands;
use crate::verdict::Outcome;
use crate::{build, paths};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

const CPU_MODEL: &str = "corei7_skylake_x";
const HYPAPP: &str = "helloworld";
/// Logging costs thousands of ticks a byte.
const QUIET_LOG: &str = "log=warn";
/// Figures of the guest `timing` that hold an exit or an exception by intent.
const NOT_ORDINARY: [&str; 9] = [
    "nothing",
    "cpuid",
    "cpuid_ring3",
    "invd",
    "rdmsr_unknown",
    "wrmsr_unknown",
    "vmcall",
    "vmcall_ring3",
    "ud2",
];

/// Ticks by the names that the guest `timing` gives them.
type Timings = BTreeMap<String, u64>;

/// Measures, prints the table, and writes the figures to `json` where it is given.
///
/// # Errors
///
/// A run failed, or a figure misses its bar.
pub fn bench(json: Option<&Path>) -> Result<()> {
    build::build()?;
    bare_guest::build()?;
    let rows = measure()?;
    println!("{}", Table(&rows));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&figures(&rows))?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    let missed: Vec<_> = rows.iter().filter(|row| !row.meets_bar()).map(|row| row.what).collect();
    ensure!(missed.is_empty(), "missed the bar: {}", missed.join(", "));
    Ok(())
}

fn measure() -> Result<Vec<Row>> {
    let timing = |bare| measure_one("bare guest timing", Guest::Bare("timing".into()), 64, bare);
    let linux = |bare| measure_one("Linux", Guest::Linux, 1024, bare);
    let (timing_bare, timing_ours) = (timings(&timing(true)?), timings(&timing(false)?));
    let (linux_bare, linux_ours) = (linux(true)?, linux(false)?);
    let image = paths::boot().join(format!("xmhf-{HYPAPP}.bin"));
    let image = image.metadata().with_context(|| image.display().to_string())?.len();
    Ok(rows(&timing_bare, &timing_ours, &linux_bare, &linux_ours, image))
}

fn measure_one(name: &str, guest: Guest, memory_mib: u32, bare: bool) -> Result<Outcome> {
    println!("{name}, {} the hypervisor", if bare { "without" } else { "under" });
    let outcome = run(&RunOptions {
        guest: guest.clone(),
        // As a distribution starts it, with the kernel's own tests of its cryptography.
        linux: LinuxOptions { actions: vec!["forkexec".into()], arguments: String::new() },
        cpus: 1,
        memory_mib,
        cpu_model: Some(CPU_MODEL.into()),
        // A processor faults on an MSR that it does not have; Linux asks Bochs for some that it lacks.
        quirks: Quirks { faults_on_unknown_msrs: guest != Guest::Linux, ..Quirks::default() },
        hypapp: HYPAPP.into(),
        arguments: QUIET_LOG.into(),
        bare,
        quiet: true,
        ..RunOptions::default()
    })?;
    match outcome.failure() {
        None => Ok(outcome),
        Some(why) => bail!("{name}: {why}"),
    }
}

/// The figures in lines `bench NAME ticks=N ...` of the guest.
fn timings(outcome: &Outcome) -> Timings {
    let lines = outcome.lines.iter().filter(|(origin, _)| *origin == Origin::Guest);
    let figure = |line: &str| {
        let (_, rest) = line.split_once("bench ")?;
        let (name, rest) = rest.split_once(" ticks=")?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    lines.filter_map(|(_, line)| figure(line)).collect()
}

/// Most ticks by which an ordinary instruction takes longer than without the hypervisor.
fn excess(bare: &Timings, ours: &Timings) -> Option<u64> {
    let ordinary = ours.iter().filter(|(name, _)| !NOT_ORDINARY.contains(&name.as_str()));
    ordinary.filter_map(|(name, ticks)| Some(ticks.saturating_sub(*bare.get(name)?))).max()
}

fn rows(bare: &Timings, ours: &Timings, linux_bare: &Outcome, linux: &Outcome, image: u64) -> Vec<Row> {
    let summary = &linux.summary;
    let hypervisor = |key| summary.hypervisor.get(key).copied();
    let timing = |what, key, name: &str, original, bar| {
        let (bare, ours) = (bare.get(name).copied(), ours.get(name).copied());
        Row { what, key, bare, ours, original, bar: Bar::AtMost(bar) }
    };
    let figure =
        |what, key, ours, original, bar| Row { what, key, bare: None, ours, original, bar: Bar::AtMost(bar) };
    let linux_row = |what, key, figure: fn(&Outcome) -> Option<u64>, original, bar| Row {
        what,
        key,
        bare: figure(linux_bare),
        ours: figure(linux),
        original,
        bar,
    };
    vec![
        timing("CPUID exit, ticks", "cpuid_exit", "cpuid", 3_704, 200),
        timing("VMCALL from ring 3, ticks", "vmcall", "vmcall_ring3", 3_860, 250),
        timing("RDMSR of an unknown MSR, ticks", "rdmsr_unknown", "rdmsr_unknown", 3_744, 400),
        figure("ordinary instruction, most extra ticks", "ordinary_excess", excess(bare, ours), 0, 20),
        figure("start of the guest, ticks", "start", hypervisor("start_ticks"), 375_000_000, 40_000_000),
        linux_row(
            "Linux to userspace, ticks",
            "linux_userspace",
            |outcome| outcome.summary.userspace_ticks,
            3_186_000_000,
            Bar::PercentOverBare(4),
        ),
        linux_row(
            "100 fork and exec, ticks",
            "forkexec100",
            |outcome| outcome.summary.forkexec_ticks,
            108_200_000,
            Bar::AtMost(88_000_000),
        ),
        figure("memory hidden, bytes", "hidden_bytes", hypervisor("hidden_bytes"), 212 << 20, 16 << 20),
        figure("hypervisor image, bytes", "image_bytes", Some(image), 2_200_000, 1_000_000),
        figure(
            "EPT, bytes",
            "ept_bytes",
            hypervisor("ept_pages").map(|pages| pages * 4096),
            80 << 20,
            512 << 10,
        ),
    ]
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    what: &'static str,
    key: &'static str,
    bare: Option<u64>,
    ours: Option<u64>,
    /// The C original's figure.
    original: u64,
    bar: Bar,
}

/// What a figure has to stay below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bar {
    AtMost(u64),
    PercentOverBare(u64),
}

impl Row {
    fn bar(&self) -> Option<u64> {
        match self.bar {
            Bar::AtMost(most) => Some(most),
            Bar::PercentOverBare(percent) => self.bare.map(|bare| bare + bare * percent / 100),
        }
    }

    fn meets_bar(&self) -> bool {
        matches!((self.ours, self.bar()), (Some(ours), Some(bar)) if ours <= bar)
    }

    /// How many times the original's figure is ours, to one decimal.
    fn ratio(&self) -> Option<String> {
        let ours = self.ours.filter(|ours| *ours > 0 && self.original > 0)?;
        let tenths = self.original * 10 / ours;
        Some(format!("{}.{}x", thousands(tenths / 10), tenths % 10))
    }
}

/// Figures by their keys in the file; what was not measured is null.
fn figures(rows: &[Row]) -> BTreeMap<&str, Option<u64>> {
    let mut figures: BTreeMap<_, _> = rows.iter().map(|row| (row.key, row.ours)).collect();
    let linux = rows.iter().find(|row| row.key == "linux_userspace");
    figures.insert("linux_userspace_bare", linux.and_then(|row| row.bare));
    figures
}

/// The table for a person.
struct Table<'a>(&'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), thousands);
        let heads = ["bare", "ours", "C original", "original/ours", "bar"];
        write!(formatter, "{:40}", "")?;
        heads.iter().try_for_each(|head| write!(formatter, "{head:>15}"))?;
        for row in self.0 {
            write!(formatter, "\n{:40}{:>15}{:>15}", row.what, show(row.bare), show(row.ours))?;
            let ratio = row.ratio().unwrap_or_else(|| "-".into());
            write!(formatter, "{:>15}{ratio:>15}{:>15}", thousands(row.original), show(row.bar()))?;
            if !row.meets_bar() {
                write!(formatter, "  MISSED")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[(Origin, &str)]) -> Outcome {
        let mut outcome = Outcome::new(false);
        for (origin, line) in lines {
            outcome.read_line(*origin, line, false);
        }
        outcome
    }

    fn measured() -> Vec<Row> {
        let bare = outcome(&[
            (Origin::Guest, "xmhf-guest: bench cpuid ticks=7 median=7"),
            (Origin::Guest, "bench mov_to_cr3 ticks=30 median=31"),
        ]);
        let ours = outcome(&[
            (Origin::Guest, "bench cpuid ticks=120 median=121"),
            (Origin::Guest, "bench vmcall_ring3 ticks=386 median=400"),
            (Origin::Guest, "bench mov_to_cr3 ticks=33 median=33"),
        ]);
        let linux_bare = outcome(&[(Origin::Guest, "xmhf-guest: userspace tsc=2000000000 cpus=1")]);
        let linux = outcome(&[
            (Origin::Guest, "xmhf-guest: userspace tsc=2080000001 cpus=1"),
            (Origin::Hypervisor, "summary start_ticks=10000000 ept_pages=4 hidden_bytes=4194304"),
        ]);
        rows(&timings(&bare), &timings(&ours), &linux_bare, &linux, 200_000)
    }

    fn row(key: &str) -> Row {
        measured().into_iter().find(|row| row.key == key).unwrap()
    }

    #[test]
    fn lines_of_the_guest_become_rows() {
        assert_eq!((row("cpuid_exit").bare, row("cpuid_exit").ours), (Some(7), Some(120)));
        assert_eq!(row("ordinary_excess").ours, Some(3));
        assert_eq!(row("ept_bytes").ours, Some(16_384));
    }

    #[test]
    fn a_figure_above_its_bar_or_absent_misses_it() {
        assert!(row("cpuid_exit").meets_bar() && row("start").meets_bar());
        assert!(!row("vmcall").meets_bar());
        assert!(!row("linux_userspace").meets_bar());
        assert!(!row("forkexec100").meets_bar());
    }

    #[test]
    fn ratio_is_the_originals_figure_over_ours() {
        assert_eq!(row("vmcall").ratio().as_deref(), Some("10.0x"));
        assert_eq!(row("ordinary_excess").ratio(), None);
    }

    #[test]
    fn the_file_has_every_key() {
        let text = serde_json::to_string(&figures(&measured())).unwrap();
        for key in [
            "cpuid_exit",
            "vmcall",
            "rdmsr_unknown",
            "start",
            "linux_userspace",
            "linux_userspace_bare",
            "forkexec100",
            "hidden_bytes",
            "image_bytes",
            "ept_bytes",
        ] {
            assert!(text.contains(&format!("\"{key}\":")), "{key} in {text}");
        }
        assert!(
            text.contains("\"linux_userspace_bare\":2000000000") && text.contains("\"forkexec100\":null")
        );
    }
}
