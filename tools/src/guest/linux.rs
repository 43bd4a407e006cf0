//! Debian's cloud kernel and our initramfs on a disk that GRUB boots.

use super::{initramfs, package};
use crate::disk::Disk;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const META_PACKAGE: &str = "linux-image-cloud-amd64";
const PREFIX: &str = "linux-image-";
/// The console tells notices, the kernel's banner among them, and worse: a byte costs thousands of ticks.
/// HLT instead of MWAIT, because under VMX Bochs now and then sleeps through the store that should end an MWAIT.
const ARGUMENTS: &str = "console=ttyS0,115200 loglevel=6 nokaslr mitigations=off no_timer_check nowatchdog \
                         idle=halt random.trust_cpu=on";

/// Folder, and file, of what the user brings; init knows them.
const ADDED: &str = "add";
const COMMAND: &str = "command";

/// The action that needs kernel modules.
const KVM: &str = "kvm";
/// What the actions begin with that run PAL programs.
const PAL: &str = "pal_";
/// The one of them that runs the examples of the SDK's README.
const README: &str = "pal_readme";
const MODULES: [&str; 3] = ["virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-intel.ko"];

/// What the Linux guest is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxOptions {
    /// What init does, by name, see `tools/initramfs`; then it switches the machine off.
    pub actions: Vec<String>,
    /// Words for the kernel's command line beyond the usual ones.
    pub arguments: String,
    /// Files of this machine for the guest's folder `/add`.
    pub added: Vec<PathBuf>,
    /// What the action [`LinuxOptions::EXEC`] has the shell run.
    pub command: Option<String>,
}

impl Default for LinuxOptions {
    /// Two short actions, and none of the kernel's tests of its own cryptography, which are half of its start.
    fn default() -> Self {
        Self {
            actions: ["forkexec", "program32"].map(String::from).to_vec(),
            arguments: "cryptomgr.notests".into(),
            added: Vec::new(),
            command: None,
        }
    }
}

impl LinuxOptions {
    /// The action that runs [`LinuxOptions::command`].
    pub const EXEC: &str = "exec";
    /// The action that gives the console to a shell.
    pub const SHELL: &str = "shell";

    /// Whether the guest gets the PAL programs, which take minutes to build the first time: for what runs them, and for a
    /// user at its shell.
    fn has_pals(&self) -> bool {
        let others = [KVM, Self::EXEC, Self::SHELL];
        self.actions.iter().any(|action| action.starts_with(PAL) || others.contains(&action.as_str()))
    }

    /// Whether the guest gets the examples too, each of which is a build of its own.
    fn has_examples(&self) -> bool {
        self.actions.iter().any(|action| action == README)
    }

    /// Name in the initramfs, and contents, of what the user brings.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let added = self.added.iter().map(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("--add: {} has no name", path.display()))?;
            let bytes = fs::read(path).with_context(|| format!("--add: reading {}", path.display()))?;
            Ok((format!("{ADDED}/{name}"), bytes))
        });
        let command =
            self.command.iter().map(|command| Ok((COMMAND.to_owned(), format!("{command}\n").into_bytes())));
        added.chain(command).collect()
    }

    /// Linux as a hypervisor, which KVM makes it.
    #[must_use]
    pub fn kvm() -> Self {
        Self { actions: vec![KVM.into()], ..Self::default() }
    }
}

/// Writes the guest's disk.
///
/// # Errors
///
/// Kernel or busybox cannot be fetched, or the disk cannot be made.
pub(super) fn write_disk(path: &Path, options: &LinuxOptions) -> Result<()> {
    let kernel = kernel()?;
    let modules = if options.actions.iter().any(|action| action == KVM) { modules()? } else { Vec::new() };
    let mut others = options.files()?;
    if options.has_examples() {
        others.extend(initramfs::examples()?);
    }
    let initramfs = if options.has_pals() {
        initramfs::build(&modules, !modules.is_empty(), others)?
    } else {
        initramfs::build_small(others)?
    };
    write(path, &kernel, &initramfs, options)
}

/// Writes the disk of Debian's kernel of 32 bits, with PAE or without, and an init that needs no actions named.
///
/// # Errors
///
/// As [`write_disk`].
pub(super) fn write_disk_i386(path: &Path, pae: bool, options: &LinuxOptions) -> Result<()> {
    let meta_package = if pae { "linux-image-686-pae" } else { "linux-image-686" };
    let (folder, name) = package::unpacked_i386(meta_package, PREFIX)?;
    let kernel = folder.join("boot").join(format!("vmlinuz-{}", name.trim_start_matches(PREFIX)));
    write(path, &kernel, &initramfs::build_i386()?, options)
}

fn write(path: &Path, kernel: &Path, initramfs: &[u8], options: &LinuxOptions) -> Result<()> {
    let kernel = fs::read(kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let script = script(options);
    Disk {
        script: &script,
        modules: &["serial", "terminal", "echo", "linux", "boot"],
        files: &[("/boot/vmlinuz", &kernel), ("/boot/initramfs", initramfs)],
    }
    .write(path)
}

fn script(options: &LinuxOptions) -> String {
    let actions = options.actions.join(",");
    let arguments = &options.arguments;
    format!(
        "serial --port=0x3f8 --speed=115200\n\
         terminal_output console serial\n\
         echo GRUB loads Linux\n\
         terminal_output console\n\
         linux /boot/vmlinuz {ARGUMENTS} {arguments} xmhf.do={actions}\n\
         initrd /boot/initramfs\n\
         boot\n"
    )
}

fn kernel() -> Result<PathBuf> {
    let (folder, version) = package()?;
    Ok(folder.join("boot").join(format!("vmlinuz-{version}")))
}

/// The modules that the action [`KVM`] loads.
fn modules() -> Result<Vec<PathBuf>> {
    let (folder, version) = package()?;
    let modules = folder.join("lib/modules").join(version).join("kernel");
    Ok(MODULES.map(|module| modules.join(module)).to_vec())
}

/// The kernel's package and version.
fn package() -> Result<(PathBuf, String)> {
    let name = package::dependency(META_PACKAGE, PREFIX)?;
    let version = name.trim_start_matches(PREFIX).to_owned();
    Ok((package::unpacked(&name)?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_brings_is_in_the_guest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe");
        fs::write(&path, "x").unwrap();
        let options = LinuxOptions {
            added: vec![path],
            command: Some("./probe; ls".into()),
            ..LinuxOptions::default()
        };
        let files = options.files().unwrap();
        assert_eq!(files[0], ("add/probe".to_owned(), b"x".to_vec()));
        assert_eq!(files[1], ("command".to_owned(), b"./probe; ls\n".to_vec()));
        let missing = LinuxOptions { added: vec!["/nowhere/x".into()], ..LinuxOptions::default() };
        assert!(missing.files().unwrap_err().to_string().contains("/nowhere/x"));
    }

    #[test]
    fn pal_programs_are_built_for_what_runs_them_alone() {
        let has = |actions: &[&str]| {
            let actions = actions.iter().map(|&action| action.to_owned()).collect();
            LinuxOptions { actions, ..LinuxOptions::default() }.has_pals()
        };
        assert!(!LinuxOptions::default().has_pals() && !has(&["forkexec", "load", "suspend"]));
        for one in ["pal_programs", "pal_bench", "pal_programs_l2", "kvm", "exec", "shell"] {
            assert!(has(&["forkexec", one]), "{one}");
        }
    }

    #[test]
    fn examples_are_built_for_the_test_of_them_alone() {
        let has = |actions: &[&str]| {
            let actions = actions.iter().map(|&action| action.to_owned()).collect();
            LinuxOptions { actions, ..LinuxOptions::default() }.has_examples()
        };
        assert!(has(&["forkexec", "pal_readme"]));
        assert!(!has(&["pal_demo", "pal_notary", "pal_programs"]) && !has(&["exec"]) && !has(&["shell"]));
    }

    #[test]
    fn script_carries_the_actions() {
        let actions = ["forkexec", "load"].map(String::from).to_vec();
        let script =
            script(&LinuxOptions { actions, arguments: "reboot=pci".into(), ..LinuxOptions::default() });
        assert!(script.contains(" reboot=pci xmhf.do=forkexec,load\n"));
    }
}
