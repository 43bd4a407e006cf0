//! Why a register is not what it has to be: which change of one section would make it so.
//!
//! A digest cannot be read backwards. But what goes wrong is mostly one thing, and each can be tried.

use super::expected::Section;
use microtpm::{Bank, PcrBanks, PcrIndex};

/// Most pages that a section is tried with.
const PAGES_TRIED: usize = 16;
/// Bytes that pages are often full of: fresh memory, and what the original's programs fill theirs with.
const FILLS: [u8; 3] = [0, 0x90, 0xcc];

/// The first register of `bank` after a registration of `sections`.
pub(crate) fn first_register(bank: Bank, sections: &[Section]) -> Vec<u8> {
    let banks: PcrBanks = sections.iter().map(Section::digests).collect();
    let number = if bank == Bank::Sha256 { PcrIndex::SHA256_BANK } else { 0 };
    PcrIndex::from_number(number).map_or(Vec::new(), |first| banks.read(first).to_vec())
}

/// The one change to `sections` that makes the register `value`, in words.
pub(crate) fn single_change(bank: Bank, sections: &[Section], value: &[u8]) -> Option<String> {
    let gives = |sections: &[Section]| first_register(bank, sections) == value;
    if gives(&[]) {
        return Some("the register was never extended: nothing was measured".into());
    }
    if let Some(count) = (1..sections.len()).find(|&count| gives(&sections[..count])) {
        return Some(format!("only the first {count} of {} sections were registered", sections.len()));
    }
    (0..sections.len()).find_map(|index| of_section(sections, index, &gives))
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

    /// The words for what `change` does to the sections.
    fn words(change: impl Fn(&mut Vec<Section>)) -> Option<String> {
        let mut changed = sections();
        change(&mut changed);
        single_change(Bank::Sha256, &sections(), &first_register(Bank::Sha256, &changed))
    }

    #[test]
    fn each_single_change_is_named() {
        let said = |change: fn(&mut Vec<Section>)| words(change).unwrap();
        assert!(said(Vec::clear).contains("nothing was measured"));
        assert_eq!(said(|all| all.truncate(2)), "only the first 2 of 4 sections were registered");
        assert_eq!(said(|all| drop(all.remove(1))), "section 2 (data at 0x2000, 2 pages) was not registered");
        assert!(said(|all| all.swap(2, 3)).starts_with("section 3 (parameters, 1 page) and the next"));
        assert!(said(|all| all[3].contents.fill(0x90)).ends_with("(stack, 1 page) was full of 0x90"));
        assert!(said(|all| all[1].kind = 5).ends_with("was registered as shared-code at 0x2000, 2 pages"));
        assert!(said(|all| all[1].contents.truncate(4096)).ends_with("was registered with 1 pages"));
    }

    #[test]
    fn what_no_single_change_explains_is_left_open() {
        assert_eq!(words(|all| all[0].contents[5] = 0), None);
    }
}
