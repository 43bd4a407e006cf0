//! A citation of the SDM names the section by its title: numbers move from one revision to the next.

use super::{Finding, Source};

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let bad = (0..lines.len()).filter(|&index| cites(lines[index]) && !has_title(&lines, index));
    bad.map(|index| source.finding(index + 1, "an SDM citation without a section title in quotes")).collect()
}

/// Whether a comment cites: the abbreviation with a comma or a section behind it.
fn cites(line: &str) -> bool {
    let Some((_, comment)) = line.split_once("//").or_else(|| line.split_once('#')) else {
        return false;
    };
    comment.match_indices("SDM").any(|(at, word)| {
        let after = &comment[at + word.len()..];
        let opens = [",", " section", " Section", " vol", " Vol", " chapter", " Chapter", " table", " Table"];
        opens.iter().any(|open| after.starts_with(open))
    })
}

/// Whether a title in quotes starts behind the citation, on its line or the next, where long ones wrap to.
fn has_title(lines: &[&str], index: usize) -> bool {
    let behind = lines[index].split("SDM").skip(1).any(|rest| rest.contains('"'));
    behind || lines.get(index + 1).is_some_and(|next| next.contains('"') && next.contains("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&Source::new("lib/x86/src/cr.rs", text)).len()
    }

    #[test]
    fn a_citation_has_a_title() {
        assert_eq!(findings("//! Control registers (SDM, \"Control Registers\").\n"), 0);
        assert_eq!(findings("// As the SDM says (SDM,\n// \"VM Exits Induced by the TPR Shadow\").\n"), 0);
        assert_eq!(findings("# SDM, \"Initializing IA-32e Mode\"\n"), 0);
    }

    #[test]
    fn a_number_is_no_title() {
        assert_eq!(findings("// SDM, 28.3.2\n"), 1);
        assert_eq!(findings("// See SDM Vol. 3C.\n"), 1);
        assert_eq!(findings("let a = 1; // SDM section 4.5\n"), 1);
    }

    #[test]
    fn naming_the_book_is_no_citation() {
        assert_eq!(findings("//! On the SDM: prose.\n"), 0);
        assert_eq!(findings("// A file is one noun of the SDM's index.\n"), 0);
        assert_eq!(findings("// Manual (\"SDM\") by title.\nlet sdm = \"SDM, 4\";\n"), 0);
    }
}
