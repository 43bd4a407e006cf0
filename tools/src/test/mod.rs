//! `tools/xmhf test`: house rules, host tests, bare guests, Linux and bad boots, with one verdict on all.
//!
//! [`Filter`] says which; `job` is one test on a machine, `pool` runs several side by side, `report`
//! tells what came of them. The tests themselves are in `bare`, `linux` and `boot`.

mod bare;
mod boot;
mod boots;
mod event_log;
mod fadt;
mod filter;
mod host;
mod job;
mod linux;
mod mcfg;
mod memory;
mod modules;
mod own;
mod pal;
mod pool;
mod report;
mod reproducible;
mod tpm;

pub use bare::Machines;
pub use filter::Filter;

use crate::machine::check_model;
use crate::{bare_guest, build, interrupt, output, paths};
use anyhow::{Result, bail, ensure};
use job::{Job, Verdict};
use report::Report;
use std::collections::BTreeSet;
use std::path::Path;

/// Runs the tests that `filter` takes, tells of each as it ends, and of all at the end; in JUnit's form too, to the file
/// `junit` where it is given. With `machines` of another kind, bare guests run on these, and no other tests do.
///
/// # Errors
///
/// A test failed, there is none that the filter takes, or the file cannot be written.
pub fn run(filter: &Filter, machines: &Machines, junit: Option<&Path>) -> Result<()> {
    let junit = junit.map(output::create).transpose()?;
    machines.model.as_deref().map(check_model).transpose()?;
    let jobs = jobs(filter, machines)?;
    let names = names(filter, machines, &jobs);
    refuse_none(filter, machines, &names)?;
    let is_named = |name| names.contains(&name);
    let (has_unit, has_lint) = (is_named(UNIT), is_named(LINT));
    let mut report = Report::of(names.len());
    if has_unit {
        host::unit(&mut report);
    }
    if has_lint && !interrupt::is_requested() {
        report.time(LINT, host::lint);
    }
    if !jobs.is_empty() && !interrupt::is_requested() {
        on_machines(jobs, &mut report);
    }
    report.conclude();
    if let Some(file) = junit {
        report.write_junit(file)?;
    }
    ensure!(!interrupt::is_requested(), "ended on request");
    if report.has_failures() {
        bail!("some tests failed");
    }
    Ok(())
}

/// Prints the name of every test that `filter` takes.
///
/// # Errors
///
/// The bare guests cannot be read, or there is none.
pub fn list(filter: &Filter) -> Result<()> {
    let machines = Machines::default();
    let jobs = jobs(filter, &machines)?;
    let names = names(filter, &machines, &jobs);
    refuse_none(filter, &machines, &names)?;
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}

/// A run of no test shows nothing, and would end well.
fn refuse_none(filter: &Filter, machines: &Machines, names: &[&str]) -> Result<()> {
    let kind =
        if *machines == Machines::default() { "test" } else { "bare guest that --model and --cpus are for" };
    ensure!(!names.is_empty(), "no {kind} is called {filter}; `tools/xmhf test --list` has all names");
    Ok(())
}

const UNIT: &str = "unit";
const LINT: &str = "lint";
const BUILD: &str = "build";

/// The tests in the order in which their kinds run; a build comes before those on machines. Where these are of another
/// kind, no test runs that has none.
fn names<'a>(filter: &Filter, machines: &Machines, jobs: &'a [Job]) -> Vec<&'a str> {
    let is_usual = *machines == Machines::default();
    let alone = [UNIT, LINT].into_iter().filter(|name| is_usual && filter.takes(name, name));
    let build = needs_images(jobs).then_some(BUILD);
    alone.chain(build).chain(jobs.iter().map(|job| job.name.as_str())).collect()
}

fn needs_images(jobs: &[Job]) -> bool {
    jobs.iter().any(|job| ![pal::GROUP, modules::GROUP, tpm::GROUP].contains(&job.group))
}

fn jobs(filter: &Filter, machines: &Machines) -> Result<Vec<Job>> {
    let mut jobs = linux::jobs();
    jobs.extend(pal::jobs());
    jobs.extend(modules::jobs());
    jobs.extend(tpm::jobs());
    jobs.extend(event_log::jobs());
    jobs.extend(boot::jobs());
    jobs.extend(memory::jobs());
    jobs.extend(own::jobs());
    jobs.extend(reproducible::jobs());
    jobs.extend(bare::jobs(machines)?);
    let is_usual = *machines == Machines::default();
    jobs.retain(|job| filter.takes(job.group, &job.name) && (is_usual || job.group == bare::GROUP));
    Ok(jobs)
}

fn on_machines(jobs: Vec<Job>, report: &mut Report) {
    if needs_images(&jobs) {
        report.time(BUILD, || {
            build_for(&jobs)?;
            Ok(Verdict::Passed)
        });
    }
    if report.has_failed(BUILD) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: Machines = Machines { model: None, cpus: Some(4) };

    #[test]
    fn a_name_that_no_test_has_is_refused_in_lists_too() {
        let nobody = Filter::Name("nobody".to_owned());
        let why = list(&nobody).unwrap_err().to_string();
        assert_eq!(why, "no test is called nobody; `tools/xmhf test --list` has all names");
        assert!(refuse_none(&nobody, &Machines::default(), &[UNIT]).is_ok());
    }

    #[test]
    fn machines_of_another_kind_are_for_bare_guests_alone() {
        let linux = Filter::Group("linux".to_owned());
        let why = run(&linux, &OTHERS, None).unwrap_err().to_string();
        assert!(why.starts_with("no bare guest that --model and --cpus are for is called linux;"), "{why}");
        let usual = Machines::default();
        assert_eq!(names(&Filter::All, &usual, &[]), [UNIT, LINT]);
        assert!(names(&Filter::All, &OTHERS, &[]).is_empty());
    }
}
