//! Why a register is not what it has to be: which change of one section would make it so.
//!
//! A digest cannot be read backwards. But what goes wrong is mostly one thing, and each can be tried.

use super::expected::{Pal, Section};
use microtpm::{Bank, PcrBanks, PcrIndex};

/// Most pages that a section is tried with.
const PAGES_TRIED: usize = 16;
/// Bytes that pages are often full of: fresh memory, and what the original's programs fill theirs with.
const FILLS: [u8; 3] = [0, 0x90, 0xcc];
/// Largest flags that are tried.
const FLAGS_TRIED: u32 = 7;

/// The first register of `bank` after a registration of `pal`.
pub(crate) fn first_register(bank: Bank, pal: &Pal) -> Vec<u8> {
    let digests = pal.sections.iter().map(Section::digests);
    register(bank, &PcrBanks::measured(&pal.header_digest(), digests))
}

fn register(bank: Bank, banks: &PcrBanks) -> Vec<u8> {
    let number = if bank == Bank::Sha256 { PcrIndex::SHA256_BANK } else { 0 };
    PcrIndex::from_number(number).map_or(Vec::new(), |first| banks.read(first).to_vec())
}

/// The one change to `pal` that makes the register `value`, in words.
pub(crate) fn single_change(bank: Bank, pal: &Pal, value: &[u8]) -> Option<String> {
    if register(bank, &PcrBanks::new()) == value {
        return Some("the register was never extended: nothing was measured".into());
    }
    if bank == Bank::Sha256
        && let Some(why) = of_header(pal, &|pal| first_register(bank, pal) == value)
    {
        return Some(why);
    }
    let sections = &pal.sections;
    let gives = |sections: &[Section]| {
        first_register(bank, &Pal { sections: sections.to_vec(), ..pal.clone() }) == value
    };
    if let Some(count) = (1..sections.len()).find(|&count| gives(&sections[..count])) {
        return Some(format!("only the first {count} of {} sections were registered", sections.len()));
    }
    (0..sections.len()).find_map(|index| of_section(sections, index, &gives))
}

/// The change to what only the header says.
fn of_header(pal: &Pal, gives: &dyn Fn(&Pal) -> bool) -> Option<String> {
    let flags = (0..=FLAGS_TRIED).filter(|flags| *flags != pal.flags);
    if let Some(flags) = flags.into_iter().find(|&flags| gives(&Pal { flags, ..pal.clone() })) {
        return Some(format!("it was registered with the flags {flags}, not {}", pal.flags));
    }
    if gives(&Pal { parameters: Vec::new(), ..pal.clone() }) {
        return Some("it was registered without parameters".into());
    }
    let word_bytes = 12 - pal.word_bytes;
    if gives(&Pal { word_bytes, ..pal.clone() }) {
        return Some(format!("it was registered from a process with words of {word_bytes} bytes"));
    }
    None
}

/// The change to the section of `index`.
fn of_section(sections: &[Section], index: usize, gives: &dyn Fn(&[Section]) -> bool) -> Option<String> {
    let section = &sections[index];
    let name = format!("section {} ({section})", index + 1);
    let with = |changed: Section| {
        let mut all = sections.to_vec();
        all[index] = changed;
        gives(&all)
    };
    let mut without = sections.to_vec();
    without.remove(index);
    if gives(&without) {
        return Some(format!("{name} was not registered"));
    }
    if index + 1 < sections.len() {
        let mut swapped = sections.to_vec();
        swapped.swap(index, index + 1);
        if gives(&swapped) {
            return Some(format!("{name} and the next were registered in the other order"));
        }
    }
    let size = section.contents.len();
    let filled = |byte: &u8| with(Section { contents: vec![*byte; size], ..section.clone() });
    if let Some(byte) = FILLS.iter().find(|byte| filled(byte)) {
        return Some(format!("{name} was full of {byte:#04x}"));
    }
    let retyped = |kind: &u32| with(Section { kind: *kind, ..section.clone() });
    if let Some(kind) = (1..=5).filter(|kind| *kind != section.kind).find(retyped) {
        return Some(format!("{name} was registered as {}", Section { kind, ..section.clone() }));
    }
    let resized = |pages: &usize| {
        let mut contents = section.contents.clone();
        contents.resize(pages * 4096, 0);
        with(Section { contents, ..section.clone() })
    };
    let pages = (1..=PAGES_TRIED).filter(|pages| *pages != section.pages()).find(resized)?;
    Some(format!("{name} was registered with {pages} pages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<Section> {
        let section =
            |kind, start, byte, pages: usize| Section { kind, start, contents: vec![byte; pages * 4096] };
        vec![section(1, 0x1000, 0xc3, 1), section(2, 0x2000, 7, 2), section(3, 0, 1, 1), section(4, 0, 2, 1)]
    }

    fn pal() -> Pal {
        let parameters = vec![(1, 0), (2, 3)];
        Pal { word_bytes: 8, entry: 0x1000, flags: 0, parameters, sections: sections() }
    }

    /// The words for what `change` does to the PAL.
    fn words(change: impl Fn(&mut Pal)) -> Option<String> {
        let mut changed = pal();
        change(&mut changed);
        single_change(Bank::Sha256, &pal(), &first_register(Bank::Sha256, &changed))
    }

    /// The same for the SHA-1 bank, which knows of sections alone.
    fn section_words(change: fn(&mut Vec<Section>)) -> String {
        let mut changed = pal();
        change(&mut changed.sections);
        single_change(Bank::Sha1, &pal(), &first_register(Bank::Sha1, &changed)).unwrap()
    }

    #[test]
    fn each_single_change_is_named() {
        let said = section_words;
        assert!(said(Vec::clear).contains("nothing was measured"));
        assert_eq!(said(|all| all.truncate(2)), "only the first 2 of 4 sections were registered");
        assert_eq!(said(|all| drop(all.remove(1))), "section 2 (data at 0x2000, 2 pages) was not registered");
        assert!(said(|all| all.swap(2, 3)).starts_with("section 3 (parameters, 1 page) and the next"));
        assert!(said(|all| all[3].contents.fill(0x90)).ends_with("(stack, 1 page) was full of 0x90"));
        assert!(said(|all| all[1].kind = 5).ends_with("was registered as shared-code at 0x2000, 2 pages"));
        assert!(said(|all| all[1].contents.truncate(4096)).ends_with("was registered with 1 pages"));
    }

    #[test]
    fn each_single_change_of_the_header_is_named() {
        let said = |change: fn(&mut Pal)| words(change).unwrap();
        assert_eq!(said(|pal| pal.flags = 1), "it was registered with the flags 1, not 0");
        assert_eq!(said(|pal| pal.parameters.clear()), "it was registered without parameters");
        assert!(said(|pal| pal.word_bytes = 4).ends_with("words of 4 bytes"));
        assert!(
            said(|pal| pal.sections[3].contents.fill(0x90)).ends_with("(stack, 1 page) was full of 0x90")
        );
    }

    #[test]
    fn what_no_single_change_explains_is_left_open() {
        assert_eq!(words(|pal| pal.sections[0].contents[5] = 0), None);
        assert_eq!(words(|pal| pal.entry += 1), None);
    }
}
