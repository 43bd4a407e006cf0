//! `tools/xmhf bench`: path lengths in ticks, beside those of the C original.
//!
//! Measured on Bochs, where a tick is about one instruction: the bare test guest `timing`, and Linux on one CPU
//! up to its userspace, each without the hypervisor and with it. The original's figures were taken on the same
//! CPU model at the same clock.

mod nested;
mod pal;
mod row;

use crate::bare_guest;
use crate::guest::{Guest, LinuxOptions};
use crate::machine::{LARGEST_MEMORY_MIB, Quirks};
use crate::run::{RunOptions, run};
use crate::stage::Origin;
use crate::verdict::Outcome;
use crate::{build, output, paths};
use anyhow::{Context, Result, bail, ensure};
use row::{Bar, Row, Table};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

const CPU_MODEL: &str = "corei7_skylake_x";
const HYPAPP: &str = "helloworld";
/// Logging costs thousands of ticks a byte.
const QUIET_LOG: &str = "log=warn";
/// Figures of the guest `timing` that hold an exit or an exception by intent.
const NOT_ORDINARY: [&str; 10] = [
    "nothing",
    "cpuid",
    "cpuid_ring3",
    "invd",
    "rdmsr_unknown",
    "rdmsr_outside",
    "wrmsr_unknown",
    "vmcall",
    "vmcall_ring3",
    "ud2",
];

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Exits, Linux, memory.
    Core,
    /// PALs.
    Pal,
    /// Guests of the guest.
    Nested,
}

/// What was measured without the hypervisor and with it.
#[derive(Clone, Debug)]
struct Both<T> {
    bare: T,
    ours: T,
}

/// Ticks by the names that the guest `timing` gives them.
type Timings = BTreeMap<String, u64>;

/// Measures everything, or `only` a part, prints the table, and writes the figures to `json` where it is given.
///
/// # Errors
///
/// A run failed, or a figure misses its bar.
pub fn bench(json: Option<&Path>, only: Option<Part>) -> Result<()> {
    let json = json.map(output::create).transpose()?;
    build::build()?;
    bare_guest::build()?;
    let is_wanted = |part| only.is_none_or(|only| only == part);
    let mut rows = if is_wanted(Part::Core) { measure()? } else { Vec::new() };
    if is_wanted(Part::Pal) {
        rows.extend(pal::measure()?);
    }
    if is_wanted(Part::Nested) {
        rows.extend(nested::measure()?);
    }
    println!("{}", Table(&rows));
    if let Some(mut file) = json {
        writeln!(file, "{}", serde_json::to_string_pretty(&figures(&rows))?)?;
    }
    println!("The original's Linux, an older build of the same kernel, took 2,238,000,000 ticks bare.");
    let missed: Vec<_> = rows.iter().filter(|row| !row.meets_bar()).map(|row| row.what).collect();
    ensure!(missed.is_empty(), "missed the bar: {}", missed.join(", "));
    Ok(())
}

fn measure() -> Result<Vec<Row>> {
    let timing = |bare| measure_one("bare guest timing", Guest::Bare("timing".into()), 64, bare);
    let linux = |bare| measure_one("Linux", Guest::Linux, 1024, bare);
    let timings = Both { bare: timings(&timing(true)?), ours: timings(&timing(false)?) };
    let linux = Both { bare: linux(true)?, ours: linux(false)? };
    let large = measure_one("16-bit guest in 256 GiB", Guest::Mbr, LARGEST_MEMORY_MIB, false)?;
    let image = paths::boot().join(format!("xmhf-{HYPAPP}.bin"));
    let image = image.metadata().with_context(|| image.display().to_string())?.len();
    Ok(rows(&timings, &linux, &large, image))
}

fn measure_one(name: &str, guest: Guest, memory_mib: u32, bare: bool) -> Result<Outcome> {
    measure_under(HYPAPP, name, guest, memory_mib, bare)
}

fn measure_under(hypapp: &str, name: &str, guest: Guest, memory_mib: u32, bare: bool) -> Result<Outcome> {
    println!("{name}, {} the hypervisor", if bare { "without" } else { "under" });
    let outcome = run(&RunOptions {
        guest: guest.clone(),
        // As a distribution starts it, with the kernel's own tests of its cryptography.
        linux: LinuxOptions {
            actions: vec!["forkexec".into()],
            arguments: String::new(),
            ..LinuxOptions::default()
        },
        cpus: 1,
        memory_mib,
        cpu_model: Some(CPU_MODEL.into()),
        // A processor faults on an MSR that it does not have; Linux asks Bochs for some that it lacks.
        quirks: Quirks {
            faults_on_unknown_msrs: matches!(guest, Guest::Bare(_) | Guest::Mbr),
            ..Quirks::default()
        },
        hypapp: hypapp.into(),
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
fn excess(timings: &Both<Timings>) -> Option<u64> {
    let Both { bare, ours } = timings;
    let ordinary = ours.iter().filter(|(name, _)| !NOT_ORDINARY.contains(&name.as_str()));
    ordinary.filter_map(|(name, ticks)| Some(ticks.saturating_sub(*bare.get(name)?))).max()
}

fn rows(timings: &Both<Timings>, linux: &Both<Outcome>, large: &Outcome, image: u64) -> Vec<Row> {
    let timing = |what, name: &str, original, bar| {
        let (bare, ours) = (timings.bare.get(name).copied(), timings.ours.get(name).copied());
        Row { what, key: None, bare, ours, original, bar }
    };
    let linux_row = |what, figure: fn(&Outcome) -> Option<u64>, original, bar| {
        let (bare, ours) = (figure(&linux.bare), figure(&linux.ours));
        Row { what, key: None, bare, ours, original, bar }
    };
    let own = |what, ours, original, bar| Row { what, key: None, bare: None, ours, original, bar };
    let hypervisor = |key| figure_of(&linux.ours, key);
    let (start, start_large) = (hypervisor("start_ticks"), figure_of(large, "start_ticks"));
    let most = |bar| Some(Bar::AtMost(bar));
    vec![
        timing("CPUID exit, ticks", "cpuid", Some(3_704), most(200)).named("cpuid_exit"),
        timing("VMCALL from ring 3, ticks", "vmcall_ring3", Some(3_860), most(250)).named("vmcall"),
        timing("RDMSR of an unknown MSR, #GP injected", "rdmsr_outside", Some(3_744), most(400))
            .named("rdmsr_unknown"),
        timing("  of one that the bitmaps let through", "rdmsr_unknown", None, most(20)),
        own("ordinary instruction, most extra ticks", excess(timings), Some(0), most(2)),
        own("start of the guest, ticks", start, Some(375_000_000), most(40_000_000)).named("start"),
        own("  with 256 GiB of memory, not 1", start_large, None, large_start_bar(&linux.ours, large)),
        linux_row("Linux to userspace, ticks", userspace, Some(3_186_000_000), Some(Bar::PercentOverBare(4)))
            .named("linux_userspace"),
        own("  per mille over bare", overhead(linux), Some(424), most(40)),
        linux_row("100 fork and exec, ticks", forkexec, Some(108_200_000), most(88_000_000))
            .named("forkexec100"),
        own("memory hidden, bytes", hypervisor("hidden_bytes"), Some(212 << 20), most(16 << 20))
            .named("hidden_bytes"),
        own("hypervisor image, bytes", Some(image), Some(2_200_000), most(1_000_000)).named("image_bytes"),
        own("EPT, bytes", hypervisor("ept_pages").map(|pages| pages * 4096), None, most(512 << 10))
            .named("ept_bytes"),
    ]
}

/// A table or two more, and the zeroing of what more the hypervisor keeps to itself, eight bytes a tick; nothing for each
/// page of the guest's.
fn large_start_bar(small: &Outcome, large: &Outcome) -> Option<Bar> {
    let start = figure_of(small, "start_ticks")?;
    let hidden = figure_of(large, "hidden_bytes")?.saturating_sub(figure_of(small, "hidden_bytes")?);
    Some(Bar::AtMost(start + start / 50 + hidden / 8))
}

fn figure_of(outcome: &Outcome, key: &str) -> Option<u64> {
    outcome.summary.hypervisor.get(key).copied()
}

fn userspace(outcome: &Outcome) -> Option<u64> {
    outcome.summary.userspace_ticks
}

fn forkexec(outcome: &Outcome) -> Option<u64> {
    outcome.summary.forkexec_ticks
}

/// By how much Linux's way to its userspace is longer than bare, in thousandths.
fn overhead(linux: &Both<Outcome>) -> Option<u64> {
    let (bare, ours) = (userspace(&linux.bare)?, userspace(&linux.ours)?);
    (ours.saturating_sub(bare) * 1000).checked_div(bare)
}

/// Figures by their keys in the file; what was not measured is null.
fn figures(rows: &[Row]) -> BTreeMap<&str, Option<u64>> {
    let mut figures: BTreeMap<_, _> = rows.iter().filter_map(|row| Some((row.key?, row.ours))).collect();
    let linux = rows.iter().find(|row| row.key == Some("linux_userspace"));
    figures.insert("linux_userspace_bare", linux.and_then(|row| row.bare));
    figures
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
        let large =
            outcome(&[(Origin::Hypervisor, "summary start_ticks=10700000 ept_pages=5 hidden_bytes=8388608")]);
        let timings = Both { bare: timings(&bare), ours: timings(&ours) };
        rows(&timings, &Both { bare: linux_bare, ours: linux }, &large, 200_000)
    }

    fn row(what: &str) -> Row {
        measured().into_iter().find(|row| row.key == Some(what) || row.what.contains(what)).unwrap()
    }

    #[test]
    fn lines_of_the_guest_become_rows() {
        assert_eq!((row("cpuid_exit").bare, row("cpuid_exit").ours), (Some(7), Some(120)));
        assert_eq!(row("most extra").ours, Some(3));
        assert_eq!(row("ept_bytes").ours, Some(16_384));
        assert_eq!(row("per mille").ours, Some(40));
    }

    #[test]
    fn a_figure_above_its_bar_or_absent_misses_it() {
        assert!(row("cpuid_exit").meets_bar() && row("start").meets_bar() && row("256 GiB").meets_bar());
        assert!(!row("vmcall").meets_bar());
        assert!(!row("most extra").meets_bar());
        assert!(!row("linux_userspace").meets_bar());
        assert!(!row("forkexec100").meets_bar());
    }

    #[test]
    fn a_large_machine_may_start_later_by_tables_and_hidden_memory() {
        // 2 % of 10,000,000 ticks, and an eighth of 4 MiB.
        assert_eq!(row("256 GiB").bar, Some(Bar::AtMost(10_724_288)));
        assert!(row("256 GiB").meets_bar());
    }

    #[test]
    fn the_file_has_the_keys_that_its_readers_know() {
        let rows = measured();
        let figures = figures(&rows);
        let keys = [
            "cpuid_exit",
            "ept_bytes",
            "forkexec100",
            "hidden_bytes",
            "image_bytes",
            "linux_userspace",
            "linux_userspace_bare",
            "rdmsr_unknown",
            "start",
            "vmcall",
        ];
        assert!(figures.keys().copied().eq(keys), "{figures:?}");
        assert_eq!((figures["linux_userspace_bare"], figures["forkexec100"]), (Some(2_000_000_000), None));
    }
}
