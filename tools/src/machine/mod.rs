//! The machines that an image can be booted on.

mod bochs;
mod qemu_kvm;
mod terminal;

use anyhow::{Context, Result, bail, ensure};
pub(crate) use bochs::check_model;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use terminal::Terminal;

/// Most memory that the usual machine takes.
pub(crate) const LARGEST_MEMORY_MIB: u32 = bochs::MEMORY_LIMIT_MIB;

/// Kind of machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MachineKind {
    /// The Bochs emulator, which has VMX of its own and runs anywhere.
    #[default]
    Bochs,
    /// QEMU on KVM with nested VMX, for people whose processor has it.
    QemuKvm,
}

impl MachineKind {
    /// Refuses a machine of this kind that cannot be.
    ///
    /// # Errors
    ///
    /// It has more CPUs or memory than there may be; the error names the limit.
    pub fn check(self, cpus: u32, memory_mib: u32) -> Result<()> {
        match self {
            Self::Bochs => bochs::check(cpus, memory_mib),
            Self::QemuKvm => Ok(()),
        }
    }
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// CPU model in the emulator's words; `None` for the usual one.
    pub cpu_model: Option<&'a str>,
    /// Disks in the BIOS's order, the first one is booted. They are not written to.
    pub disks: &'a [PathBuf],
    /// What differs from the usual machine.
    pub quirks: Quirks,
    /// Folder for console files and the machine's own log.
    pub folder: &'a Path,
    /// Whether the guest's console is the runner's own terminal, as well as a file.
    pub is_typed_at: bool,
}

/// What an emulated machine can be made to do differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// A triple fault resets the machine; otherwise it ends the run.
    pub resets_on_triple_fault: bool,
    /// An MSR that the emulator does not know takes #GP, as on a processor; otherwise it reads as zero.
    pub faults_on_unknown_msrs: bool,
    /// A BIOS from before ACPI, which describes the machine to nobody.
    pub has_legacy_bios: bool,
    /// The devices of `tools/devices` besides the emulator's own; their registers are told of there.
    pub has_devices: bool,
}

/// A machine that runs; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    kind: MachineKind,
    log: PathBuf,
    output: PathBuf,
    start: Instant,
    /// Those that copy what comes from a terminal.
    copying: Vec<JoinHandle<()>>,
    /// A terminal's other side, open until the machine ends, for it may never open that.
    held: Option<File>,
}

impl Machine<'_> {
    /// Switches the machine on.
    ///
    /// # Errors
    ///
    /// The emulator is not there, cannot run here, or cannot be started.
    pub fn start(&self, kind: MachineKind) -> Result<Running> {
        for file in [self.guest_console(), self.hypervisor_console(), self.log()] {
            // An earlier run may have been kept here.
            let _ = fs::remove_file(file);
        }
        let (mut copying, mut held) = (Vec::new(), None);
        let output = Box::new(File::create(self.output())?);
        let mut command = match kind {
            MachineKind::Bochs => {
                let typed = self.is_typed_at.then(Terminal::open).transpose()?;
                if let Some(terminal) = &typed {
                    terminal.type_from_here()?;
                    held = Some(terminal.theirs()?);
                    let console = Box::new(File::create(self.guest_console())?);
                    copying.push(terminal.copy_to(vec![console, Box::new(std::io::stdout())])?);
                }
                let mut command = bochs::command(self, typed.as_ref())?;
                let screen = Terminal::open()?;
                command.stdin(screen.theirs()?).stdout(screen.theirs()?).stderr(screen.theirs()?);
                copying.push(screen.copy_to(vec![output])?);
                command
            }
            MachineKind::QemuKvm => {
                ensure!(!self.is_typed_at, "a shell is to be had with --machine bochs alone");
                let mut command = qemu_kvm::command(self)?;
                command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(*output);
                command
            }
        };
        command.current_dir(self.folder);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Running {
            child,
            kind,
            log: self.log(),
            output: self.output(),
            start: Instant::now(),
            copying,
            held,
        })
    }

    /// File that COM1, the guest's console, is written to.
    #[must_use]
    pub fn guest_console(&self) -> PathBuf {
        self.folder.join("guest.log")
    }

    /// File that COM2, the hypervisor's console, is written to.
    #[must_use]
    pub fn hypervisor_console(&self) -> PathBuf {
        self.folder.join("xmhf.log")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("machine.log")
    }

    fn output(&self) -> PathBuf {
        self.folder.join("machine.out")
    }
}

impl Running {
    /// Whether the machine has ended, and how the emulator's process did.
    ///
    /// # Errors
    ///
    /// The system's, on waiting for the process.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            // What it said last is to be in its files. A thread does not panic.
            self.held = None;
            self.copying.drain(..).for_each(|copying| drop(copying.join()));
        }
        Ok(status)
    }

    /// Time that the machine has had: of a processor, for an emulator always works; or else by the clock. What else runs
    /// on this machine does not change the former.
    #[must_use]
    pub fn used(&self) -> Duration {
        match self.kind {
            MachineKind::Bochs => processor_time(self.child.id()).unwrap_or_default(),
            MachineKind::QemuKvm => self.start.elapsed(),
        }
    }

    /// Why the machine that has ended did, in the emulator's words, where that was not an orderly end.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        match self.kind {
            MachineKind::Bochs => bochs::fault(&read(&self.log), &read(&self.output)),
            MachineKind::QemuKvm => qemu_kvm::fault(&read(&self.output)),
        }
    }
}

/// Processor time of a process and its threads, in user and kernel mode (Linux, "The /proc Filesystem", "Contents of the
/// stat files").
fn processor_time(process: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name that may hold anything, in parentheses.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map_while(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(
        Duration::from_secs(1) * u32::try_from(ticks).ok()?
            / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?,
    )
}

impl Drop for Running {
    fn drop(&mut self) {
        // A machine whose CPUs are halted ignores a polite request. One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl FromStr for MachineKind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "bochs" => Ok(Self::Bochs),
            "qemu-kvm" => Ok(Self::QemuKvm),
            _ => bail!("no machine is called {name}: bochs or qemu-kvm"),
        }
    }
}

/// A command that is killed with the runner, however that ends.
fn tethered(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_the_process() {
        let mut idle = Command::new("sleep").arg("60").spawn().unwrap();
        let time = processor_time(idle.id());
        idle.kill().and_then(|()| idle.wait()).unwrap();
        assert!(time.is_some_and(|time| time < Duration::from_secs(1)), "{time:?}");
        let start = Instant::now();
        while processor_time(std::process::id()).unwrap() < Duration::from_millis(100) {
            assert!(start.elapsed() < Duration::from_secs(60));
        }
    }
}
