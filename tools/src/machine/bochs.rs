//! Bochs, headless, with the guest's console on COM1 and the hypervisor's on COM2.
//!
//! Its clock counts instructions, so a run's ticks are the same every time. Debian builds it with its
//! debugger, which has to be told to go on, and with a VNC server as the only display that needs no terminal.

use super::{Machine, tethered};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
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

/// The command that runs `machine`, with its configuration written to the machine's folder.
///
/// # Errors
///
/// The configuration cannot be written, or a path cannot stand in it.
pub(super) fn command(machine: &Machine<'_>) -> Result<Command> {
    let configuration = machine.folder.join("bochsrc");
    let debugger = machine.folder.join("debugger");
    std::fs::write(&configuration, configure(machine)?).context("writing Bochs's configuration")?;
    std::fs::write(&debugger, "c\n").context("writing Bochs's debugger commands")?;
    let mut command = tethered(&executable()?);
    command.arg("-q").arg("-f").arg(configuration).arg("-rc").arg(debugger);
    Ok(command)
}

/// Why Bochs ended, where its log does not say that the machine was switched off.
pub(super) fn fault(log: &str, output: &str) -> Option<String> {
    let panic = log.lines().find_map(|line| line.split_once(">>PANIC<<").map(|(_, text)| text.trim()));
    let Some(panic) = panic else {
        let last =
            output.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("==="));
        return Some(last.unwrap_or("Bochs ended without a word").to_owned());
    };
    let orderly = ["soft power off", "Shutdown port"].iter().any(|words| panic.contains(words));
    (!orderly).then(|| panic.to_owned())
}

/// `fault` says that Bochs found no port for its display, which happens where several start at once. Another start
/// may find one.
pub(super) fn has_no_display(fault: &str) -> bool {
    fault.contains("RFB could not bind any port")
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

fn configure(machine: &Machine<'_>) -> Result<String> {
    let model = machine.cpu_model.unwrap_or(CPU_MODEL);
    let Machine { cpus, memory_mib, quirks, .. } = machine;
    let reset = u8::from(quirks.resets_on_triple_fault);
    let ignore = u8::from(!quirks.faults_on_unknown_msrs);
    ensure!(*memory_mib <= MEMORY_LIMIT_MIB, "Bochs takes at most {MEMORY_LIMIT_MIB} MiB of memory");
    let bios = if quirks.has_legacy_bios { "BIOS-bochs-legacy" } else { "BIOS-bochs-latest" };
    let host_memory = memory_mib.min(&HOST_MEMORY_MIB);
    let block = block_kib(*memory_mib);
    let mut text = format!(
        "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, parallel=0, gameport=0\n\
         display_library: rfb, options=\"timeout=0\"\n\
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
    for (slot, disk) in ["ata0-master", "ata0-slave", "ata1-master"].iter().zip(machine.disks) {
        let disk = disk
            .to_str()
            .filter(|path| !path.contains([',', '"', '#']))
            .with_context(|| format!("Bochs takes no comma, quote or hash in a path: {}", disk.display()))?;
        writeln!(text, "{slot}: type=disk, path={disk}, mode=volatile")?;
    }
    ensure!(machine.disks.len() <= 3, "Bochs gets three disks here");
    // The machine runs in its folder, so that names do.
    text.push_str(
        "com1: enabled=1, mode=file, dev=guest.log\n\
         com2: enabled=1, mode=file, dev=xmhf.log\n\
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
        }
    }

    #[test]
    fn configuration_names_cpus_memory_and_disks_in_order() {
        let text = configure(&machine(&["/a/xmhf.img".into(), "/a/guest.img".into()])).unwrap();
        assert!(text.contains("model=corei7_haswell_4770, count=2, ips=100000000"));
        assert!(text.contains("memory: guest=3072, host=2048, block_size=512\n"));
        assert!(text.contains("ata0-master: type=disk, path=/a/xmhf.img, mode=volatile\n"));
        assert!(text.contains("ata0-slave: type=disk, path=/a/guest.img, mode=volatile\n"));
    }

    #[test]
    fn paths_that_would_change_the_configuration_are_refused() {
        assert!(configure(&machine(&["/a,mode=flat".into()])).is_err());
    }

    #[test]
    fn memory_is_of_few_blocks() {
        assert_eq!([64, 1024, 1025, 17_408, MEMORY_LIMIT_MIB].map(block_kib), [128, 128, 256, 4096, 8192]);
    }

    #[test]
    fn memory_that_the_emulator_would_hang_on_is_refused() {
        assert!(configure(&Machine { memory_mib: MEMORY_LIMIT_MIB, ..machine(&[]) }).is_ok());
        assert!(configure(&Machine { memory_mib: MEMORY_LIMIT_MIB + 1, ..machine(&[]) }).is_err());
    }

    #[test]
    fn a_display_without_a_port_is_told_from_other_faults() {
        let fault = fault("0 e[RFB   ] >>PANIC<< RFB could not bind any port between 5900 and 5949", "");
        assert!(fault.as_deref().is_some_and(has_no_display));
        assert!(!has_no_display("no bootable device"));
    }

    #[test]
    fn only_a_disorderly_end_is_a_fault() {
        assert_eq!(fault("00123p[ACPI  ] >>PANIC<< ACPI control: soft power off\n", ""), None);
        assert_eq!(fault("00123p[UNMAP ] >>PANIC<< Shutdown port: shutdown requested\n", ""), None);
        let log = "00123p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution\nmore";
        assert_eq!(fault(log, "").as_deref(), Some("exception(): 3rd (13) exception with no resolution"));
        assert_eq!(fault("", "one\ncannot open the disk\n=====\n").as_deref(), Some("cannot open the disk"));
    }
}
