//! The bare test guests of `tools/guest`: found by file, described by their own first lines, built into disks.
//!
//! A guest's file begins with its title, `//! NAME: what it shows`. Lines `//! key: value` among those that
//! follow say what the machine is to be: see [`BareGuest`]. A disk is a flat copy of the linked image's
//! memory, so making one is laying out an ELF file's segments.

use crate::toolchain::{bare_cargo, bare_release, binaries};
use crate::{devices, paths, progress};
use anyhow::{Context, Result, bail, ensure};
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the BIOS loads a boot sector, hence the memory address of a disk's first byte.
const BOOT_SECTOR: u64 = 0x7c00;
/// End of the memory that a guest can be loaded to.
const MEMORY_END: u64 = 0xa_0000;
/// Disks are whole cylinders of 16 heads and 63 sectors.
const CYLINDER: usize = 16 * 63 * 512;

/// A bare test guest and what it wants of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareGuest {
    /// Its name: the file's.
    pub name: String,
    /// What it shows, in one line.
    pub title: String,
    /// `cpus: 2`, else 1.
    pub cpus: u32,
    /// `cpus: exactly 2`: it means nothing on a machine of more.
    pub cpus_are_exact: bool,
    /// `memory: 128` in MiB, else 64.
    pub memory_mib: u32,
    /// `model: corei7_skylake_x`, else the machine's usual one.
    pub cpu_model: Option<String>,
    /// `hypapp: quiesce`, else `helloworld`.
    pub hypapp: String,
    /// `cmdline: hypervisor_bit=on`: words for the bootloader.
    pub arguments: String,
    /// `bare: no`, where the guest means nothing without the hypervisor.
    pub runs_bare: bool,
    /// `hypervisor: no`, where it means nothing with it.
    pub runs_under_hypervisor: bool,
    /// `resets: yes`: the machine is to survive a triple fault by a reset.
    pub resets: bool,
    /// `devices: yes`: the machine has those of `tools/devices` too.
    pub has_devices: bool,
    /// `unknown-msrs: ignore`, where the emulator is not to fault as a processor does.
    pub ignores_unknown_msrs: bool,
    /// `expect-hypervisor: words` that the hypervisor's console has to show; any number of these lines.
    pub expected_of_hypervisor: Vec<String>,
}

/// All bare guests, by name.
///
/// # Errors
///
/// A guest's first lines cannot be understood.
pub fn find() -> Result<Vec<BareGuest>> {
    let folder = paths::root().join("tools/guest/src/bin");
    let read = |name: String| {
        let path = folder.join(format!("{name}.rs"));
        let source = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        BareGuest::from_source(&name, &source).with_context(|| format!("first lines of {}", path.display()))
    };
    binaries(&folder)?.into_iter().map(read).collect()
}

/// Builds every bare guest's disk, to [`paths::bare_guest`].
///
/// # Errors
///
/// The compiler's or linker's, already shown; or an image that does not fit its memory.
pub fn build() -> Result<Vec<BareGuest>> {
    let guests = find()?;
    progress::cargo("building the bare guests", bare_cargo("build")?.arg("--package=xmhf-guest"))?;
    build_devices(&guests)?;
    guests.iter().try_for_each(|guest| lay_out(&guest.name))?;
    Ok(guests)
}

/// Builds the disk of one guest, to [`paths::bare_guest`].
///
/// # Errors
///
/// There is no such guest, or as for [`build`].
pub fn build_one(name: &str) -> Result<BareGuest> {
    let guest = find()?.into_iter().find(|guest| guest.name == name);
    let guest = guest.with_context(|| format!("tools/guest/src/bin holds no guest {name}"))?;
    build_only(&BTreeSet::from([name]))?;
    Ok(guest)
}

/// Builds the disks of these guests alone, to [`paths::bare_guest`].
///
/// # Errors
///
/// As for [`build`].
pub fn build_only(names: &BTreeSet<&str>) -> Result<()> {
    let selected = names.iter().flat_map(|name| ["--bin", name]);
    let mut cargo = bare_cargo("build")?;
    progress::cargo("building the bare guests", cargo.arg("--package=xmhf-guest").args(selected))?;
    let mut guests = find()?;
    guests.retain(|guest| names.contains(guest.name.as_str()));
    build_devices(&guests)?;
    names.iter().try_for_each(|name| lay_out(name))
}

/// Builds the devices that the guests' machines have.
fn build_devices(guests: &[BareGuest]) -> Result<()> {
    if guests.iter().any(|guest| guest.has_devices) { devices::build() } else { Ok(()) }
}

fn lay_out(name: &str) -> Result<()> {
    let path = bare_release().join(name);
    let image = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let disk = flatten(&image).with_context(|| format!("guest {name}"))?;
    write(&paths::bare_guest(name), &disk)
}

impl BareGuest {
    /// Understands the first lines of a guest's source.
    ///
    /// # Errors
    ///
    /// No title, an unknown key or a bad value.
    pub fn from_source(name: &str, source: &str) -> Result<Self> {
        let mut lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        let title = lines.next().filter(|title| !title.is_empty()).context("there is no title line")?;
        let mut guest = Self {
            name: name.into(),
            title: title.into(),
            cpus: 1,
            cpus_are_exact: false,
            memory_mib: 64,
            cpu_model: None,
            hypapp: "helloworld".into(),
            arguments: String::new(),
            runs_bare: true,
            runs_under_hypervisor: true,
            resets: false,
            has_devices: false,
            ignores_unknown_msrs: false,
            expected_of_hypervisor: Vec::new(),
        };
        for line in lines {
            // Prose may hold a colon too, but not behind a single lower-case word.
            let Some((key, value)) = line.split_once(": ").filter(|(key, _)| is_key(key)) else { continue };
            guest.set(key, value).with_context(|| format!("line `{line}`"))?;
        }
        Ok(guest)
    }

    /// The guest makes the hypervisor stop, and the test is what it says then.
    #[must_use]
    pub fn expects_stop(&self) -> bool {
        self.expected_of_hypervisor.iter().any(|words| words.starts_with("stop:"))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "cpus" => {
                let number = value.strip_prefix("exactly ");
                (self.cpus, self.cpus_are_exact) = (number.unwrap_or(value).parse()?, number.is_some());
            }
            "memory" => self.memory_mib = value.parse()?,
            "model" => self.cpu_model = Some(value.into()),
            "hypapp" => self.hypapp = value.into(),
            "cmdline" => self.arguments = value.into(),
            "bare" => self.runs_bare = one_of(value, "yes", "no")?,
            "hypervisor" => self.runs_under_hypervisor = one_of(value, "yes", "no")?,
            "resets" => self.resets = one_of(value, "yes", "no")?,
            "devices" => self.has_devices = one_of(value, "yes", "no")?,
            "unknown-msrs" => self.ignores_unknown_msrs = one_of(value, "ignore", "fault")?,
            "expect-hypervisor" => self.expected_of_hypervisor.push(value.into()),
            _ => bail!("no such key"),
        }
        Ok(())
    }
}

fn is_key(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

fn one_of(value: &str, yes: &str, no: &str) -> Result<bool> {
    ensure!(value == yes || value == no, "{yes} or {no}");
    Ok(value == yes)
}

/// Lays an executable's segments out as a disk whose first sector is the boot sector.
fn flatten(image: &[u8]) -> Result<Vec<u8>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(image)?;
    let mut disk = Vec::new();
    for segment in elf.segments().context("no program headers")? {
        if segment.p_type != PT_LOAD || segment.p_filesz == 0 {
            continue;
        }
        let end = segment.p_paddr.saturating_add(segment.p_filesz);
        ensure!(segment.p_paddr >= BOOT_SECTOR && end <= MEMORY_END, "a segment at {:#x}", segment.p_paddr);
        let (start, end) =
            (usize::try_from(segment.p_paddr - BOOT_SECTOR)?, usize::try_from(end - BOOT_SECTOR)?);
        disk.resize(disk.len().max(end), 0);
        disk[start..end].copy_from_slice(elf.segment_data(&segment)?);
    }
    ensure!(disk.get(510..512) == Some(&[0x55, 0xaa]), "there is no boot sector at {BOOT_SECTOR:#x}");
    disk.resize(disk.len().next_multiple_of(CYLINDER), 0);
    Ok(disk)
}

fn write(path: &Path, disk: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == disk) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, disk).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &str) -> Result<BareGuest> {
        BareGuest::from_source("probe", lines)
    }

    #[test]
    fn a_guest_may_want_its_number_of_cpus_and_no_other() {
        let read = |lines| parse(lines).map(|guest| (guest.cpus, guest.cpus_are_exact)).ok();
        assert_eq!(read("//! Title.\n//! cpus: 2\n"), Some((2, false)));
        assert_eq!(read("//! Title.\n//! cpus: exactly 8\n"), Some((8, true)));
        assert_eq!(read("//! Title.\n//! cpus: about 8\n"), None);
    }

    #[test]
    fn first_lines_describe_the_machine() {
        let guest = parse(
            "//! Probe: shows something.\n//!\n//! On the SDM: prose is not a key.\n//! cpus: 2\n\
             //! memory: 128\n\
             //! model: corei7_skylake_x\n//! hypapp: quiesce\n//! cmdline: hypervisor_bit=on log=debug\n\
             //! bare: no\n//! resets: yes\n//! unknown-msrs: ignore\n//! expect-hypervisor: a: b\n\
             //! expect-hypervisor: c\n#![no_std]\n//! cpus: 9\n",
        )
        .unwrap();
        assert_eq!(guest.title, "Probe: shows something.");
        assert_eq!(
            (guest.cpus, guest.memory_mib, guest.cpu_model.as_deref()),
            (2, 128, Some("corei7_skylake_x"))
        );
        assert_eq!(
            (guest.hypapp.as_str(), guest.arguments.as_str()),
            ("quiesce", "hypervisor_bit=on log=debug")
        );
        assert!(
            !guest.runs_bare && guest.runs_under_hypervisor && guest.resets && guest.ignores_unknown_msrs
        );
        assert_eq!(guest.expected_of_hypervisor, ["a: b", "c"]);
    }

    #[test]
    fn a_guest_that_says_nothing_gets_a_small_machine() {
        let guest = parse("//! Title.\n").unwrap();
        assert_eq!((guest.cpus, guest.memory_mib, guest.hypapp.as_str()), (1, 64, "helloworld"));
        assert!(
            guest.runs_bare && guest.runs_under_hypervisor && !guest.resets && !guest.ignores_unknown_msrs
        );
    }

    #[test]
    fn a_misspelt_key_or_value_is_refused() {
        for line in ["cpu: 2", "cpus: two", "bare: false", "unknown-msrs: zero", "resets: "] {
            assert!(parse(&format!("//! Title.\n//! {line}\n")).is_err() || line.ends_with(": "), "{line}");
        }
        assert!(parse("#![no_std]\n").is_err());
    }

    #[test]
    fn every_guest_there_is_can_be_understood() {
        let guests = find().unwrap();
        assert!(guests.iter().any(|guest| guest.name == "hello"), "{guests:?}");
    }

    /// An ELF64 file with one loadable segment at `address`.
    fn executable(address: u64, bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        file[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
        file[32] = 64;
        file[52..60].copy_from_slice(&[64, 0, 56, 0, 1, 0, 64, 0]);
        file[64] = 1;
        file[64 + 8] = 120;
        for field in [16, 24] {
            file[64 + field..72 + field].copy_from_slice(&address.to_le_bytes());
        }
        for field in [32, 40] {
            file[64 + field..72 + field].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        }
        file.extend(bytes);
        file
    }

    #[test]
    fn a_disk_begins_with_the_boot_sector_and_is_whole_cylinders() {
        let mut bytes = vec![7; 1000];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let disk = flatten(&executable(BOOT_SECTOR, &bytes)).unwrap();
        assert_eq!(disk.len(), CYLINDER);
        assert_eq!((&disk[..1000], disk[1000]), (bytes.as_slice(), 0));
    }

    #[test]
    fn images_that_no_boot_sector_can_load_are_refused() {
        assert!(flatten(&executable(BOOT_SECTOR, &[0; 512])).is_err());
        assert!(flatten(&executable(0x100, &[0; 512])).is_err());
        assert!(flatten(&executable(MEMORY_END - 1, &[0; 512])).is_err());
    }
}
