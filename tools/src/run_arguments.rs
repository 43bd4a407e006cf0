//! `tools/xmhf run`: what its command line says of the machine and the guest.

use crate::bare_guest::{self, BareGuest};
use crate::guest::{Guest, LinuxOptions};
use crate::image::ImageOptions;
use crate::machine::{MachineKind, Quirks};
use crate::run::{self, RunOptions};
use crate::{backtrace, build, demo, output};
use anyhow::{Result, bail, ensure};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `tools/xmhf run` takes.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
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
    #[arg(long, value_name = "NAME", conflicts_with = "bare")]
    hypapp: Option<String>,
    /// Words for the bootloader's command line, behind the usual ones
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true, conflicts_with = "bare")]
    args: Option<String>,
}

/// Builds what is needed, boots the guest and says how it went.
///
/// # Errors
///
/// The run could not be made, or failed.
pub(crate) fn run(arguments: RunArguments) -> Result<()> {
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
        has_devices: guest.has_devices,
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
    refuse_at_once(&arguments)?;
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

/// What cannot be run is refused before anything is built for it.
fn refuse_at_once(arguments: &RunArguments) -> Result<()> {
    let RunArguments { machine, machine_wishes: wishes, module, add, guest, keep, shell, .. } = arguments;
    refuse_a_used_folder(keep.as_deref())?;
    keep.as_deref().map(output::create_folder).transpose()?;
    let usual = RunOptions::default();
    machine.check(wishes.cpus.unwrap_or(usual.cpus), wishes.memory.unwrap_or(usual.memory_mib))?;
    ensure!(!shell || *machine == MachineKind::Bochs, "a shell is to be had with --machine bochs alone");
    let disk = if let Guest::Image(path) = guest { Some(path) } else { None };
    for file in add.iter().chain(module).chain(disk) {
        ensure!(file.exists(), "there is no file {}", file.display());
    }
    Ok(())
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
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArguments,
    }

    fn parse(line: &str) -> Option<RunArguments> {
        Line::try_parse_from(line.split(' ').filter(|word| *word != "run")).ok().map(|line| line.run)
    }

    #[test]
    fn run_takes_the_guest_and_its_machine() {
        let line =
            "xmhf run --guest disk.img --machine qemu-kvm --cpus 4 --memory 512 --hypapp quiesce --keep k";
        let Some(run) = parse(line) else { panic!("not understood: {line}") };
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
        let Some(run) = parse(line) else { bail!("not understood: {line}") };
        run_options(run)
    }

    #[test]
    fn ones_own_things_find_their_way_in() {
        let run = options("xmhf run --args -x=1 --module Cargo.toml --add xmhf --add get-bochs --exec ./a")
            .unwrap();
        assert_eq!((run.arguments.as_str(), run.module), ("-x=1", Some("Cargo.toml".into())));
        assert_eq!(run.linux.added, [PathBuf::from("xmhf"), "get-bochs".into()]);
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
            let Some(run) = parse(line) else { panic!("not understood: {line}") };
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
    fn what_cannot_be_run_is_refused_before_anything_is_built() {
        for (line, why) in [
            ("--cpus 33", "Bochs takes at most 14 CPUs, not 33"),
            ("--guest bare:hello --cpus 33", "Bochs takes at most 14 CPUs, not 33"),
            ("--memory 262145", "Bochs takes at most 262144 MiB of memory, not 262145"),
            ("--module /nowhere/x", "there is no file /nowhere/x"),
            ("--add Cargo.toml --add /nowhere/y", "there is no file /nowhere/y"),
            ("--guest /nowhere/disk.img", "there is no file /nowhere/disk.img"),
            ("--keep /proc/nowhere", "creating /proc/nowhere"),
            ("--shell --machine qemu-kvm", "a shell is to be had with --machine bochs alone"),
        ] {
            let Some(arguments) = parse(&format!("xmhf run {line}")) else {
                panic!("not understood: {line}")
            };
            assert_eq!(refuse_at_once(&arguments).unwrap_err().to_string(), why, "{line}");
        }
        assert!(refuse_at_once(&parse("xmhf run --machine qemu-kvm --cpus 33").unwrap()).is_ok());
    }

    #[test]
    fn without_the_hypervisor_nothing_is_for_it() {
        for words in ["--hypapp quiesce", "--args nested=off", "--module Cargo.toml"] {
            assert!(parse(&format!("xmhf run {words}")).is_some(), "{words}");
            assert!(parse(&format!("xmhf run --bare {words}")).is_none(), "{words}");
        }
    }

    #[test]
    fn machines_that_cannot_be_are_refused() {
        for line in ["--cpus 0", "--cpus 256", "--memory 8", "--guest windows", "--machine vmware"] {
            assert!(parse(&format!("xmhf run {line}")).is_none(), "{line}");
        }
    }
}
