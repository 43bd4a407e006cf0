//! A row of the table: a figure without the hypervisor, with ours and with the original, and its bar.

use crate::summary::thousands;
use std::fmt;

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What was measured.
    pub(super) what: &'static str,
    /// Its name in the file, where it has one.
    pub(super) key: Option<&'static str>,
    pub(super) bare: Option<u64>,
    pub(super) ours: Option<u64>,
    /// The C original's figure.
    pub(super) original: Option<u64>,
    /// `None` where what it hangs on was not measured, which misses it.
    pub(super) bar: Option<Bar>,
}

/// What a figure has to stay below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    AtMost(u64),
    PercentOverBare(u64),
}

impl Row {
    /// The same row with a name in the file.
    pub(super) fn named(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    fn most(&self) -> Option<u64> {
        match self.bar? {
            Bar::AtMost(most) => Some(most),
            Bar::PercentOverBare(percent) => self.bare.map(|bare| bare + bare * percent / 100),
        }
    }

    /// Whether the figure is there and not above its bar.
    pub(super) fn meets_bar(&self) -> bool {
        matches!((self.ours, self.most()), (Some(ours), Some(most)) if ours <= most)
    }

    /// How many times the original's figure is ours, to one decimal.
    fn ratio(&self) -> Option<String> {
        let ours = self.ours.filter(|ours| *ours > 0)?;
        let tenths = self.original.filter(|original| *original > 0)? * 10 / ours;
        Some(format!("{}.{}x", thousands(tenths / 10), tenths % 10))
    }
}

/// The table for a person.
pub(super) struct Table<'a>(pub(super) &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), thousands);
        let heads = ["bare", "ours", "C original", "original/ours", "bar"];
        write!(formatter, "{:40}", "")?;
        heads.iter().try_for_each(|head| write!(formatter, "{head:>15}"))?;
        for row in self.0 {
            let cells = [row.bare, row.ours, row.original].map(show);
            let ratio = row.ratio().unwrap_or_else(|| "-".into());
            write!(formatter, "\n{:40}", row.what)?;
            cells.iter().try_for_each(|cell| write!(formatter, "{cell:>15}"))?;
            let verdict = if row.meets_bar() { "ok" } else { "MISSED" };
            write!(formatter, "{ratio:>15}{:>15}  {verdict}", show(row.most()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: u64, original: u64) -> Row {
        let bar = Some(Bar::PercentOverBare(4));
        Row { what: "probe", key: None, bare: Some(1000), ours: Some(ours), original: Some(original), bar }
    }

    #[test]
    fn ratio_is_the_originals_figure_over_ours() {
        assert_eq!(row(386, 3860).ratio().as_deref(), Some("10.0x"));
        assert_eq!((row(0, 5).ratio(), row(5, 0).ratio()), (None, None));
    }

    #[test]
    fn the_bar_itself_is_met_and_a_missed_one_is_shown() {
        assert!(row(1040, 1).meets_bar() && !row(1041, 1).meets_bar());
        assert!(!Row { bar: None, ..row(1, 1) }.meets_bar());
        let text = Table(&[row(1040, 1), row(1041, 1)]).to_string();
        let ends: Vec<_> = text.lines().skip(1).map(|line| line.split_whitespace().last().unwrap()).collect();
        assert_eq!(ends, ["ok", "MISSED"]);
    }
}
