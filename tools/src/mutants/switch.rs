//! One source text with many changes in it, of which a variable of the environment chooses one at run time.
//!
//! A body `a < b` with two changes becomes
//!
//! ```text
//! match crate::xmhf_switch::chosen(7, 8) {
//!     7 => { a <= b }
//!     8 => { true }
//!     _ => { a < b }
//! }
//! ```
//!
//! so that a package is compiled once for all its changes. A function that a constant needs cannot choose: where the
//! compiler evaluates it, compiling fails, and what is in it is left to cargo-mutants.

use super::change::Change;
use std::collections::BTreeSet;
use std::ops::Range;

/// Goes before the package's first file, for [`MODULE`].
pub(super) const FEATURES: &str = "#![feature(core_intrinsics, const_eval_select)]\n";
/// Appended to the package's first file.
pub(super) const MODULE: &str = r#"
#[allow(warnings)]
#[doc(hidden)]
pub mod xmhf_switch {
    extern crate std;
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static CHOSEN: OnceLock<u32> = OnceLock::new();
    static PATH: OnceLock<Option<std::string::String>> = OnceLock::new();
    /// By the first number of a function; those beyond its length are told more than once.
    static REACHED: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];

    /// The chosen change where it is one of `first` to `last`, 0 where it is not.
    pub const fn chosen(first: u32, last: u32) -> u32 {
        core::intrinsics::const_eval_select((first, last), by_compiler, at_run_time)
    }

    const fn by_compiler(_: u32, _: u32) -> u32 {
        panic!("a constant needs it")
    }

    fn at_run_time(first: u32, last: u32) -> u32 {
        let number = || std::env::var("XMHF_CHANGE").ok()?.parse().ok();
        let chosen = *CHOSEN.get_or_init(|| number().unwrap_or(0));
        if chosen == 0 {
            reach(first);
        }
        if first <= chosen && chosen <= last { chosen } else { 0 }
    }

    fn reach(first: u32) {
        let path = || std::env::var("XMHF_REACHED").ok();
        let Some(path) = PATH.get_or_init(path) else { return };
        if REACHED.get(first as usize).is_some_and(|reached| reached.swap(true, Ordering::Relaxed)) {
            return;
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(std::format!("{first}\n").as_bytes()).unwrap();
    }
}
"#;

/// A change that got a number in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u32,
    /// The smallest number in the same function, by which the function is known.
    pub(super) first: u32,
    /// The line in the new text where the function chooses, from 1.
    pub(super) head: usize,
    /// Its lines in the new text, from 1.
    pub(super) lines: Range<usize>,
    /// Its place in the list of changes.
    pub(super) index: usize,
}

impl Numbered {
    /// The same, in a text that begins `by` lines earlier.
    pub(super) fn moved(self, by: usize) -> Self {
        Self { head: self.head + by, lines: self.lines.start + by..self.lines.end + by, ..self }
    }
}

/// Gives `text` with all `changes` in it that can be chosen at run time, numbered from `next` on, but those `without`.
pub(super) fn switched(
    text: &str,
    changes: &[(usize, &Change)],
    without: &BTreeSet<usize>,
    next: u32,
) -> (String, Vec<Numbered>) {
    let mut new = String::new();
    let mut numbered = Vec::new();
    let mut copied = 0;
    for body in bodies(text, changes) {
        let inside = changes.iter().filter_map(|(index, change)| {
            let span = change.span.bytes(text)?;
            let is_inside = body.start <= span.start && span.end <= body.end && !without.contains(index);
            is_inside.then_some((*index, *change, span))
        });
        let inside: Vec<_> = inside.collect();
        if inside.is_empty() {
            continue;
        }
        new.push_str(&text[copied..body.start]);
        copied = body.end;
        let head = lines(&new);
        let first = next + u32::try_from(numbered.len()).unwrap_or(0);
        let numbers: Vec<u32> = (first..).take(inside.len()).collect();
        let last = numbers.last().copied().unwrap_or(first);
        new.push_str(&format!("match crate::xmhf_switch::chosen({first}, {last}) {{\n"));
        for (number, (index, change, span)) in numbers.into_iter().zip(inside) {
            let (before, after) = (&text[body.start..span.start], &text[span.end..body.end]);
            let start = lines(&new);
            new.push_str(&format!("{number} => {{\n{before}{}{after}\n}}\n", change.replacement));
            numbered.push(Numbered { number, first, head, lines: start..lines(&new), index });
        }
        new.push_str(&format!("_ => {{\n{}\n}}\n}}", &text[body.clone()]));
    }
    new.push_str(&text[copied..]);
    (new, numbered)
}

/// Number of the line that the next character will be in.
fn lines(text: &str) -> usize {
    text.matches('\n').count() + 1
}

/// The outermost functions' bodies that can choose, in the order of the text.
fn bodies(text: &str, changes: &[(usize, &Change)]) -> Vec<Range<usize>> {
    let mut bodies: Vec<(Range<usize>, bool)> = changes
        .iter()
        .filter_map(|(_, change)| Some((change.body?.bytes(text)?, !change.is_opaque)))
        .collect();
    bodies.sort_by_key(|(body, _)| (body.start, std::cmp::Reverse(body.end)));
    let mut outermost: Vec<(Range<usize>, bool)> = Vec::new();
    for (body, can_choose) in bodies {
        if outermost.last().is_none_or(|(last, _)| last.end <= body.start) {
            outermost.push((body, can_choose));
        }
    }
    outermost.into_iter().filter_map(|(body, can_choose)| can_choose.then_some(body)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::change::Span;
    use super::*;

    fn change(start: (usize, usize), end: (usize, usize), replacement: &str, function: Span) -> Change {
        Change {
            name: String::new(),
            file: String::new(),
            span: Span::new(start, end),
            replacement: replacement.to_owned(),
            function: Some(function),
            body: (replacement == "true").then_some(Span::new(start, end)),
            is_opaque: false,
        }
    }

    #[test]
    fn a_body_becomes_a_choice_of_its_changes() {
        let text = "fn f() -> bool {\n    a < b\n}\n";
        let function = Span::new((1, 1), (3, 2));
        let body = change((2, 5), (2, 10), "true", function);
        let operator = change((2, 7), (2, 8), "<=", function);
        let (new, numbered) = switched(text, &[(4, &operator), (5, &body)], &BTreeSet::new(), 7);
        assert_eq!(
            new,
            "fn f() -> bool {\n    match crate::xmhf_switch::chosen(7, 8) {\n7 => {\na <= b\n}\n8 => {\ntrue\n}\n_ => \
             {\na < b\n}\n}\n}\n"
        );
        let expected = [
            Numbered { number: 7, first: 7, head: 2, lines: 3..6, index: 4 },
            Numbered { number: 8, first: 7, head: 2, lines: 6..9, index: 5 },
        ];
        assert_eq!(numbered, expected);
    }

    #[test]
    fn what_cannot_choose_stays_as_it_is() {
        let text = "fn f() -> impl Eq {\n    a < b\n}\n";
        let body = change((2, 5), (2, 10), "true", Span::new((1, 1), (3, 2)));
        let unchanged = (text.to_owned(), Vec::new());
        assert_eq!(switched(text, &[(0, &body)], &BTreeSet::from([0]), 1), unchanged);
        let opaque = Change { is_opaque: true, ..body };
        assert_eq!(switched(text, &[(0, &opaque)], &BTreeSet::new(), 1), unchanged);
    }

    #[test]
    fn a_function_within_a_function_chooses_with_it() {
        let text = "fn f() {\nfn g() { 1 }\ng() }\n";
        let outer = change((2, 1), (3, 4), "true", Span::new((1, 1), (3, 6)));
        let inner = change((2, 10), (2, 11), "true", Span::new((2, 1), (2, 13)));
        let (new, numbered) = switched(text, &[(0, &outer), (1, &inner)], &BTreeSet::new(), 1);
        assert_eq!(new.matches("chosen(1, 2)").count(), 1);
        assert_eq!(numbered.len(), 2);
    }
}
