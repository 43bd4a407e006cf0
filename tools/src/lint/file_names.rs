//! A file is called by a noun of the subject, never by a word for leftovers.

use super::{Finding, Source};

const FORBIDDEN: [&str; 8] = ["common", "helper", "helpers", "misc", "shared", "util", "utilities", "utils"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let path = source.path.trim_end_matches(".rs").trim_end_matches(".S");
    let words = path.split(['/', '_', '-', '.']);
    let bad = words.filter(|word| FORBIDDEN.contains(word));
    bad.map(|word| source.finding(0, format!("`{word}` says nothing of what is inside"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_leftovers_are_found_in_files_and_folders() {
        let findings = |path: &str| check(&Source::new(path, "")).len();
        assert_eq!(findings("runtime/src/util.rs"), 1);
        assert_eq!(findings("runtime/src/misc/msr_helpers.rs"), 2);
        assert_eq!(findings("runtime/src/memory/utility.rs"), 0);
        assert_eq!(findings("runtime/src/exit/cpuid.rs"), 0);
    }
}
