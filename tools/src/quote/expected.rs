//! What a PAL's registers have to be, from its file: the SDK's, or a list of sections.
//!
//! The SDK registers an ELF file's segments at their addresses, then parameters, a page of nobody's and a stack of
//! zeros. Other programs' sections are written down, a line each: type, address, pages, contents. The type is `code`,
//! `data`, `parameters`, `stack` or `shared-code`; the address may be `-` for parameters and stacks, which is enough for
//! quotes of the SHA-1 bank; the contents are a file's name (from the list's folder; zeros fill the last page), `zero`,
//! or `fill=BYTE`. Quotes of the SHA-256 bank need a line `entry ADDRESS` more, and `word 32` and `flags NUMBER` where
//! those are not 64 and 1, which is what the original's registration means.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use trustvisor::flags::ORIGINAL;
use trustvisor::signature::SignedHeader;
use xmhf_pal::Image;
use xmhf_pal_build::measured::{KINDS, PARAMETERS, STACK};
pub(crate) use xmhf_pal_build::measured::{Pal, Section};

/// Bytes of a page.
const PAGE: usize = 4096;

/// The PAL in `path`, with these parameters; `flags` are those that it is registered with, where they are not the
/// usual ones.
///
/// # Errors
///
/// The file is neither of the SDK's nor a list, or a file that it names is not there.
pub(crate) fn pal(path: &Path, parameters: Vec<(u32, u64)>, flags: Option<u32>) -> Result<Pal> {
    let file = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if file.starts_with(b"\x7fELF") {
        let pal = of_elf(&file, parameters).with_context(|| format!("the PAL in {}", path.display()))?;
        return Ok(Pal { flags: flags.unwrap_or(pal.flags), ..pal });
    }
    let text = String::from_utf8(file)
        .with_context(|| format!("{} is neither ELF nor a list of sections", path.display()))?;
    let pal = of_list(&text, path.parent().unwrap_or(Path::new(".")))
        .with_context(|| format!("the list in {}", path.display()))?;
    Ok(Pal { parameters, flags: flags.unwrap_or(pal.flags), ..pal })
}

/// The signed header behind the PAL's file, where there is one.
///
/// # Errors
///
/// The file cannot be read.
pub(crate) fn signed(path: &Path) -> Result<Option<SignedHeader>> {
    let file = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(file.last_chunk().and_then(SignedHeader::from_bytes))
}

fn of_elf(file: &[u8], parameters: Vec<(u32, u64)>) -> Result<Pal> {
    let image = Image::parse(file).map_err(|why| anyhow::anyhow!("{why}"))?;
    let flags = image.signed.map_or(0, |header| header.flags);
    Pal::new(&image, parameters, flags, image.stack_pages())
}

fn of_list(text: &str, folder: &Path) -> Result<Pal> {
    let flags = ORIGINAL;
    let mut pal = Pal { word_bytes: 8, entry: 0, flags, parameters: Vec::new(), sections: Vec::new() };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let context = || format!("line {}: `{line}`", index + 1);
        match line.split_once(char::is_whitespace).map(|(word, rest)| (word, rest.trim())) {
            Some(("entry", address)) => pal.entry = hexadecimal(address).with_context(context)?,
            Some(("word", "32")) => pal.word_bytes = 4,
            Some(("word", "64")) => pal.word_bytes = 8,
            Some(("flags", flags)) => pal.flags = flags.parse().with_context(context)?,
            _ => pal.sections.push(of_line(line, folder).with_context(context)?),
        }
    }
    ensure!(!pal.sections.is_empty(), "it names no section");
    Ok(pal)
}

fn hexadecimal(text: &str) -> Result<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .context("an address is written in hexadecimal digits")
}

fn of_line(line: &str, folder: &Path) -> Result<Section> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind, start, pages, contents] = words[..] else { bail!("a section is TYPE ADDRESS PAGES CONTENTS") };
    let kind = KINDS.iter().skip(1).position(|name| *name == kind).map(|position| position + 1);
    let kind = u32::try_from(kind.with_context(|| format!("a type is one of {:?}", &KINDS[1..]))?)?;
    let start = match start {
        "-" if matches!(kind, PARAMETERS | STACK) => 0,
        start => hexadecimal(start)?,
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
    use elf::abi::PT_LOAD;

    #[test]
    fn a_list_names_sections_and_their_contents() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("text"), b"\xc3\xc3").unwrap();
        let list = folder.path().join("list");
        let text = "# a PAL\ncode 0x400000 1 text\nparameters - 1 zero # none\n\nstack - 2 fill=0x90\n";
        std::fs::write(&list, text).unwrap();
        let sections = pal(&list, Vec::new(), None).unwrap().sections;
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

    #[test]
    fn a_list_says_what_else_a_quote_of_the_larger_bank_is_of() {
        let sections = "code 0x400000 1 zero\nstack 0x500000 1 zero\n";
        let of = |more: &str| of_list(&format!("{more}{sections}"), Path::new(".")).unwrap();
        let told = of("entry 0x400010\nword 32 # narrow\nflags 2\n");
        assert_eq!((told.entry, told.word_bytes, told.flags, told.sections.len()), (0x40_0010, 4, 2, 2));
        assert_eq!((of("").word_bytes, of("").flags), (8, 1));
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
        let pal = of_elf(&elf(), vec![(1, 0), (2, 1000)]).unwrap();
        let shown: Vec<_> = pal.sections.iter().map(ToString::to_string).collect();
        let expected = [
            "code at 0x400000, 1 page",
            "data at 0x401000, 2 pages",
            "parameters, 2 pages",
            "stack, 4 pages",
        ];
        assert_eq!(shown, expected);
        let starts: Vec<_> = pal.sections.iter().map(|section| section.start).collect();
        assert_eq!(starts, [0x40_0000, 0x40_1000, 0x40_3000, 0x40_6000]);
        let contents = |index: usize| &pal.sections[index].contents;
        assert_eq!((&contents(0)[..4], &contents(1)[..3]), (&b"abc\0"[..], &b"de\0"[..]));
        assert_eq!((pal.entry, pal.word_bytes, pal.flags, pal.parameters.len()), (0x40_0000, 8, 0, 2));
        assert!(of_elf(&elf()[..100], Vec::new()).is_err());
    }
}
