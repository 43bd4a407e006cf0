//! One run: disks made, machine booted, both consoles told live, and a verdict from what they said.

use crate::console::Console;
use crate::guest::{Expectation, Guest, LinuxOptions};
use crate::image::{self, ImageOptions, Multiboot};
use crate::machine::{Machine, MachineKind, Quirks, Running};
use crate::stage::{Origin, Stage};
use crate::verdict::{End, Outcome};
use crate::{interrupt, output};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);
/// The longest run, in times of the longest silence.
const MOST: u32 = 20;
/// How long a guest that has shown its marker may be silent until it switches the machine off.
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
    /// File that GRUB loads for the hypapp.
    pub module: Option<PathBuf>,
    /// GRUB's protocol for the hypervisor.
    pub multiboot: Multiboot,
    /// A disk with GRUB and the hypervisor, made already; the four options above mean nothing then.
    pub hypervisor_disk: Option<PathBuf>,
    /// Whether the guest runs without the hypervisor.
    pub bare: bool,
    /// Folder that keeps images and consoles; `None` for a temporary one.
    pub keep: Option<PathBuf>,
    /// What the machine may take without a word on a console, in time that it has ([`Running::used`]); twenty times of it
    /// it may take in all.
    pub patience: Duration,
    /// Whether the guest's console is the runner's terminal.
    pub is_typed_at: bool,
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
            module: None,
            multiboot: Multiboot::default(),
            hypervisor_disk: None,
            bare: false,
            keep: None,
            patience: Duration::from_secs(900),
            is_typed_at: false,
            quiet: false,
            narration: None,
        }
    }
}

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
            output::create_folder(folder)?;
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
        is_typed_at: options.is_typed_at,
    };
    let mut observer = Observer::new(&machine, options);
    observer.follow(&mut machine.start(options.machine)?)?;
    Ok(observer.outcome)
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
        module: options.module.clone(),
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
    /// Whether the guest's console is shown by itself.
    is_typed_at: bool,
    narration: Option<&'static str>,
    patience: Duration,
    start: Instant,
    marked: Option<Instant>,
    last_line: Instant,
    /// What the machine had used when the last line came.
    used_at_line: Duration,
    is_line_new: bool,
    outcome: Outcome,
}

impl Observer {
    fn new(machine: &Machine<'_>, options: &RunOptions) -> Self {
        let guest = Console::new(machine.guest_console());
        let hypervisor = Console::new(machine.hypervisor_console());
        let mut outcome = Outcome::new(options.bare);
        outcome.has_userspace = options.guest.has_userspace();
        let observer = Self {
            consoles: [(Origin::Hypervisor, hypervisor), (Origin::Guest, guest)],
            expectation: options.guest.expectation(),
            quiet: options.quiet,
            narration: options.narration,
            is_typed_at: options.is_typed_at,
            patience: options.patience,
            start: Instant::now(),
            marked: None,
            last_line: Instant::now(),
            used_at_line: Duration::ZERO,
            is_line_new: false,
            outcome,
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
            let used = running.used();
            if std::mem::take(&mut self.is_line_new) {
                self.used_at_line = used;
            }
            if let Some(end) = self.give_up(used) {
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

    /// Whether the machine has to be ended although it runs, having used so much time.
    fn give_up(&self, used: Duration) -> Option<End> {
        if interrupt::is_requested() {
            return Some(End::Interrupted);
        }
        let since_marker = self.marked.map(|at| at.elapsed());
        if since_marker.is_some() && self.expectation.endless {
            return Some(End::Endless);
        }
        if self.outcome.is_hopeless() && self.last_line.elapsed() > SILENCE {
            return Some(End::GaveUp);
        }
        let silent = used.saturating_sub(self.used_at_line);
        // A person at the console may take any time.
        let is_late = !self.is_typed_at && (silent > self.patience || used > self.patience * MOST);
        let is_over = is_late || self.marked.is_some() && silent > LAST_WORDS;
        is_over.then_some(End::Timeout)
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
        if !(self.quiet || self.is_typed_at && origin == Origin::Guest) {
            println!("{origin} {line}");
        }
        let told = self.narration.and_then(|words| line.split_once(words));
        if let Some((_, text)) = told.filter(|_| origin == Origin::Guest) {
            println!("- {text}");
        }
        self.last_line = Instant::now();
        self.is_line_new = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn observer(options: &RunOptions) -> Observer {
        let machine = Machine {
            cpus: 1,
            memory_mib: 64,
            cpu_model: None,
            disks: &[],
            quirks: Quirks::default(),
            folder: Path::new("/nowhere"),
            is_typed_at: options.is_typed_at,
        };
        Observer::new(&machine, &RunOptions { quiet: true, ..options.clone() })
    }

    #[test]
    fn a_run_is_given_up_for_its_silence_and_not_for_its_length() {
        let options = RunOptions { patience: Duration::from_secs(10), ..RunOptions::default() };
        let mut observer = observer(&options);
        let second = Duration::from_secs;
        assert_eq!(observer.give_up(second(10)), None);
        assert_eq!(observer.give_up(second(11)), Some(End::Timeout));
        observer.used_at_line = second(100);
        assert_eq!(observer.give_up(second(110)), None);
        assert_eq!(observer.give_up(second(111)), Some(End::Timeout));
        // Whoever talks for ever ends too.
        observer.used_at_line = second(201);
        assert_eq!(observer.give_up(second(201)), Some(End::Timeout));
    }

    #[test]
    fn a_person_at_the_console_has_any_time() {
        let observer = observer(&RunOptions { is_typed_at: true, ..RunOptions::default() });
        assert_eq!(observer.give_up(Duration::from_secs(1 << 30)), None);
    }

    #[test]
    fn a_line_renews_the_patience() {
        let mut observer = observer(&RunOptions::default());
        observer.take_in(Origin::Guest, "alive");
        assert!(observer.is_line_new);
    }
}
