//! One run: disks made, machine booted, both consoles told live, and a verdict from what they said.

use crate::console::Console;
use crate::guest::{Expectation, Guest, LinuxOptions};
use crate::image::{self, ImageOptions, Multiboot};
use crate::machine::{Machine, MachineKind, Quirks, Running};
use crate::stage::{Origin, Stage};
use crate::verdict::{End, Outcome};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);
/// How long a guest that has shown its marker may take to switch the machine off.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// How long the consoles have to be silent after a stop or a panic, whose dump takes its time.
const SILENCE: Duration = Duration::from_secs(1);

/// What to run, and on what.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The guest.
    pub guest: Guest,
    /// What the Linux guest is told.
    pub linux: LinuxOptions,
    /// The machine.
    pub machine: MachineKind,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// CPU model in the emulator's words; `None` for the usual one.
    pub cpu_model: Option<String>,
    /// What differs from the usual machine.
    pub quirks: Quirks,
    /// Name of the hypapp.
    pub hypapp: String,
    /// Words for the bootloader's command line, behind the console and the drive.
    pub arguments: String,
    /// GRUB's protocol for the hypervisor.
    pub multiboot: Multiboot,
    /// A disk with GRUB and the hypervisor, made already; the three options above mean nothing then.
    pub hypervisor_disk: Option<PathBuf>,
    /// Whether the guest runs without the hypervisor.
    pub bare: bool,
    /// Folder that keeps images and consoles; `None` for a temporary one.
    pub keep: Option<PathBuf>,
    /// Host time after which the run has failed.
    pub timeout: Duration,
    /// Whether consoles are not shown as they come.
    pub quiet: bool,
    /// Words in the guest's lines of which the rest is shown, in quiet runs too.
    pub narration: Option<&'static str>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            guest: Guest::default(),
            linux: LinuxOptions::default(),
            machine: MachineKind::default(),
            cpus: 2,
            memory_mib: 1024,
            cpu_model: None,
            quirks: Quirks::default(),
            hypapp: "helloworld".into(),
            arguments: String::new(),
            multiboot: Multiboot::default(),
            hypervisor_disk: None,
            bare: false,
            keep: None,
            timeout: Duration::from_secs(900),
            quiet: false,
            narration: None,
        }
    }
}

/// How often a machine is started that the emulator could not switch on.
const STARTS: u32 = 3;

/// Makes the disks, boots the machine and follows it to its end. With the hypervisor, bootloader and
/// hypervisor image have to be built already.
///
/// # Errors
///
/// The run could not be made. A guest that fails is an [`Outcome`], not an error.
pub fn run(options: &RunOptions) -> Result<Outcome> {
    let temporary = tempfile::Builder::new().prefix("xmhf-run-").tempdir()?;
    let folder = match &options.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            folder.canonicalize()?
        }
        None => temporary.path().to_path_buf(),
    };
    let disks = disks(options, &folder)?;
    let machine = Machine {
        cpus: options.cpus,
        memory_mib: options.memory_mib,
        cpu_model: options.cpu_model.as_deref(),
        disks: &disks,
        quirks: options.quirks,
        folder: &folder,
    };
    let mut starts = 1;
    loop {
        let mut observer = Observer::new(&machine, options);
        let mut running = machine.start(options.machine)?;
        observer.follow(&mut running)?;
        if starts == STARTS || !running.may_start_again() {
            return Ok(observer.outcome);
        }
        starts += 1;
    }
}

fn disks(options: &RunOptions, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut linux = options.linux.clone();
    if options.bare {
        // Bochs forgets to unlock IA32_FEATURE_CONTROL on the keyboard controller's reset, and its BIOS dies of it.
        linux.arguments.push_str(" reboot=pci");
        return guest_disks(options, folder, &linux, 0);
    }
    let guest = guest_disks(options, folder, &linux, 1)?;
    if let Some(disk) = &options.hypervisor_disk {
        return Ok([vec![disk.canonicalize()?], guest].concat());
    }
    let defaults = ImageOptions::default();
    let arguments = format!("{} {}", defaults.arguments, options.arguments).trim_end().to_owned();
    let hypervisor = ImageOptions {
        hypapp: options.hypapp.clone(),
        arguments,
        multiboot: options.multiboot,
        ..ImageOptions::default()
    };
    Ok([vec![image::write(folder, &hypervisor)?], guest].concat())
}

/// The disks behind the first `before`: the guest's, which another hypervisor's may come before.
fn guest_disks(
    options: &RunOptions,
    folder: &Path,
    linux: &LinuxOptions,
    before: u8,
) -> Result<Vec<PathBuf>> {
    let guest = options.guest.disk(folder, linux)?;
    if options.guest != Guest::Xmhf {
        return Ok(vec![guest]);
    }
    Ok(vec![image::write(&folder.join("inner"), &ImageOptions::inner(before + 1))?, guest])
}

/// Follows a machine's consoles and gathers what they say.
#[derive(Debug)]
struct Observer {
    consoles: [(Origin, Console); 2],
    expectation: Expectation,
    quiet: bool,
    narration: Option<&'static str>,
    timeout: Duration,
    start: Instant,
    marked: Option<Instant>,
    last_line: Instant,
    outcome: Outcome,
}

impl Observer {
    fn new(machine: &Machine<'_>, options: &RunOptions) -> Self {
        let guest = Console::new(machine.guest_console());
        let hypervisor = Console::new(machine.hypervisor_console());
        let observer = Self {
            consoles: [(Origin::Hypervisor, hypervisor), (Origin::Guest, guest)],
            expectation: options.guest.expectation(),
            quiet: options.quiet,
            narration: options.narration,
            timeout: options.timeout,
            start: Instant::now(),
            marked: None,
            last_line: Instant::now(),
            outcome: Outcome::new(options.bare),
        };
        observer.show_stage(Stage::Firmware);
        observer
    }

    fn follow(&mut self, running: &mut Running) -> Result<()> {
        let end = loop {
            let ended = running.ended()?;
            self.read_consoles()?;
            if ended.is_some() {
                break running.fault().map_or(End::Off, End::Fault);
            }
            if let Some(end) = self.give_up() {
                break end;
            }
            sleep(POLL);
        };
        self.outcome.finish(
            end,
            self.marked.is_some() || self.expectation.marker.is_none(),
            self.start.elapsed(),
        );
        let rest =
            self.consoles.iter().filter_map(|(origin, console)| Some((*origin, console.partial_line()?)));
        for (origin, line) in rest.collect::<Vec<_>>() {
            self.take_in(origin, &line);
        }
        Ok(())
    }

    /// Whether the machine has to be ended although it runs.
    fn give_up(&self) -> Option<End> {
        let since_marker = self.marked.map(|at| at.elapsed());
        if since_marker.is_some() && self.expectation.endless {
            return Some(End::Endless);
        }
        if self.outcome.is_hopeless() && self.last_line.elapsed() > SILENCE {
            return Some(End::GaveUp);
        }
        let late = self.start.elapsed() > self.timeout || since_marker.is_some_and(|time| time > LAST_WORDS);
        late.then_some(End::Timeout)
    }

    fn read_consoles(&mut self) -> Result<()> {
        for index in 0..self.consoles.len() {
            let (origin, console) = &mut self.consoles[index];
            let origin = *origin;
            for line in console.read_lines().context("reading a console")? {
                self.take_in(origin, &line);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, origin: Origin, line: &str) {
        if !self.quiet {
            println!("{origin} {line}");
        }
        let told = self.narration.and_then(|words| line.split_once(words));
        if let Some((_, text)) = told.filter(|_| origin == Origin::Guest) {
            println!("- {text}");
        }
        self.last_line = Instant::now();
        let contains = |words: Option<&str>| words.is_some_and(|words| line.contains(words));
        if origin == Origin::Guest && contains(self.expectation.marker) {
            self.marked = Some(Instant::now());
        }
        let failed = origin == Origin::Guest && contains(self.expectation.failure);
        let stage = self.outcome.read_line(origin, line, failed);
        if let Some(stage) = stage {
            self.show_stage(stage);
        }
    }

    fn show_stage(&self, stage: Stage) {
        if !self.quiet {
            println!("------ {:7.1} s  {stage}", self.start.elapsed().as_secs_f64());
        }
    }
}
