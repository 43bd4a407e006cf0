//! The words of the command line.

/// Most words that are looked at.
const CAPACITY: usize = 16;

/// The words behind the program's name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments {
    words: [&'static str; CAPACITY],
    count: usize,
}

impl Arguments {
    /// Takes the first words of `words`, of which the very first is the program's name.
    pub(crate) fn new(words: impl Iterator<Item = &'static str>) -> Self {
        let mut arguments = Self::default();
        for (place, word) in arguments.words.iter_mut().zip(words.skip(1)) {
            *place = word;
            arguments.count += 1;
        }
        arguments
    }

    /// The words, where there are `N` of them.
    #[must_use]
    pub fn exactly<const N: usize>(&self) -> Option<[&'static str; N]> {
        if self.count == N { self.words.get(..N)?.try_into().ok() } else { None }
    }

    /// The words, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.words.into_iter().take(self.count)
    }
}

/// A number as C's `strtoul` reads it: hexadecimal behind `0x`, else decimal.
#[must_use]
pub fn number(word: &str) -> Option<usize> {
    match word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        Some(digits) => hexadecimal(digits),
        None => word.parse().ok(),
    }
}

/// A hexadecimal number, with or without `0x`.
#[must_use]
pub fn hexadecimal(word: &str) -> Option<usize> {
    usize::from_str_radix(word.trim_start_matches("0x"), 16).ok()
}
