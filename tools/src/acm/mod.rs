//! `tools/xmhf acm`: what authenticated code modules are for, and which of them a machine would launch.

mod describe;
mod machine;

use anyhow::{Context, Result};
use clap::Args;
use machine::MachineArguments;
use std::fs;
use std::path::PathBuf;
use txt::acm::Acm;
use txt::choice::choose;

/// Which modules, for which machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct AcmArguments {
    /// Modules, such as the SINITs of Debian's package intel-acm
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    machine: MachineArguments,
}

/// Prints each module, and which fits the machine where one is described; gives whether all are modules, and one fits.
///
/// # Errors
///
/// A file cannot be read.
pub(crate) fn run(arguments: &AcmArguments) -> Result<Verdict> {
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let files: Vec<Vec<u8>> = arguments.files.iter().map(read).collect::<Result<_>>()?;
    let mut modules = Vec::new();
    for (path, file) in arguments.files.iter().zip(&files) {
        match Acm::parse(file) {
            Ok(acm) => {
                println!("{}: {}", path.display(), describe::describe(&acm));
                modules.push((path, acm));
            }
            Err(why) => println!("{}: no module: {why}", path.display()),
        }
    }
    let are_modules = modules.len() == files.len();
    let Some(machine) = arguments.machine.machine() else { return Ok(Verdict(are_modules)) };
    let (paths, modules): (Vec<_>, Vec<_>) = modules.into_iter().unzip();
    let name = |index: usize| paths.get(index).map(|path| path.display().to_string()).unwrap_or_default();
    let chosen = choose(&modules, &machine, |index, why| println!("{} does not fit: {why}", name(index)));
    match chosen {
        Some(index) => println!("{} fits best", name(index)),
        None => println!("none fits"),
    }
    Ok(Verdict(are_modules && chosen.is_some()))
}

/// Whether all was well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict(bool);

impl From<Verdict> for std::process::ExitCode {
    fn from(Verdict(is_well): Verdict) -> Self {
        if is_well { Self::SUCCESS } else { Self::FAILURE }
    }
}
