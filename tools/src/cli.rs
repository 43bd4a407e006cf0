//! The command line of `tools/xmhf`.

use crate::guest::Guest;
use crate::image::{self, ImageOptions};
use crate::machine::{MachineKind, Quirks};
use crate::mutants;
use crate::quote::{self, VerifyArguments};
use crate::run::{self, RunOptions};
use crate::test::{self, Filter};
use crate::{backtrace, bare_guest, bench, build, coverage, demo, lint, pal};
use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// XMHF, a small hypervisor beneath one unmodified guest: build it, boot a guest under it, test and measure it.
#[derive(Debug, Parser)]
#[command(name = "tools/xmhf", arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the bootloader and every hypervisor image into target/xmhf/boot
    Build(BuildArguments),
    /// Measure path lengths beside the C original's, on Bochs
    Bench {
        /// File to write the figures to
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Measure a part alone
        #[arg(long, value_name = "PART")]
        only: Option<bench::Part>,
    },
    /// Write a raw disk with GRUB and the hypervisor, which boots the machine's second disk
    Image(ImageArguments),
    /// Boot a guest under the hypervisor and show both consoles
    Run(RunArguments),
    /// Show in Linux, step by step, how a PAL keeps a secret from root
    Demo,
    /// Run tests: all of them, or one kind
    Test {
        /// unit, lint, bare, linux, boot, or a part of a test's name
        #[arg(default_value_t)]
        filter: Filter,
    },
    /// Check format, compiler lints, documentation and the house rules
    Lint,
    /// Tell how much of the code for nested virtualization the host tests execute
    Coverage,
    /// Change the code in small ways, one at a time, and see whether the host tests notice
    Mutants(MutantsArguments),
    /// Check a quote of a PAL's microTPM against the PAL's file, and say why it is not good
    VerifyQuote(VerifyArguments),
}

#[derive(Args, Debug)]
struct BuildArguments {
    /// Build the PAL programs and the C library instead, into target/xmhf/pal; for Windows by mingw-w64
    #[arg(long, value_name = "SYSTEM")]
    pal: Option<pal::System>,
    /// Build the programs for a guest of a guest
    #[arg(long, requires = "pal")]
    l2: bool,
}

#[derive(Args, Debug)]
struct ImageArguments {
    /// Folder to write the disk to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Hypapp in the image
    #[arg(long, value_name = "NAME", default_value = "helloworld")]
    hypapp: String,
}

#[derive(Args, Debug)]
struct MutantsArguments {
    /// Package whose code is changed, such as pals; all that .cargo/mutants.toml names where there is none
    package: Option<String>,
    /// Every Nth change only, from the Ith on, counted from 0
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Only files that match
    #[arg(long, value_name = "GLOB")]
    file: Option<String>,
    /// Only what a diff touches, such as that of `git diff main`
    #[arg(long, value_name = "FILE")]
    in_diff: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct RunArguments {
    /// linux, linux-686, linux-686-pae, kvm, xen, xen-pvh, xmhf, memtest, mbr, bare:NAME, or the path of a raw disk
    #[arg(long, default_value = "linux")]
    guest: Guest,
    /// bochs, or qemu-kvm where the processor has VMX
    #[arg(long, default_value = "bochs")]
    machine: MachineKind,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..))]
    memory: u32,
    /// Hypapp in the image
    #[arg(long, value_name = "NAME", default_value = "helloworld")]
    hypapp: String,
    /// Boot the same guest without the hypervisor
    #[arg(long)]
    bare: bool,
    /// Folder that keeps disks and console logs
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Does what the command line says.
///
/// # Errors
///
/// What went wrong, for the user.
pub fn execute(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Build(arguments) => build_what(&arguments),
        Command::Bench { json, only } => bench::bench(json.as_deref(), only),
        Command::Image(arguments) => write_image(arguments),
        Command::Run(arguments) => run_guest(arguments),
        Command::Demo => demo::demo(),
        Command::Test { filter } => test::run(&filter),
        Command::Lint => lint::run(),
        Command::Coverage => coverage::report(),
        Command::Mutants(arguments) => mutants::run(&arguments.into()),
        Command::VerifyQuote(arguments) => quote::verify(&arguments),
    }
}

impl From<MutantsArguments> for mutants::Wanted {
    fn from(arguments: MutantsArguments) -> Self {
        let MutantsArguments { package, shard, file, in_diff } = arguments;
        Self { package, shard, file, in_diff }
    }
}

fn build_what(arguments: &BuildArguments) -> Result<()> {
    match arguments.pal {
        None => build::report(&build::build()?),
        Some(system) => pal::report(system, arguments.l2),
    }
}

fn write_image(arguments: ImageArguments) -> Result<()> {
    build::build_with(&arguments.hypapp)?;
    std::fs::create_dir_all(&arguments.out)?;
    let options = ImageOptions { hypapp: arguments.hypapp, ..ImageOptions::default() };
    println!("{}", image::write(&arguments.out, &options)?.display());
    Ok(())
}

fn run_guest(arguments: RunArguments) -> Result<()> {
    if !arguments.bare {
        build::report(&build::build_with(&arguments.hypapp)?)?;
    }
    if arguments.guest == Guest::Xmhf {
        build::build_with(&ImageOptions::inner(0).hypapp)?;
    }
    let options = run_options(arguments)?;
    let outcome = run::run(&options)?;
    println!("{outcome}");
    backtrace::of(&outcome, &options.hypapp).iter().for_each(|line| println!("{line}"));
    match outcome.failure() {
        None => Ok(()),
        Some(why) => bail!("{why}"),
    }
}

/// What the command line asks for; a bare guest is built, and has the machine that its first lines describe.
fn run_options(arguments: RunArguments) -> Result<RunOptions> {
    let mut options = RunOptions {
        guest: arguments.guest,
        machine: arguments.machine,
        cpus: arguments.cpus,
        memory_mib: arguments.memory,
        hypapp: arguments.hypapp,
        bare: arguments.bare,
        keep: arguments.keep,
        // A guest that resets the machine by its keyboard controller comes to a triple fault of the BIOS.
        quirks: Quirks { resets_on_triple_fault: true, ..Quirks::default() },
        ..RunOptions::default()
    };
    if options.hypapp == demo::HYPAPP {
        options.linux.actions = demo::actions();
    }
    if let Guest::Bare(name) = &options.guest {
        let guest = bare_guest::build_one(name)?;
        options.cpus = guest.cpus;
        options.memory_mib = guest.memory_mib;
        options.cpu_model = guest.cpu_model;
        options.arguments = guest.arguments;
        options.hypapp = guest.hypapp;
        options.quirks = Quirks {
            resets_on_triple_fault: guest.resets,
            faults_on_unknown_msrs: !guest.ignores_unknown_msrs,
            ..Quirks::default()
        };
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Option<Command> {
        Cli::try_parse_from(line.split(' ')).ok().map(|cli| cli.command)
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn test_takes_a_filter() {
        assert!(matches!(parse("xmhf test"), Some(Command::Test { filter: Filter::All })));
        assert!(matches!(parse("xmhf test unit"), Some(Command::Test { filter: Filter::Group(_) })));
        assert!(matches!(parse("xmhf test reset"), Some(Command::Test { filter: Filter::Name(_) })));
        assert!(parse("xmhf").is_none());
    }

    #[test]
    fn verify_quote_takes_files_a_nonce_and_registers() {
        let line = "xmhf verify-quote --pal p --quote q --nonce 00 --key k";
        assert!(matches!(parse(line), Some(Command::VerifyQuote(_))));
        assert!(parse(&format!("{line} --pcr 1=00 --pcr 2=00 --parameter-pages 2")).is_some());
        assert!(parse("xmhf verify-quote --pal p --quote q --key k").is_none());
    }

    #[test]
    fn mutants_takes_a_package_and_a_part_of_its_changes() {
        let Some(Command::Mutants(arguments)) = parse("xmhf mutants pals --shard 1/8 --in-diff d") else {
            panic!("not understood")
        };
        let wanted = mutants::Wanted::from(arguments);
        assert_eq!((wanted.package, wanted.shard), (Some("pals".into()), Some("1/8".into())));
        assert_eq!((wanted.file, wanted.in_diff), (None, Some("d".into())));
    }

    #[test]
    fn run_takes_the_guest_and_its_machine() {
        let line =
            "xmhf run --guest disk.img --machine qemu-kvm --cpus 4 --memory 512 --hypapp quiesce --keep k";
        let Some(Command::Run(run)) = parse(line) else { panic!("not understood: {line}") };
        assert_eq!(run.guest, Guest::Image("disk.img".into()));
        assert_eq!((run.machine, run.cpus, run.memory), (MachineKind::QemuKvm, 4, 512));
        assert_eq!((run.hypapp.as_str(), run.bare, run.keep), ("quiesce", false, Some("k".into())));
        let Some(Command::Run(run)) = parse("xmhf run --bare") else { panic!("not understood") };
        assert_eq!((run.guest, run.cpus, run.memory, run.bare), (Guest::Linux, 2, 1024, true));
    }

    #[test]
    fn machines_that_cannot_be_are_refused() {
        for line in ["--cpus 0", "--cpus 256", "--memory 8", "--guest windows", "--machine vmware"] {
            assert!(parse(&format!("xmhf run {line}")).is_none(), "{line}");
        }
    }
}
