//! Bochs, headless, with the guest's console on COM1 and the hypervisor's on COM2.
//!
//! Its clock counts instructions, so a run's ticks are the same every time. Debian builds it with its
//! debugger, which has to be told to go on. Of its displays the one in a terminal is used, with a terminal of the runner's:
//! the other one listens for VNC on all of the machine's addresses, and asks for no password.

use super::terminal::Terminal;
use super::{Machine, tethered};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Without CPUID leaves 15H and 16H, whose figures would not match the emulated clock.
const CPU_MODEL: &str = "corei7_haswell_4770";
/// Emulated instructions to a second of the machine's clock.
const INSTRUCTIONS_PER_SECOND: u32 = 100_000_000;
/// Most memory that the emulator holds at once, in MiB; the machine's may be larger.
const HOST_MEMORY_MIB: u32 = 2048;
/// With more it takes minutes to start: the square of the number of blocks that it counts its memory in.
pub(crate) const MEMORY_LIMIT_MIB: u32 = 262_144;
/// As many blocks cost it no time yet.
const BLOCKS: u32 = 8192;
/// Sizes of a block, in KiB: the usual and the largest.
const BLOCK_KIB: RangeInclusive<u32> = 128..=8192;

/// More do not start: it has 64 timers, of which each CPU takes four.
pub(crate) const CPU_LIMIT: u32 = 14;
/// Names of the disks in the machine's folder.
const DISKS: [&str; 3] = ["disk0", "disk1", "disk2"];

/// The command that runs `machine`, with its configuration written to the machine's folder.
///
/// # Errors
///
/// The configuration cannot be written, or the emulator makes no such machine.
pub(super) fn command(machine: &Machine<'_>, typed: Option<&Terminal>) -> Result<Command> {
    let configuration = configure(machine, typed)?;
    std::fs::write(machine.folder.join("bochsrc"), configuration).context("writing Bochs's configuration")?;
    std::fs::write(machine.folder.join("debugger"), "c\n").context("writing Bochs's debugger commands")?;
    for (name, disk) in DISKS.iter().zip(machine.disks) {
        link(disk, &machine.folder.join(name))?;
    }
    // The machine runs in its folder, so that names do, whatever is in the folder's path.
    let mut command = tethered(&executable()?);
    command.args(["-q", "-f", "bochsrc", "-rc", "debugger"]).env("TERM", "xterm");
    if machine.quirks.has_devices {
        // Looked into by the script that starts the emulator, before the emulator's own plugins.
        command.env("XMHF_DEVICES", crate::devices::folder());
    }
    Ok(command)
}

/// Says whether there is a `model` of processor.
///
/// # Errors
///
/// There is none, or the emulator is not there.
pub(crate) fn check_model(model: &str) -> Result<()> {
    let told =
        Command::new(executable()?).args(["-help", "cpu"]).output().context("asking Bochs for its models")?;
    let told = [told.stdout, told.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let names: Vec<_> = models(&told).collect();
    ensure!(names.contains(&model), "Bochs has no model `{model}`; it has {}", names.join(", "));
    Ok(())
}

/// The models that Bochs tells of: lines of one word.
fn models(told: &str) -> impl Iterator<Item = &str> {
    told.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains([' ', '=']))
}

/// Gives a disk a name without the blanks, commas and quotes that a configuration does not take.
fn link(disk: &Path, name: &Path) -> Result<()> {
    // An earlier run may have been kept here.
    let _ = std::fs::remove_file(name);
    std::os::unix::fs::symlink(disk, name).with_context(|| format!("naming {}", disk.display()))
}

/// Why Bochs ended, where its log does not say that the machine was switched off.
pub(super) fn fault(log: &str, output: &str) -> Option<String> {
    let output = strip_ansi_escapes::strip_str(output);
    let panic = log.lines().find_map(|line| line.split_once(">>PANIC<<").map(|(_, text)| text.trim()));
    let Some(panic) = panic else {
        let last =
            output.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("==="));
        return Some(last.unwrap_or("Bochs ended without a word").to_owned());
    };
    let orderly = ["soft power off", "Shutdown port"].iter().any(|words| panic.contains(words));
    (!orderly).then(|| panic.to_owned())
}

/// Refuses a machine that is larger than the emulator's largest.
pub(super) fn check(cpus: u32, memory_mib: u32) -> Result<()> {
    ensure!(cpus <= CPU_LIMIT, "Bochs takes at most {CPU_LIMIT} CPUs, not {cpus}");
    ensure!(
        memory_mib <= MEMORY_LIMIT_MIB,
        "Bochs takes at most {MEMORY_LIMIT_MIB} MiB of memory, not {memory_mib}"
    );
    Ok(())
}

fn executable() -> Result<PathBuf> {
    let private = crate::paths::bochs();
    if private.exists() {
        return Ok(private);
    }
    let found = std::env::var_os("PATH").and_then(|folders| {
        std::env::split_paths(&folders).map(|folder| folder.join("bochs")).find(|program| program.exists())
    });
    found.with_context(|| format!("no Bochs at {} nor in PATH; tools/xmhf run fetches it", private.display()))
}

fn configure(machine: &Machine<'_>, typed: Option<&Terminal>) -> Result<String> {
    let model = machine.cpu_model.unwrap_or(CPU_MODEL);
    let Machine { cpus, memory_mib, quirks, .. } = machine;
    let reset = u8::from(quirks.resets_on_triple_fault);
    let ignore = u8::from(!quirks.faults_on_unknown_msrs);
    check(*cpus, *memory_mib)?;
    let bios = if quirks.has_legacy_bios { "BIOS-bochs-legacy" } else { "BIOS-bochs-latest" };
    let host_memory = memory_mib.min(&HOST_MEMORY_MIB);
    let block = block_kib(*memory_mib);
    let devices = if quirks.has_devices { ", xmhf=1" } else { "" };
    let mut text = format!(
        "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, parallel=0, gameport=0{devices}\n\
         display_library: term\n\
         cpu: model={model}, count={cpus}, ips={INSTRUCTIONS_PER_SECOND}\n\
         cpu: reset_on_triple_fault={reset}, ignore_bad_msrs={ignore}\n\
         memory: guest={memory_mib}, host={host_memory}, block_size={block}\n\
         romimage: file=$BXSHARE/{bios}, options=fastboot\n\
         vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest\n\
         vga: extension=vbe, update_freq=1, realtime=0\n\
         pci: enabled=1, chipset=i440fx\n\
         clock: sync=none, time0=1000000000\n\
         boot: disk\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n"
    );
    if machine.disks.len() > 2 {
        text.push_str("ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n");
    }
    ensure!(
        machine.disks.len() <= DISKS.len(),
        "Bochs gets {} disks here, not {}",
        DISKS.len(),
        machine.disks.len()
    );
    for (slot, (disk, _)) in
        ["ata0-master", "ata0-slave", "ata1-master"].iter().zip(DISKS.iter().zip(machine.disks))
    {
        writeln!(text, "{slot}: type=disk, path={disk}, mode=volatile")?;
    }
    match typed {
        Some(terminal) => writeln!(text, "com1: enabled=1, mode=term, dev={}", terminal.name().display())?,
        None => writeln!(text, "com1: enabled=1, mode=file, dev=guest.log")?,
    }
    text.push_str(
        "com2: enabled=1, mode=file, dev=xmhf.log\n\
         log: machine.log\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=ignore\n\
         debug: action=ignore\n",
    );
    Ok(text)
}

/// Size of a block of memory, in KiB: a power of two, such that there are few.
fn block_kib(memory_mib: u32) -> u32 {
    let least = (u64::from(memory_mib) * 1024).div_ceil(u64::from(BLOCKS)).next_power_of_two();
    u32::try_from(least).unwrap_or(u32::MAX).clamp(*BLOCK_KIB.start(), *BLOCK_KIB.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Quirks;
    use std::path::Path;

    fn machine(disks: &[PathBuf]) -> Machine<'_> {
        Machine {
            cpus: 2,
            memory_mib: 3072,
            cpu_model: None,
            disks,
            quirks: Quirks::default(),
            folder: Path::new("/run"),
            is_typed_at: false,
        }
    }

    #[test]
    fn configuration_names_cpus_memory_and_disks_in_order() {
        let text = configure(&machine(&["/a/xmhf.img".into(), "/a/guest.img".into()]), None).unwrap();
        assert!(text.contains("model=corei7_haswell_4770, count=2, ips=100000000"));
        assert!(text.contains("memory: guest=3072, host=2048, block_size=512\n"));
        assert!(text.contains("ata0-master: type=disk, path=disk0, mode=volatile\n"));
        assert!(text.contains("ata0-slave: type=disk, path=disk1, mode=volatile\n"));
        assert!(text.contains("com1: enabled=1, mode=file, dev=guest.log\n"));
    }

    #[test]
    fn devices_of_ours_are_there_where_they_are_asked_for() {
        let plain = machine(&[]);
        assert!(!configure(&plain, None).unwrap().contains("xmhf=1"));
        let machine = Machine { quirks: Quirks { has_devices: true, ..Quirks::default() }, ..plain };
        assert!(configure(&machine, None).unwrap().contains("gameport=0, xmhf=1\n"));
    }

    #[test]
    fn nobody_listens_for_the_screen() {
        let text = configure(&machine(&[]), None).unwrap();
        assert!(text.contains("display_library: term\n") && !text.contains("rfb"), "{text}");
    }

    #[test]
    fn a_disk_may_lie_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("a \"b\", mode=flat #c");
        std::fs::write(&disk, "sectors").unwrap();
        for _ in 0..2 {
            link(&disk, &folder.path().join(DISKS[0])).unwrap();
        }
        assert_eq!(std::fs::read_to_string(folder.path().join(DISKS[0])).unwrap(), "sectors");
    }

    #[test]
    fn more_cpus_than_the_emulator_has_timers_for_are_refused() {
        assert!(configure(&Machine { cpus: CPU_LIMIT, ..machine(&[]) }, None).is_ok());
        let why = configure(&Machine { cpus: CPU_LIMIT + 1, ..machine(&[]) }, None).unwrap_err();
        assert_eq!(why.to_string(), "Bochs takes at most 14 CPUs, not 15");
    }

    #[test]
    fn memory_is_of_few_blocks() {
        assert_eq!([64, 1024, 1025, 17_408, MEMORY_LIMIT_MIB].map(block_kib), [128, 128, 256, 4096, 8192]);
    }

    #[test]
    fn memory_that_the_emulator_would_hang_on_is_refused() {
        assert!(configure(&Machine { memory_mib: MEMORY_LIMIT_MIB, ..machine(&[]) }, None).is_ok());
        assert!(configure(&Machine { memory_mib: MEMORY_LIMIT_MIB + 1, ..machine(&[]) }, None).is_err());
    }

    #[test]
    fn only_a_disorderly_end_is_a_fault() {
        assert_eq!(fault("00123p[ACPI  ] >>PANIC<< ACPI control: soft power off\n", ""), None);
        assert_eq!(fault("00123p[UNMAP ] >>PANIC<< Shutdown port: shutdown requested\n", ""), None);
        let log = "00123p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution\nmore";
        assert_eq!(fault(log, "").as_deref(), Some("exception(): 3rd (13) exception with no resolution"));
        assert_eq!(
            fault("", "one\n\u{1b}[1mcannot open the disk\n=====\n").as_deref(),
            Some("cannot open the disk")
        );
    }

    #[test]
    fn models_are_told_from_what_is_said_around_them() {
        let told = "=====\n    Bochs x86 Emulator 3.0\nSupported CPU models:\n\ni386\narrow_lake\n\n0000i[SIM   ] quit\n";
        assert!(models(told).eq(["i386", "arrow_lake"]));
    }
}
