//! Boots that differ from the usual one: those that have to be refused, each with its name on the console, and
//! those that have to do.

use super::fadt;
use super::job::{Job, Verdict};
use crate::disk::Disk;
use crate::guest::Guest;
use crate::machine::Quirks;
use crate::paths;
use crate::run::{RunOptions, run};
use crate::verdict::Outcome;
use anyhow::{Context, Result};
use platform::handoff::LOADER_SIZE;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// A boot with something different.
#[derive(Clone, Copy, Debug)]
struct Boot {
    name: &'static str,
    /// What stands behind `stop: ` on the hypervisor's console; empty where the guest has to run all the same.
    stop: &'static str,
    /// Words that the hypervisor's console shows besides.
    also: &'static str,
    guest: fn() -> Guest,
    command_line: &'static str,
    modules: &'static [Module],
    /// GRUB commands in front of the others.
    before: &'static str,
    cpu_model: Option<&'static str>,
    memory_mib: u32,
    has_legacy_bios: bool,
    /// Whether the guest resets the machine once.
    resets: bool,
}

/// A module line for GRUB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module {
    /// The hypervisor image as built.
    Image,
    /// The first sector of the guest's disk.
    Sector,
    /// A hypervisor image without its end.
    Truncated,
    /// A hypervisor image with one bit of the runtime changed.
    Altered,
    /// 512 zeros.
    Zeros,
    /// More than any boot sector.
    Large,
}

const SOUND: Boot = Boot {
    name: "",
    stop: "",
    also: "",
    guest: || Guest::Mbr,
    command_line: "serial=115200,8n1,0x2f8 boot_drive=0x81",
    modules: &[Module::Image, Module::Sector],
    before: "",
    cpu_model: None,
    memory_mib: 64,
    has_legacy_bios: false,
    resets: false,
};

const BOOTS: [Boot; 19] = [
    Boot { name: "no-module", stop: "bootloader: no-module: ", modules: &[], ..SOUND },
    Boot { name: "no-boot-sector", stop: "bootloader: no-boot-sector: ", modules: &[Module::Image], ..SOUND },
    Boot {
        name: "image-truncated",
        stop: "bootloader: image-truncated: ",
        modules: &[Module::Truncated, Module::Sector],
        ..SOUND
    },
    Boot {
        name: "image-altered",
        stop: "secure loader: RuntimeDigest: ",
        modules: &[Module::Altered, Module::Sector],
        ..SOUND
    },
    Boot {
        name: "image-foreign",
        stop: "bootloader: image-foreign: ",
        modules: &[Module::Sector, Module::Image],
        ..SOUND
    },
    Boot {
        name: "boot-sector-too-large",
        stop: "bootloader: boot-sector-too-large: ",
        modules: &[Module::Image, Module::Large],
        ..SOUND
    },
    Boot {
        name: "boot-sector-not-bootable",
        stop: "bootloader: boot-sector-not-bootable: ",
        modules: &[Module::Image, Module::Zeros],
        ..SOUND
    },
    Boot {
        name: "too-many-modules",
        stop: "bootloader: too-many-modules: ",
        modules: &[Module::Zeros; 17],
        ..SOUND
    },
    Boot {
        name: "command-line-broken",
        stop: "bootloader: command-line-broken: ",
        command_line: "serial=115200,8n1,0x2f8 boot_drive=second",
        ..SOUND
    },
    Boot { name: "too-little-memory", stop: "bootloader: too-little-memory: ", memory_mib: 4, ..SOUND },
    Boot { name: "no-vmx", stop: "bootloader: no-vmx: ", cpu_model: Some("athlon64_clawhammer"), ..SOUND },
    Boot {
        name: "no-long-mode",
        stop: "bootloader: no-long-mode: ",
        cpu_model: Some("p4_willamette"),
        ..SOUND
    },
    Boot {
        name: "no-ept",
        stop: "bootloader: vmx-incomplete: ",
        also: "enable EPT",
        cpu_model: Some("core2_penryn_t9600"),
        ..SOUND
    },
    // This BIOS leaves IA32_FEATURE_CONTROL alone, so that GRUB can lock it with VMX off.
    Boot {
        name: "vmx-locked-off",
        stop: "bootloader: vmx-locked-off: ",
        before: "wrmsr 0x3a 1",
        has_legacy_bios: true,
        ..SOUND
    },
    Boot {
        name: "no-acpi",
        guest: || Guest::Bare("hello".into()),
        also: "no ACPI and no MP table; one CPU is used",
        has_legacy_bios: true,
        ..SOUND
    },
    Boot {
        name: "no-serial",
        stop: "bootloader: command-line-broken: ",
        command_line: "serial=fast",
        ..SOUND
    },
    // The hypervisor and the guest share the port; the guest is at its end when the summary comes.
    Boot {
        name: "first-serial-port",
        also: "summary cpus=1 ",
        command_line: "serial=115200,8n1,0x3f8 boot_drive=0x81",
        ..SOUND
    },
    // The firmware names no reset register, so GRUB puts a table in place that does.
    Boot {
        name: "fadt-reset",
        guest: || Guest::Bare("reset_fadt".into()),
        also: "the guest ends: Port { port: 1552, width: Byte, value: 14 }",
        before: "acpi --exclude=FACP /boot/fadt.aml",
        resets: true,
        ..SOUND
    },
    Boot { name: "sound", ..SOUND },
];

/// One job for each boot.
pub(super) fn jobs() -> Vec<Job> {
    let job = |boot: Boot| Job {
        name: format!("run/{}", boot.name),
        group: "boot",
        seconds: 4,
        needs: None,
        work: Box::new(move |folder| test(&boot, folder)),
    };
    BOOTS.into_iter().map(job).collect()
}

fn test(boot: &Boot, folder: &Path) -> Result<Verdict> {
    let options = RunOptions {
        guest: (boot.guest)(),
        cpus: 1,
        memory_mib: boot.memory_mib,
        cpu_model: boot.cpu_model.map(str::to_owned),
        quirks: Quirks {
            has_legacy_bios: boot.has_legacy_bios,
            resets_on_triple_fault: boot.resets,
            ..Quirks::default()
        },
        hypervisor_disk: Some(disk(boot, folder)?),
        keep: Some(folder.to_path_buf()),
        patience: PATIENCE,
        quiet: true,
        ..RunOptions::default()
    };
    let outcome = run(&options)?;
    Ok(Verdict::of(failure(boot, &outcome), &outcome, &options))
}

fn failure(boot: &Boot, outcome: &Outcome) -> Option<String> {
    let seen = outcome.summary.stops.first().map_or("", |line| line.as_str());
    if !boot.also.is_empty() && !outcome.lines.iter().any(|(_, line)| line.contains(boot.also)) {
        return Some(format!("the hypervisor did not print `{}`", boot.also));
    }
    if boot.stop.is_empty() {
        return outcome.failure();
    }
    let expected = format!("stop: {}", boot.stop);
    (!seen.contains(&expected)).then(|| match outcome.failure() {
        Some(why) => format!("not `{expected}`: {why}"),
        None => "the guest ran all the same".into(),
    })
}

fn disk(boot: &Boot, folder: &Path) -> Result<PathBuf> {
    let image = built("xmhf-helloworld.bin")?;
    let mut altered = image.clone();
    let middle = usize::try_from(LOADER_SIZE)?.midpoint(image.len());
    altered[middle] ^= 1;
    let commands: Vec<&str> = boot.before.split_whitespace().take(1).collect();
    fs::create_dir_all(folder)?;
    let path = folder.join("xmhf.img");
    Disk {
        script: &script(boot),
        modules: &[["serial", "terminal", "echo", "multiboot", "boot"].as_slice(), commands.as_slice()]
            .concat(),
        files: &[
            ("/boot/xmhf-bootloader", &built("xmhf-bootloader")?),
            ("/boot/image.bin", &image),
            ("/boot/short.bin", &image[..image.len() - 1]),
            ("/boot/altered.bin", &altered),
            ("/boot/zeros.bin", &[0; 512]),
            ("/boot/large.bin", &[0; 20_000]),
            ("/boot/fadt.aml", &fadt::table()),
        ],
    }
    .write(&path)?;
    Ok(path)
}

fn script(boot: &Boot) -> String {
    let modules: String = boot.modules.iter().map(|module| format!("module {}\n", module.words())).collect();
    format!(
        "serial --port=0x2f8 --speed=115200\nterminal_output console serial\necho GRUB loads the hypervisor\n\
         {}\nmultiboot /boot/xmhf-bootloader {}\n{modules}boot\n",
        boot.before, boot.command_line
    )
}

fn built(name: &str) -> Result<Vec<u8>> {
    let path = paths::boot().join(name);
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

impl Module {
    const fn words(self) -> &'static str {
        match self {
            Self::Image => "/boot/image.bin",
            Self::Sector => "--nounzip (hd1)+1",
            Self::Truncated => "/boot/short.bin",
            Self::Altered => "/boot/altered.bin",
            Self::Zeros => "/boot/zeros.bin",
            Self::Large => "/boot/large.bin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Origin;
    use crate::verdict::End;

    fn outcome(line: &str, end: End) -> Outcome {
        let mut outcome = Outcome::new(false);
        outcome.read_line(Origin::Hypervisor, line, false);
        let marked = end == End::Off;
        outcome.finish(end, marked, Duration::ZERO);
        outcome
    }

    #[test]
    fn only_the_named_stop_will_do() {
        let boot = Boot { stop: "bootloader: no-vmx: ", ..SOUND };
        assert_eq!(failure(&boot, &outcome("stop: bootloader: no-vmx: why; what", End::GaveUp)), None);
        let other = failure(&boot, &outcome("stop: bootloader: no-module: why; what", End::GaveUp));
        assert!(other.unwrap().contains("no-module"));
        assert!(failure(&boot, &outcome("", End::Timeout)).unwrap().contains("time was over"));
        assert_eq!(failure(&boot, &outcome("", End::Off)).unwrap(), "the guest ran all the same");
    }

    #[test]
    fn a_boot_without_a_stop_has_to_reach_the_guest() {
        assert_eq!(failure(&SOUND, &outcome("", End::Off)), None);
        assert!(failure(&SOUND, &outcome("stop: bootloader: no-vmx: why", End::GaveUp)).is_some());
        let boot = Boot { also: "one CPU is used", ..SOUND };
        assert_eq!(failure(&boot, &outcome("warning: one CPU is used", End::Off)), None);
        assert!(failure(&boot, &outcome("", End::Off)).is_some());
    }

    #[test]
    fn modules_are_in_the_script() {
        let text = script(&Boot { modules: &[Module::Altered, Module::Sector], ..SOUND });
        assert!(text.ends_with("module /boot/altered.bin\nmodule --nounzip (hd1)+1\nboot\n"), "{text}");
    }
}
