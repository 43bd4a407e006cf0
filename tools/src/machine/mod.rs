//! The machines that an image can be booted on.

mod bochs;
mod qemu_kvm;

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;

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
}

/// A machine that runs; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    kind: MachineKind,
    log: PathBuf,
    output: PathBuf,
}

impl Machine<'_> {
    /// Switches the machine on.
    ///
    /// # Errors
    ///
    /// The emulator is not there, cannot run here, or cannot be started.
    pub fn start(&self, kind: MachineKind) -> Result<Running> {
        let mut command = match kind {
            MachineKind::Bochs => bochs::command(self)?,
            MachineKind::QemuKvm => qemu_kvm::command(self)?,
        };
        for file in [self.guest_console(), self.hypervisor_console(), self.log()] {
            // An earlier run may have been kept here.
            let _ = fs::remove_file(file);
        }
        let output = File::create(self.output())?;
        let errors = output.try_clone()?;
        command.current_dir(self.folder).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Running { child, kind, log: self.log(), output: self.output() })
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
        Ok(self.child.try_wait()?)
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

impl Running {
    /// The machine was never switched on, for a reason that may be gone by now.
    #[must_use]
    pub fn may_start_again(&self) -> bool {
        self.kind == MachineKind::Bochs && self.fault().is_some_and(|fault| bochs::has_no_display(&fault))
    }
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
