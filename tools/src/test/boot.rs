//! Boots that differ from the usual one: those that have to be refused, each with its name on the console, and
//! those that have to do.

use super::boots::{BARE_AGAIN, BOOTS, Boot, Module};
use super::fadt::{self, Fadt};
use super::job::{Job, Needs, Verdict};
use super::mcfg;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::machine::Quirks;
use crate::run::{RunOptions, run};
use crate::verdict::Outcome;
use crate::{pack, paths};
use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use platform::handoff::{LOADER_SIZE, RUNTIME_OFFSET, VIRTUAL_BASE};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// One job for each boot.
pub(super) fn jobs() -> Vec<Job> {
    let job = |boot: Boot| Job {
        name: format!("run/{}", boot.name),
        group: "boot",
        seconds: 4,
        needs: Some(needs(&boot)),
        work: Box::new(move |folder| test(&boot, folder)),
    };
    BOOTS.into_iter().map(job).collect()
}

fn needs(boot: &Boot) -> Needs {
    let Guest::Bare(guest) = (boot.guest)() else {
        // The boot sector that prints a line is no bare guest; any of these will do.
        return Needs { guest: "hello".into(), hypapp: boot.hypapp.into() };
    };
    Needs { guest, hypapp: boot.hypapp.into() }
}

fn test(boot: &Boot, folder: &Path) -> Result<Verdict> {
    let options = RunOptions {
        guest: (boot.guest)(),
        cpus: boot.cpus,
        memory_mib: boot.memory_mib,
        cpu_model: boot.cpu_model.map(str::to_owned),
        quirks: Quirks {
            has_legacy_bios: boot.has_legacy_bios,
            resets_on_triple_fault: boot.resets,
            ..Quirks::default()
        },
        hypapp: boot.hypapp.into(),
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
    let image = built(&format!("xmhf-{}.bin", boot.hypapp))?;
    let mut altered = image.clone();
    let middle = usize::try_from(LOADER_SIZE)?.midpoint(image.len());
    altered[middle] ^= 1;
    let faulty_loader =
        with_undefined_instruction(image.clone(), symbol("xmhf-secureloader", "memset")? - VIRTUAL_BASE)?;
    let entry = u64::from_le_bytes(image[usize::try_from(LOADER_SIZE)? + 8..][..8].try_into()?);
    let at = entry - VIRTUAL_BASE - RUNTIME_OFFSET + LOADER_SIZE;
    let faulty_runtime = pack::bind(with_undefined_instruction(image.clone(), at)?);
    fs::create_dir_all(folder)?;
    let path = folder.join("xmhf.img");
    Disk {
        script: &script(boot),
        modules: &[["serial", "terminal", "echo", "multiboot", "boot"].as_slice(), boot.grub_modules]
            .concat(),
        files: &[
            ("/boot/xmhf-bootloader", &built("xmhf-bootloader")?),
            ("/boot/image.bin", &image),
            ("/boot/short.bin", &image[..image.len() - 1]),
            ("/boot/altered.bin", &altered),
            ("/boot/zeros.bin", &[0; 512]),
            ("/boot/large.bin", &[0; 20_000]),
            ("/boot/faulty-loader.bin", &faulty_loader),
            ("/boot/faulty-runtime.bin", &faulty_runtime),
            ("/boot/fadt.aml", &fadt::table(Fadt::Reset)),
            ("/boot/fadt-disagrees.aml", &fadt::table(Fadt::Disagrees)),
            ("/boot/fadt-second.aml", &fadt::table(Fadt::SecondBlock)),
            ("/boot/mcfg.aml", &mcfg::table()),
            ("/boot/bare-again.cfg", BARE_AGAIN.as_bytes()),
        ],
    }
    .write(&path)?;
    Ok(path)
}

/// `image` with UD2 at `offset`.
fn with_undefined_instruction(mut image: Vec<u8>, offset: u64) -> Result<Vec<u8>> {
    let at = usize::try_from(offset)?;
    image.get_mut(at..at + 2).context("the image is too short")?.copy_from_slice(&[0x0f, 0x0b]);
    Ok(image)
}

/// The address of a function in an image's executable.
fn symbol(name: &str, function: &str) -> Result<u64> {
    let path = paths::elf().join(name);
    let file = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let (symbols, names) = elf.symbol_table()?.context("no symbols")?;
    let found =
        symbols.iter().find(|symbol| names.get(symbol.st_name as usize).is_ok_and(|name| name == function));
    Ok(found.with_context(|| format!("no function {function} in {name}"))?.st_value)
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
            Self::OwnSector => "--nounzip (hd0)+1",
            Self::FaultyLoader => "/boot/faulty-loader.bin",
            Self::FaultyRuntime => "/boot/faulty-runtime.bin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::boots::SOUND;
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
