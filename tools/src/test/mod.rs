//! `tools/xmhf test`: house rules, host tests, bare guests, Linux and bad boots, with one verdict on all.
//!
//! [`Filter`] says which; `job` is one test on a machine, `pool` runs several side by side, `report`
//! tells what came of them. The tests themselves are in `bare`, `linux` and `boot`.

mod bare;
mod boot;
mod fadt;
mod filter;
mod host;
mod job;
mod linux;
mod memory;
mod pal;
mod pool;
mod report;

pub use filter::Filter;

use crate::{bare_guest, build, paths};
use anyhow::{Result, bail, ensure};
use job::{Job, Verdict};
use report::Report;
use std::collections::BTreeSet;

/// Runs the tests that `filter` takes, tells of each as it ends, and of all at the end.
///
/// # Errors
///
/// A test failed, or there is none that the filter takes.
pub fn run(filter: &Filter) -> Result<()> {
    let mut report = Report::default();
    let jobs = jobs(filter)?;
    if filter.takes("unit", "unit") {
        host::unit(&mut report);
    }
    if filter.takes("lint", "lint") {
        report.time("lint", host::lint);
    }
    if !jobs.is_empty() {
        on_machines(jobs, &mut report);
    }
    ensure!(!report.is_empty(), "no test is called {filter}");
    report.conclude();
    if report.has_failures() {
        bail!("some tests failed");
    }
    Ok(())
}

fn jobs(filter: &Filter) -> Result<Vec<Job>> {
    let mut jobs = linux::jobs();
    jobs.extend(pal::jobs());
    jobs.extend(boot::jobs());
    jobs.extend(memory::jobs());
    jobs.extend(bare::jobs()?);
    jobs.retain(|job| filter.takes(job.group, &job.name));
    Ok(jobs)
}

fn on_machines(jobs: Vec<Job>, report: &mut Report) {
    report.time("build", || {
        build_for(&jobs)?;
        Ok(Verdict::Passed)
    });
    if report.has_failed("build") {
        jobs.iter().for_each(|job| report.skip(&job.name, "nothing could be built"));
        return;
    }
    let folder = paths::out().join("test");
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    pool::run(jobs, workers, &folder, |finished| report.take(finished));
}

/// Builds what `jobs` need: where all are of bare guests, those guests and their hypapps alone.
fn build_for(jobs: &[Job]) -> Result<()> {
    let Some(needs) = jobs.iter().map(|job| job.needs.as_ref()).collect::<Option<Vec<_>>>() else {
        build::build()?;
        return bare_guest::build().map(drop);
    };
    let hypapps: BTreeSet<_> = needs.iter().map(|needs| needs.hypapp.as_str()).collect();
    let guests: BTreeSet<_> = needs.iter().map(|needs| needs.guest.as_str()).collect();
    build::build_only(&hypapps)?;
    bare_guest::build_only(&guests)
}
