//! Words of the command line that look like one of our keys, and are none.

/// Keys of [`crate::command_line::Options`].
const KEYS: [&str; 9] = [
    "serial",
    "boot_drive",
    "log",
    "hypervisor_bit",
    "nested",
    "nested_xmhf",
    "nested_pool",
    "nested_ept02",
    "dmap",
];
/// Longest key that is looked at; ours are shorter.
const LONGEST: usize = 24;

/// Keys in `line` that are none of ours, each with ours that was probably meant.
pub fn near_misses(line: &str) -> impl Iterator<Item = (&str, &'static str)> {
    let keys = line.split_ascii_whitespace().filter_map(|word| word.split_once('=')).map(|(key, _)| key);
    keys.filter(|key| !KEYS.contains(key)).filter_map(|key| meant(key).map(|meant| (key, meant)))
}

/// Returns a key of ours that a slip or two make `word`: a letter too many, missing, or wrong, or two that changed
/// places.
fn meant(word: &str) -> Option<&'static str> {
    let slips = |key: &str| if key.len() < 5 { 1 } else { 2 };
    KEYS.into_iter().find(|key| distance(word, key).is_some_and(|distance| distance <= slips(key)))
}

/// Fewest letters to insert, delete or replace that make `b` of `a` (Levenshtein), letter case aside; `None` for what is
/// too long.
fn distance(a: &str, b: &str) -> Option<usize> {
    if a.len() > LONGEST || b.len() > LONGEST {
        return None;
    }
    let mut row = [0; LONGEST + 1];
    row.iter_mut().enumerate().for_each(|(index, cell)| *cell = index);
    for (line, a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(&b));
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.get(b.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::Options;

    #[test]
    fn a_slip_is_noticed() {
        for (word, key) in [
            ("boot_drvie", "boot_drive"),
            ("bootdrive", "boot_drive"),
            ("boot-drive", "boot_drive"),
            ("BOOT_DRIVE", "boot_drive"),
            ("seriel", "serial"),
            ("lg", "log"),
            ("nestd_pool", "nested_pool"),
        ] {
            let line = format!("quiet {word}=1");
            assert_eq!(near_misses(&line).collect::<Vec<_>>(), [(word, key)]);
        }
    }

    #[test]
    fn other_words_are_not_taken_for_slips() {
        let line = "pal_ticks=1 root=/dev/sda quiet serial=x boot_drive nvenforce=true a=1 =2 mod=3 \
                    a_word_that_is_longer_than_any_key_could_be=3";
        assert_eq!(near_misses(line).count(), 0);
    }

    #[test]
    fn the_keys_are_those_that_are_understood() {
        for key in KEYS {
            assert!(Options::parse(&format!("{key}=?")).is_err(), "{key}");
        }
    }

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), Some(expected), "{a} {b}");
        }
        assert_eq!(distance(&"a".repeat(25), "a"), None);
        assert_eq!(distance("a", &"a".repeat(24)), Some(23));
        assert_eq!(distance(&"a".repeat(24), "a"), Some(23));
    }
}
