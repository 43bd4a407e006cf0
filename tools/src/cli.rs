//! The command line of `tools/xmhf`.

use crate::bare_guest::BareGuest;
use crate::guest::{Guest, LinuxOptions};
use crate::image::{self, ImageOptions};
use crate::machine::{MachineKind, Quirks};
use crate::mutants;
use crate::quote::{self, VerifyArguments};
use crate::run::{self, RunOptions};
use crate::test::{self, Filter};
use crate::{backtrace, bare_guest, bench, build, coverage, demo, doc, lint, output, pal};
use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};

/// XMHF, a small hypervisor beneath one unmodified guest: build it, boot a guest under it, test and measure it.
#[derive(Debug, Parser)]
#[command(name = "tools/xmhf", version, arg_required_else_help = true)]
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
        /// File to write what came of each test to, in JUnit's XML
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
    },
    /// Check format, compiler lints, documentation, dependencies and the house rules
    Lint,
    /// Make the documentation of all crates, as they are on the machine itself
    Doc,
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
    #[command(flatten)]
    machine_wishes: MachineWishes,
    /// File that GRUB loads for the hypapp
    #[arg(long, value_name = "FILE", conflicts_with = "bare")]
    module: Option<PathBuf>,
    /// File for the Linux guest, which finds it in /add; may be given again
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// What the Linux guest's shell runs, in /add, instead of the usual actions
    #[arg(long, value_name = "COMMAND", conflicts_with = "shell")]
    exec: Option<String>,
    /// Give the Linux guest's shell to this terminal; `exit` switches the machine off, Ctrl-C ends it
    #[arg(long)]
    shell: bool,
    /// Boot the same guest without the hypervisor
    #[arg(long)]
    bare: bool,
    /// New or empty folder that keeps disks and console logs
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// File to write the summary to, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a bare guest's own first lines say otherwise.
#[derive(Args, Debug)]
struct MachineWishes {
    /// Number of CPUs, 2 unless a bare guest says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: Option<u32>,
    /// Memory in MiB, 1024 unless a bare guest says otherwise
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(16..))]
    memory: Option<u32>,
    /// Hypapp in the image, helloworld unless a bare guest says otherwise
    #[arg(long, value_name = "NAME")]
    hypapp: Option<String>,
    /// Words for the bootloader's command line, behind the usual ones
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    args: Option<String>,
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
        Command::Test { filter, list: true, .. } => test::list(&filter),
        Command::Test { filter, junit, .. } => test::run(&filter, junit.as_deref()),
        Command::Lint => lint::run(),
        Command::Doc => doc::report(),
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
    let json = arguments.json.as_deref().map(output::create).transpose()?;
    let options = run_options(arguments)?;
    if !options.bare {
        build::report(&build::build_with(&options.hypapp)?)?;
    }
    if options.guest == Guest::Xmhf {
        build::build_with(&ImageOptions::inner(0).hypapp)?;
    }
    let outcome = run::run(&options)?;
    println!("{outcome}");
    backtrace::of(&outcome, &options.hypapp).iter().for_each(|line| println!("{line}"));
    if let Some(mut file) = json {
        writeln!(file, "{:#}", outcome.to_json())?;
    }
    match outcome.failure() {
        None => Ok(()),
        Some(why) => bail!("{why}"),
    }
}

/// Gives the machine what a bare guest's first lines say of it.
fn describe(options: &mut RunOptions, guest: BareGuest) {
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

impl MachineWishes {
    /// Puts what the command line says in the place of the guest's usual machine.
    fn replace(self, options: &mut RunOptions) {
        options.cpus = self.cpus.unwrap_or(options.cpus);
        options.memory_mib = self.memory.unwrap_or(options.memory_mib);
        options.hypapp = self.hypapp.unwrap_or_else(|| std::mem::take(&mut options.hypapp));
        if let Some(words) = self.args {
            // The last of two words with one key wins.
            options.arguments = format!("{} {words}", options.arguments).trim().to_owned();
        }
    }
}

/// What the command line asks for; a bare guest is built, and has the machine that its first lines describe where the
/// command line does not.
fn run_options(arguments: RunArguments) -> Result<RunOptions> {
    refuse_a_used_folder(arguments.keep.as_deref())?;
    let mut options = RunOptions {
        guest: arguments.guest,
        machine: arguments.machine,
        bare: arguments.bare,
        keep: arguments.keep,
        module: arguments.module,
        is_typed_at: arguments.shell,
        // A guest that resets the machine by its keyboard controller comes to a triple fault of the BIOS.
        quirks: Quirks { resets_on_triple_fault: true, ..Quirks::default() },
        ..RunOptions::default()
    };
    if let Guest::Bare(name) = &options.guest {
        let guest = bare_guest::build_one(name)?;
        describe(&mut options, guest);
    }
    arguments.machine_wishes.replace(&mut options);
    if options.hypapp == demo::HYPAPP {
        options.linux.actions = demo::actions();
    }
    if arguments.shell {
        options.linux.actions = vec![LinuxOptions::SHELL.into()];
    }
    if arguments.exec.is_some() {
        options.linux.actions = vec![LinuxOptions::EXEC.into()];
    }
    options.linux.added = arguments.add;
    options.linux.command = arguments.exec;
    let is_own = arguments.shell || options.linux.command.is_some() || !options.linux.added.is_empty();
    ensure!(
        !is_own || matches!(options.guest, Guest::Linux | Guest::Xmhf),
        "--add, --exec and --shell are for the guests linux and xmhf"
    );
    Ok(options)
}

/// A folder that holds a run would get a second one's files among the first one's.
fn refuse_a_used_folder(keep: Option<&Path>) -> Result<()> {
    let is_used = |folder: &Path| folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if let Some(folder) = keep.filter(|folder| is_used(folder)) {
        bail!("--keep: {} holds something already; name another folder", folder.display());
    }
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
        assert_eq!((run.machine, run.machine_wishes.cpus), (MachineKind::QemuKvm, Some(4)));
        assert_eq!(
            (run.machine_wishes.memory, run.machine_wishes.hypapp.as_deref()),
            (Some(512), Some("quiesce"))
        );
        assert_eq!((run.bare, run.keep), (false, Some("k".into())));
        let options = options("xmhf run --bare").unwrap();
        assert_eq!(
            (options.guest, options.cpus, options.memory_mib, options.bare),
            (Guest::Linux, 2, 1024, true)
        );
    }

    fn options(line: &str) -> Result<RunOptions> {
        let Some(Command::Run(run)) = parse(line) else { bail!("not understood: {line}") };
        run_options(run)
    }

    #[test]
    fn ones_own_things_find_their_way_in() {
        let run = options("xmhf run --args -x=1 --module m --add a --add b --exec ./a").unwrap();
        assert_eq!((run.arguments.as_str(), run.module), ("-x=1", Some("m".into())));
        assert_eq!(run.linux.added, [PathBuf::from("a"), "b".into()]);
        assert_eq!((run.linux.actions, run.linux.command), (vec!["exec".to_owned()], Some("./a".into())));
        let run = options("xmhf run --shell --hypapp trustvisor").unwrap();
        assert!(run.is_typed_at && run.linux.actions == ["shell"] && run.hypapp == "trustvisor");
        assert!(options("xmhf run --guest mbr --exec ls").is_err());
        assert!(options("xmhf run --exec ls --shell").is_err());
    }

    #[test]
    fn the_command_line_counts_for_a_bare_guest_too() {
        let guest = "//! Title.\n//! cpus: 2\n//! hypapp: quiesce\n//! cmdline: nested=off\n";
        let machine = |line: &str| {
            let Some(Command::Run(run)) = parse(line) else { panic!("not understood: {line}") };
            let mut options = RunOptions::default();
            describe(&mut options, BareGuest::from_source("probe", guest).unwrap());
            run.machine_wishes.replace(&mut options);
            (options.cpus, options.memory_mib, options.hypapp, options.arguments)
        };
        let own = machine("xmhf run --guest bare:probe");
        assert_eq!(own, (2, 64, "quiesce".to_owned(), "nested=off".to_owned()));
        let other =
            machine("xmhf run --guest bare:probe --cpus 3 --memory 128 --hypapp verify --args nested=on");
        assert_eq!(other, (3, 128, "verify".to_owned(), "nested=off nested=on".to_owned()));
    }

    #[test]
    fn a_folder_that_holds_a_run_takes_no_other() {
        let folder = tempfile::tempdir().unwrap();
        assert!(refuse_a_used_folder(Some(folder.path())).is_ok());
        assert!(refuse_a_used_folder(Some(&folder.path().join("absent"))).is_ok());
        std::fs::write(folder.path().join("guest.log"), "").unwrap();
        let why = refuse_a_used_folder(Some(folder.path())).unwrap_err().to_string();
        assert!(why.contains(&*folder.path().to_string_lossy()), "{why}");
    }

    #[test]
    fn machines_that_cannot_be_are_refused() {
        for line in ["--cpus 0", "--cpus 256", "--memory 8", "--guest windows", "--machine vmware"] {
            assert!(parse(&format!("xmhf run {line}")).is_none(), "{line}");
        }
    }
}
