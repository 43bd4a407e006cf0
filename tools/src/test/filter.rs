//! Which tests to run.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Words that stand for a group of tests rather than for a part of a name.
const GROUPS: [&str; 5] = ["unit", "lint", "bare", "linux", "boot"];

/// Takes every test, those of one group, or those with some words in their name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Every test.
    #[default]
    All,
    /// Tests of one group: `unit`, `lint`, `bare`, `linux` or `boot`.
    Group(String),
    /// Tests whose name holds this.
    Name(String),
}

impl Filter {
    /// Whether a test of this group and name is taken.
    #[must_use]
    pub fn takes(&self, group: &str, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Group(wanted) => wanted == group,
            Self::Name(part) => name.contains(part.as_str()),
        }
    }
}

impl FromStr for Filter {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match word {
            "all" => Self::All,
            word if GROUPS.contains(&word) => Self::Group(word.to_owned()),
            word => Self::Name(word.to_owned()),
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::All => "all",
            Self::Group(word) | Self::Name(word) => word,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(word: &str) -> Filter {
        word.parse().unwrap()
    }

    #[test]
    fn a_group_takes_its_tests_whatever_their_names() {
        assert!(filter("boot").takes("boot", "run/no-module"));
        assert!(!filter("boot").takes("bare", "guest/boot_sector"));
        assert!(filter("all").takes("bare", "guest/hello"));
    }

    #[test]
    fn other_words_are_looked_for_in_names() {
        assert!(filter("reset").takes("bare", "guest/reset_cf9"));
        assert!(!filter("reset").takes("bare", "guest/hello"));
        assert!(!filter("reset").takes("lint", "lint"));
    }
}
