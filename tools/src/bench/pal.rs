//! What PALs cost in Linux under TrustVisor, on one CPU and two, alone and beside 999 others.
//!
//! The guest's program `palbench` gives medians; `test_args64 7 7 7` is taken whole, from fork to exit.

use super::row::{Bar, Row};
use super::{CPU_MODEL, QUIET_LOG, Timings, measure_under, timings};
use crate::guest::{Guest, LinuxOptions};
use crate::paths;
use crate::run::{RunOptions, run};
use crate::verdict::Outcome;
use anyhow::{Context, Result, bail};

const HYPAPP: &str = "trustvisor";
const CPUS: [u32; 2] = [1, 2];
/// By how many percent something may take longer where there are 1,000 PALs: a call, and the rest.
const GROWTH_PERCENT: [u64; 2] = [10, 50];

/// A figure: the name in the guest's line, the row's title and key, the original's figure and the bar.
type Figure = (&'static str, &'static str, &'static str, Option<u64>, u64);

const FIGURES: [[Figure; 7]; 2] = [
    [
        ("pal_call_1", "PAL call, ten integers, ticks", "pal_call", Some(399_671), 10_000),
        ("pal_call_1000", "  with 1,000 PALs", "pal_call_1000", None, 0),
        ("pal_register_1", "PAL register, 4 sections, ticks", "pal_register", Some(854_201), 40_000),
        ("pal_register_1000", "  with 1,000 PALs", "pal_register_1000", None, 0),
        ("pal_unregister_1", "PAL unregister, ticks", "pal_unregister", Some(143_814), 15_000),
        ("pal_unregister_1000", "  with 1,000 PALs", "pal_unregister_1000", None, 0),
        ("test_args64_777", "test_args64 7 7 7, ticks", "test_args64_777", Some(25_900_000), 3_000_000),
    ],
    [
        ("pal_call_1", "2 CPUs: PAL call, ticks", "pal_call_2_cpus", None, 15_000),
        ("pal_call_1000", "  with 1,000 PALs", "pal_call_1000_2_cpus", None, 0),
        ("pal_register_1", "2 CPUs: PAL register, ticks", "pal_register_2_cpus", None, 55_000),
        ("pal_register_1000", "  with 1,000 PALs", "pal_register_1000_2_cpus", None, 0),
        ("pal_unregister_1", "2 CPUs: PAL unregister, ticks", "pal_unregister_2_cpus", None, 15_000),
        ("pal_unregister_1000", "  with 1,000 PALs", "pal_unregister_1000_2_cpus", None, 0),
        ("test_args64_777", "2 CPUs: test_args64 7 7 7, ticks", "test_args64_777_2_cpus", None, 3_000_000),
    ],
];

/// A processor with instructions for SHA-256, which that of the other figures lacks.
const SHA_MODEL: &str = "sapphire_rapids";

/// Boots both machines and gives their rows.
///
/// # Errors
///
/// A boot or the guest's action failed.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (cpus, figures) in CPUS.into_iter().zip(FIGURES) {
        let outcome = boot(cpus)?;
        if cpus == 1 {
            rows.extend(image_rows(start_of(&outcome), start_of(&start_with_sha()?))?);
        }
        rows.extend(rows_of(&figures, &timings(&outcome)));
    }
    let mut latencies = Timings::new();
    for (what, guest) in
        [("PALs of the largest sizes", "tv_latency"), ("each command of a microTPM", "tv_latency_microtpm")]
    {
        let outcome = measure_under(HYPAPP, what, Guest::Bare(guest.into()), 256, false)?;
        latencies.extend(timings(&outcome));
    }
    rows.push(interrupts_off(&latencies));
    Ok(rows)
}

/// The most of all that the guests `tv_latency` and `tv_latency_microtpm` ask for.
fn interrupts_off(timings: &Timings) -> Row {
    let figures = timings.iter().filter(|(name, _)| name.starts_with("interrupts_off_"));
    Row {
        what: "longest time with interrupts off, ticks",
        key: Some("interrupts_off"),
        bare: None,
        ours: figures.map(|(_, ticks)| *ticks).max(),
        original: None,
        bar: Some(Bar::AtMost(100_000)),
    }
}

/// What the hypapp costs before there is a PAL: its code is measured at the start.
fn image_rows(start: Option<u64>, start_with_sha: Option<u64>) -> Result<[Row; 3]> {
    let image = paths::boot().join(format!("xmhf-{HYPAPP}.bin"));
    let bytes = image.metadata().with_context(|| image.display().to_string())?.len();
    let row = |what, key, ours, bar| Row {
        what,
        key: Some(key),
        bare: None,
        ours,
        original: None,
        bar: Some(Bar::AtMost(bar)),
    };
    Ok([
        // Most of it is SHA-256 of the image in plain code, 53 ticks a byte.
        row("start with TrustVisor, ticks", "trustvisor_start", start, 60_000_000),
        row("  with SHA instructions", "trustvisor_start_sha", start_with_sha, 15_000_000),
        row("image with TrustVisor, bytes", "trustvisor_image_bytes", Some(bytes), 1_000_000),
    ])
}

fn start_of(outcome: &Outcome) -> Option<u64> {
    outcome.summary.hypervisor.get("start_ticks").copied()
}

/// A start on a processor that has instructions for SHA-256.
fn start_with_sha() -> Result<Outcome> {
    println!("start with TrustVisor, on a processor with SHA instructions");
    succeeded(run(&RunOptions {
        guest: Guest::Bare("timing".into()),
        memory_mib: 512,
        cpu_model: Some(SHA_MODEL.into()),
        hypapp: HYPAPP.into(),
        arguments: QUIET_LOG.into(),
        quiet: true,
        ..RunOptions::default()
    })?)
}

fn boot(cpus: u32) -> Result<Outcome> {
    println!("PALs in Linux, under the hypervisor, {cpus} CPUs");
    succeeded(run(&RunOptions {
        guest: Guest::Linux,
        linux: LinuxOptions { actions: vec!["pal_bench".into()], ..LinuxOptions::default() },
        cpus,
        memory_mib: 512,
        cpu_model: Some(CPU_MODEL.into()),
        hypapp: HYPAPP.into(),
        arguments: QUIET_LOG.into(),
        quiet: true,
        ..RunOptions::default()
    })?)
}

fn succeeded(outcome: Outcome) -> Result<Outcome> {
    match outcome.failure() {
        None => Ok(outcome),
        Some(why) => bail!("PALs: {why}"),
    }
}

fn rows_of(figures: &[Figure], timings: &Timings) -> Vec<Row> {
    let ticks = |name: &str| timings.get(name).copied();
    let row = |&(name, what, key, original, most): &Figure| {
        let bar = match name.strip_suffix("_1000") {
            // A search may, by its depth.
            Some(operation) => ticks(&format!("{operation}_1")).map(|one| {
                let percent = GROWTH_PERCENT[usize::from(operation != "pal_call")];
                one + one * percent / 100
            }),
            None => Some(most),
        };
        Row { what, key: Some(key), bare: None, ours: ticks(name), original, bar: bar.map(Bar::AtMost) }
    };
    figures.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_grows_with_the_number_of_pals_misses_its_bar() {
        let met = |one: u64, thousand: u64| {
            let timings = Timings::from([("pal_call_1".into(), one), ("pal_call_1000".into(), thousand)]);
            rows_of(&FIGURES[0][..2], &timings).iter().map(Row::meets_bar).collect::<Vec<_>>()
        };
        assert_eq!(met(4000, 4300), [true, true]);
        assert_eq!(met(4000, 4500), [true, false]);
        assert_eq!(met(10_001, 10_001), [false, true]);
    }

    #[test]
    fn the_longest_of_all_counts_and_none_at_all_misses_the_bar() {
        let timings = |figures: &[(&str, u64)]| {
            figures.iter().map(|(name, ticks)| ((*name).to_owned(), *ticks)).collect::<Timings>()
        };
        let row = |figures: &[(&str, u64)]| interrupts_off(&timings(figures));
        assert_eq!(row(&[("interrupts_off_a", 7), ("interrupts_off_b", 9), ("other", 10)]).ours, Some(9));
        assert!(!row(&[("interrupts_off_a", 100_001)]).meets_bar() && !row(&[]).meets_bar());
    }

    #[test]
    fn every_figure_has_a_key_of_its_own() {
        let mut keys: Vec<_> = FIGURES.iter().flatten().map(|(_, _, key, ..)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), FIGURES.iter().flatten().count());
    }
}
