//! What cargo-mutants would change: one entry of its list.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// One small change of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// cargo-mutants' own name: file, place and what becomes of it.
    pub(super) name: String,
    /// Below the workspace's root.
    pub(super) file: String,
    pub(super) span: Span,
    pub(super) replacement: String,
    /// The function around it, from its first word on.
    pub(super) function: Option<Span>,
    /// The body of its function: the span of the changes that replace the whole of it.
    pub(super) body: Option<Span>,
    /// Whether its function returns some type that the body alone determines.
    pub(super) is_opaque: bool,
}

/// A part of a file, by lines and columns from 1, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    start: (usize, usize),
    end: (usize, usize),
}

impl Change {
    /// Reads what `cargo mutants --list --json` prints.
    pub(super) fn list(json: &str) -> Result<Vec<Self>> {
        let list: Vec<Value> = serde_json::from_str(json).context("cargo-mutants lists no changes")?;
        let read = |entry| Self::of(entry).with_context(|| format!("not a change: {entry}"));
        let mut changes = list.iter().map(read).collect::<Result<Vec<_>>>()?;
        let bodies: BTreeMap<(String, Option<Span>), Span> = changes
            .iter()
            .filter_map(|change| Some(((change.file.clone(), change.function), change.body?)))
            .collect();
        for change in &mut changes {
            change.body = bodies.get(&(change.file.clone(), change.function)).copied();
        }
        Ok(changes)
    }

    /// One of a file's, for tests.
    #[cfg(test)]
    pub(super) fn in_file(file: &str) -> Self {
        let span = Span::new((1, 1), (1, 1));
        let [name, replacement] = [const { String::new() }; 2];
        Self { name, file: file.to_owned(), span, replacement, function: None, body: None, is_opaque: false }
    }

    fn of(entry: &Value) -> Option<Self> {
        let text = |key: &str| Some(entry.get(key)?.as_str()?.to_owned());
        let function = entry.get("function").filter(|function| !function.is_null());
        let returned = function.and_then(|function| function.get("return_type")?.as_str());
        let span = Span::of(entry.get("span")?)?;
        Some(Self {
            name: text("name")?,
            file: text("file")?,
            span,
            replacement: text("replacement")?,
            function: function.and_then(|function| Span::of(function.get("span")?)),
            body: (entry.get("genre")? == "FnValue").then_some(span),
            is_opaque: returned.is_some_and(|returned| returned.contains("impl ")),
        })
    }
}

impl Span {
    #[cfg(test)]
    pub(super) const fn new(start: (usize, usize), end: (usize, usize)) -> Self {
        Self { start, end }
    }

    fn of(value: &Value) -> Option<Self> {
        let place = |of: &str| {
            let number = |key: &str| usize::try_from(value.get(of)?.get(key)?.as_u64()?).ok();
            Some((number("line")?, number("column")?))
        };
        Some(Self { start: place("start")?, end: place("end")? })
    }

    /// The bytes of `text` that it covers.
    pub(super) fn bytes(self, text: &str) -> Option<Range<usize>> {
        let offset = |(line, column): (usize, usize)| {
            let start = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
            let rest = text.get(start..)?;
            let within = rest.char_indices().map(|(at, _)| at).nth(column - 1).unwrap_or(rest.len());
            Some(start + within)
        };
        Some(offset(self.start)?..offset(self.end)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_characters_from_one() {
        let text = "first\n  é + 1\n";
        let bytes = Span::new((2, 5), (2, 6)).bytes(text).unwrap();
        assert_eq!(&text[bytes], "+");
        assert_eq!(&text[Span::new((1, 1), (2, 4)).bytes(text).unwrap()], "first\n  é");
        assert_eq!(Span::new((9, 1), (9, 2)).bytes(text), Some(text.len()..text.len()));
    }

    #[test]
    fn the_list_of_cargo_mutants_is_read() {
        let json = r#"[{"name":"a.rs:2:5: replace f -> impl Fn with x","file":"a.rs","genre":"FnValue",
            "package":"p","replacement":"x",
            "function":{"function_name":"f","return_type":"-> impl Fn",
                "span":{"start":{"line":1,"column":1},"end":{"line":3,"column":2}}},
            "span":{"start":{"line":2,"column":5},"end":{"line":2,"column":9}}},
            {"name":"a.rs:9:1: replace + with -","file":"a.rs","genre":"BinaryOperator","function":null,
            "replacement":"-","span":{"start":{"line":9,"column":1},"end":{"line":9,"column":2}}}]"#;
        let [body, operator] = Change::list(json).unwrap().try_into().unwrap();
        assert!(body.is_opaque && !operator.is_opaque);
        assert_eq!((body.body, operator.body), (Some(body.span), None));
        assert_eq!(body.function, Some(Span::new((1, 1), (3, 2))));
        assert_eq!((operator.function, operator.replacement.as_str()), (None, "-"));
        assert!(Change::list(r#"[{"name":"x"}]"#).is_err());
        // Also where only that one is tried, the function can choose.
        let inside = json.replace(
            "\"function\":null",
            "\"function\":{\"span\":{\"start\":{\"line\":1,\"column\":1},\"end\":{\"line\":3,\"column\":2}}}",
        );
        let [body, operator] = Change::list(&inside).unwrap().try_into().unwrap();
        assert_eq!(operator.body, Some(body.span));
    }
}
