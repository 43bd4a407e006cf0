//! What a PAL's registers have to be, from its file: the SDK's, or a list of sections.
//!
//! The SDK registers an ELF file's segments at their addresses, then parameters and a stack of zeros. Other
//! programs' sections are written down, a line each: type, address, pages, contents. The type is `code`, `data`,
//! `parameters`, `stack` or `shared-code`; the address may be `-` for parameters and stacks; the contents are a
//! file's name (from the list's folder; zeros fill the last page), `zero`, or `fill=BYTE`.

use anyhow::{Context, Result, bail, ensure};
use elf::ElfBytes;
use elf::abi::{PF_X, PT_LOAD};
use elf::endian::AnyEndian;
use microtpm::{SectionDigests, SectionMeasurement};
use std::fmt;
use std::path::Path;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Names of the types, by number; there is no number 0.
const KINDS: [&str; 6] = ["", "code", "data", "parameters", "stack", "shared-code"];
/// Number of the type `parameters`.
const PARAMETERS: u32 = 3;
/// Number of the type `stack`.
const STACK: u32 = 4;
/// Pages of stack that the SDK gives to a PAL.
const SDK_STACK_PAGES: usize = 4;

/// A section, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// Number of its type.
    pub(crate) kind: u32,
    /// Address of its first page.
    pub(crate) start: u64,
    /// All its pages.
    pub(crate) contents: Vec<u8>,
}

impl Section {
    /// A section of `pages` pages, `bytes` and then zeros.
    fn new(kind: u32, start: u64, pages: usize, bytes: &[u8]) -> Result<Self> {
        let mut contents = bytes.to_vec();
        let size = pages.checked_mul(PAGE).filter(|&size| size >= bytes.len());
        contents.resize(size.context("the contents are longer than the section")?, 0);
        Ok(Self { kind, start, contents })
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.contents.len() / PAGE
    }

    /// What it is measured as.
    pub(crate) fn digests(&self) -> SectionDigests {
        let size = u64::try_from(self.contents.len()).unwrap_or(u64::MAX);
        let mut measurement = SectionMeasurement::new(self.kind, self.start, size);
        measurement.update(&self.contents);
        measurement.finish()
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(usize::try_from(self.kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&"unknown"))?;
        if !matches!(self.kind, PARAMETERS | STACK) {
            write!(f, " at {:#x}", self.start)?;
        }
        write!(f, ", {} page{}", self.pages(), if self.pages() == 1 { "" } else { "s" })
    }
}

/// The sections of the PAL in `path`; a file of the SDK's gets `parameter_pages` for its parameters.
///
/// # Errors
///
/// The file is neither of the SDK's nor a list, or a file that it names is not there.
pub(crate) fn sections(path: &Path, parameter_pages: usize) -> Result<Vec<Section>> {
    let file = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if file.starts_with(b"\x7fELF") {
        return of_elf(&file, parameter_pages).with_context(|| format!("the PAL in {}", path.display()));
    }
    let text = String::from_utf8(file)
        .with_context(|| format!("{} is neither ELF nor a list of sections", path.display()))?;
    of_list(&text, path.parent().unwrap_or(Path::new(".")))
        .with_context(|| format!("the list in {}", path.display()))
}

fn of_elf(file: &[u8], parameter_pages: usize) -> Result<Vec<Section>> {
    let elf = ElfBytes::<AnyEndian>::minimal_parse(file)?;
    let segments = elf.segments().context("there are no segments")?;
    let mut sections = Vec::new();
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz > 0) {
        let kind = if segment.p_flags & PF_X == 0 { 2 } else { 1 };
        let pages = usize::try_from(segment.p_memsz.div_ceil(PAGE as u64))?;
        sections.push(Section::new(kind, segment.p_vaddr, pages, elf.segment_data(&segment)?)?);
    }
    ensure!(!sections.is_empty(), "nothing in it is loaded");
    sections.push(Section::new(PARAMETERS, 0, parameter_pages, &[])?);
    sections.push(Section::new(STACK, 0, SDK_STACK_PAGES, &[])?);
    Ok(sections)
}

fn of_list(text: &str, folder: &Path) -> Result<Vec<Section>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).enumerate();
    let sections = lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| of_line(line, folder).with_context(|| format!("line {}: `{line}`", index + 1)));
    let sections: Vec<Section> = sections.collect::<Result<_>>()?;
    ensure!(!sections.is_empty(), "it names no section");
    Ok(sections)
}

fn of_line(line: &str, folder: &Path) -> Result<Section> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind, start, pages, contents] = words[..] else { bail!("a section is TYPE ADDRESS PAGES CONTENTS") };
    let kind = KINDS.iter().skip(1).position(|name| *name == kind).map(|position| position + 1);
    let kind = u32::try_from(kind.with_context(|| format!("a type is one of {:?}", &KINDS[1..]))?)?;
    let start = match start {
        "-" if matches!(kind, PARAMETERS | STACK) => 0,
        start => u64::from_str_radix(start.trim_start_matches("0x"), 16)
            .context("an address is written in hexadecimal digits")?,
    };
    let pages: usize = pages.parse().context("the number of pages is decimal")?;
    let bytes = match contents.strip_prefix("fill=") {
        Some(byte) => {
            let byte = u8::from_str_radix(byte.trim_start_matches("0x"), 16)
                .context("a byte is written in hexadecimal digits")?;
            vec![byte; pages.saturating_mul(PAGE)]
        }
        None if contents == "zero" => Vec::new(),
        None => std::fs::read(folder.join(contents)).with_context(|| format!("reading {contents}"))?,
    };
    Section::new(kind, start, pages, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_sections_and_their_contents() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("text"), b"\xc3\xc3").unwrap();
        let list = folder.path().join("list");
        let text = "# a PAL\ncode 0x400000 1 text\nparameters - 1 zero # none\n\nstack - 2 fill=0x90\n";
        std::fs::write(&list, text).unwrap();
        let sections = sections(&list, 1).unwrap();
        let shown: Vec<_> = sections.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["code at 0x400000, 1 page", "parameters, 1 page", "stack, 2 pages"]);
        assert_eq!(sections[0].contents[..3], [0xc3, 0xc3, 0]);
        assert_eq!(sections[2].contents, vec![0x90; 8192]);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_with_its_line() {
        for (line, word) in [
            ("cod 0 1 zero", "a type is one of"),
            ("code 0x400000 1", "TYPE ADDRESS PAGES CONTENTS"),
            ("code - 1 zero", "hexadecimal"),
            ("code 0 x zero", "decimal"),
            ("code 0 1 absent", "reading absent"),
            ("code 0 1 fill=999", "a byte is"),
            ("", "names no section"),
        ] {
            let error = of_list(line, Path::new("/nowhere")).unwrap_err();
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
        assert!(Section::new(1, 0, 1, &[0; 4097]).is_err());
    }

    /// The head of an ELF file, and two program headers: code of 3 bytes, data of 5000 bytes of which 2 are there.
    fn elf() -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        let header = |flags: u32, offset: u64, address: u64, in_file: u64, in_memory: u64| {
            let numbers = [offset, address, address, in_file, in_memory, 4096];
            let mut bytes = [PT_LOAD.to_le_bytes(), flags.to_le_bytes()].concat();
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            bytes
        };
        file.extend([0x40_0000_u64, 64, 0].iter().flat_map(|number| number.to_le_bytes()));
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
        file.extend(header(5, 176, 0x40_0000, 3, 3));
        file.extend(header(6, 179, 0x40_1000, 2, 5000));
        file.extend(b"abcde");
        file
    }

    #[test]
    fn a_file_of_the_sdk_has_its_segments_parameters_and_stack() {
        let sections = of_elf(&elf(), 2).unwrap();
        let shown: Vec<_> = sections.iter().map(ToString::to_string).collect();
        let expected = [
            "code at 0x400000, 1 page",
            "data at 0x401000, 2 pages",
            "parameters, 2 pages",
            "stack, 4 pages",
        ];
        assert_eq!(shown, expected);
        assert_eq!((&sections[0].contents[..4], &sections[1].contents[..3]), (&b"abc\0"[..], &b"de\0"[..]));
        assert!(of_elf(&elf()[..100], 1).is_err());
    }
}
