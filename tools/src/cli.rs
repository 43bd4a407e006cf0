//! The command line of `tools/xmhf`.

use crate::acm::{self, AcmArguments};
use crate::image::{self, ImageOptions};
use crate::mutants;
use crate::quote::{self, VerifyArguments};
use crate::run_arguments::RunArguments;
use crate::sign::{self, SignArguments};
use crate::test::{self, Filter, Machines};
use crate::{bench, book, build, coverage, demo, lint, output, pal, run_arguments};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// XMHF, a small hypervisor beneath one unmodified guest: build it, boot a guest under it, test and measure it.
#[derive(Debug, Parser)]
#[command(name = "tools/xmhf", bin_name = "tools/xmhf", version, arg_required_else_help = true)]
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
        #[arg(value_name = "WHICH", default_value_t)]
        filter: Filter,
        /// Print the tests' names and run none
        #[arg(long)]
        list: bool,
        /// Run the bare guests on this model of processor, in the emulator's words, whatever they ask for
        #[arg(long, value_name = "NAME", conflicts_with = "list")]
        model: Option<String>,
        /// Run the bare guests that want several CPUs, on a machine with this many
        #[arg(long, value_name = "N", conflicts_with = "list", value_parser = clap::value_parser!(u32).range(2..=14))]
        cpus: Option<u32>,
        /// File to write what came of each test to, in JUnit's XML
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
    },
    /// Check format, compiler lints, documentation, dependencies and the house rules
    Lint,
    /// Make the book, with the documentation of all crates as they are on the machine itself
    Docs,
    /// Tell how much of the runtime the host tests execute, and what the machine alone compiles
    Coverage,
    /// Change the code in small ways, one at a time, and see whether the host tests notice
    Mutants(MutantsArguments),
    /// Sign a PAL's file, so that its updates open what it seals
    SignPal(SignArguments),
    /// Check a quote of a PAL's microTPM against the PAL's file, and say why it is not good
    VerifyQuote(VerifyArguments),
    /// Say what modules of Intel TXT are for, and which fits a machine
    Acm(AcmArguments),
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
    #[arg(long, value_name = "I/N", value_parser = mutants::shard)]
    shard: Option<String>,
    /// Only files whose path begins so
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// Only what a diff touches, such as that of `git diff main`
    #[arg(long, value_name = "FILE")]
    in_diff: Option<PathBuf>,
    /// Only changes that no test noticed last time
    #[arg(long)]
    missed: bool,
    /// Only changes that need no build of their own
    #[arg(long)]
    quick: bool,
}

/// Does what the command line says, and gives the exit code.
///
/// # Errors
///
/// What went wrong, for the user.
pub fn execute(cli: Cli) -> Result<ExitCode> {
    let done = match cli.command {
        Command::Build(arguments) => build_what(&arguments),
        Command::Bench { json, only } => bench::bench(json.as_deref(), only),
        Command::Image(arguments) => write_image(arguments),
        Command::Run(arguments) => run_arguments::run(arguments),
        Command::Demo => demo::demo(),
        Command::Test { filter, list: true, .. } => test::list(&filter),
        Command::Test { filter, model, cpus, junit, .. } => {
            test::run(&filter, &Machines { model, cpus }, junit.as_deref())
        }
        Command::Lint => lint::run(),
        Command::Docs => book::report(),
        Command::Coverage => coverage::report(),
        Command::Mutants(arguments) => mutants::run(&arguments.into()),
        Command::SignPal(arguments) => sign::run(&arguments),
        Command::VerifyQuote(arguments) => return quote::verify(&arguments).map(ExitCode::from),
        Command::Acm(arguments) => return acm::run(&arguments).map(ExitCode::from),
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl From<MutantsArguments> for mutants::Wanted {
    fn from(arguments: MutantsArguments) -> Self {
        let MutantsArguments { package, shard, file, in_diff, missed, quick } = arguments;
        Self { package, shard, file, in_diff, missed, quick }
    }
}

fn build_what(arguments: &BuildArguments) -> Result<()> {
    match arguments.pal {
        None => build::report(&build::build()?),
        Some(system) => pal::report(system, arguments.l2),
    }
}

fn write_image(arguments: ImageArguments) -> Result<()> {
    output::create_folder(&arguments.out)?;
    build::build_with(&arguments.hypapp)?;
    let options = ImageOptions { hypapp: arguments.hypapp, ..ImageOptions::default() };
    println!("{}", image::write(&arguments.out, &options)?.display());
    Ok(())
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

    /// What `tools/xmhf` prints without the runner, by file name.
    fn help() -> Vec<(String, String)> {
        let mut command = Cli::command();
        command.build();
        let mut texts = vec![("xmhf".to_owned(), command.render_long_help().to_string())];
        for part in command.get_subcommands_mut().filter(|part| part.get_name() != "help") {
            texts.push((part.get_name().to_owned(), part.render_long_help().to_string()));
        }
        texts
    }

    #[test]
    fn help_without_the_runner_is_what_the_runner_says() {
        let folder = crate::paths::root().join("tools/help");
        let wanted = help();
        for (name, text) in &wanted {
            let path = folder.join(format!("{name}.txt"));
            if std::env::var_os("XMHF_WRITE_HELP").is_some() {
                std::fs::write(&path, text).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(&kept, text, "{name}: XMHF_WRITE_HELP=1 cargo test -p xmhf-tools help writes it anew");
        }
        assert_eq!(folder.read_dir().unwrap().count(), wanted.len(), "a command that is gone");
    }

    #[test]
    fn test_takes_a_filter() {
        assert!(matches!(parse("xmhf test"), Some(Command::Test { filter: Filter::All, .. })));
        assert!(matches!(parse("xmhf test unit"), Some(Command::Test { filter: Filter::Group(_), .. })));
        assert!(matches!(parse("xmhf test reset"), Some(Command::Test { filter: Filter::Name(_), .. })));
        let line = "xmhf test bare --model sapphire_rapids --cpus 8";
        let Some(Command::Test { model, cpus, .. }) = parse(line) else { panic!() };
        assert_eq!((model.as_deref(), cpus), (Some("sapphire_rapids"), Some(8)));
        assert!(parse("xmhf test bare --cpus 1").is_none() && parse("xmhf test bare --cpus 15").is_none());
        assert!(parse("xmhf").is_none());
    }

    #[test]
    fn verify_quote_takes_files_a_nonce_and_registers() {
        let line = "xmhf verify-quote --pal p --quote q --nonce 00 --key k";
        assert!(matches!(parse(line), Some(Command::VerifyQuote(_))));
        let more = "--pcr 1=00 --pcr 2=00 --parameter integer --parameter pointer=128 --flags 1";
        assert!(parse(&format!("{line} {more}")).is_some());
        assert!(parse("xmhf verify-quote --pal p --quote q --key k").is_none());
    }

    #[test]
    fn sign_pal_takes_a_key_and_numbers() {
        let line = "xmhf sign-pal --pal p --key k --product 1 --security-version 2 --out o";
        assert!(matches!(parse(line), Some(Command::SignPal(_))));
        assert!(parse(&format!("{line} --flags 4 --stack-pages 8 --parameter integer")).is_some());
        assert!(parse("xmhf sign-pal --pal p --key k --product 1 --out o").is_none());
    }

    #[test]
    fn acm_takes_files_and_the_whole_of_a_machine_or_none() {
        let machine = "--chipset 8086:b005:1 --processor 306c3 --tpm 2.0";
        assert!(matches!(parse("xmhf acm a b"), Some(Command::Acm(_))));
        assert!(
            parse(&format!("xmhf acm a {machine} --platform 10 --kind client --debug-chipset")).is_some()
        );
        assert!(parse("xmhf acm").is_none() && parse("xmhf acm a --chipset 8086:b005:1").is_none());
        assert!(parse("xmhf acm a --kind client").is_none());
    }

    #[test]
    fn mutants_takes_a_package_and_a_part_of_its_changes() {
        let Some(Command::Mutants(arguments)) = parse("xmhf mutants pals --shard 1/8 --in-diff d --missed")
        else {
            panic!("not understood")
        };
        let wanted = mutants::Wanted::from(arguments);
        assert_eq!((wanted.package, wanted.shard), (Some("pals".into()), Some("1/8".into())));
        assert_eq!((wanted.file, wanted.in_diff), (None, Some("d".into())));
        assert_eq!((wanted.missed, wanted.quick), (true, false));
        for shard in ["3/3", "1", "a/3", "1/0", "-1/3"] {
            assert!(parse(&format!("xmhf mutants --shard {shard}")).is_none(), "{shard}");
        }
    }
}
