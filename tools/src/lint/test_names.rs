//! A test's name is read at a glance, in a list of a thousand.

use super::behaviours::test_functions;
use super::{Finding, Source};

const LIMIT: usize = 60;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let names = test_functions(&source.text);
    let long = names.iter().filter(|name| name.len() > LIMIT);
    let text = |name: &String| format!("{name}: {} characters, at most {LIMIT}", name.len());
    long.map(|name| source.finding(0, text(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_limit_itself_is_allowed() {
        let test = |length: usize| {
            let text = format!("#[test]\nfn {}() {{}}\nfn {}() {{}}\n", "x".repeat(length), "y".repeat(99));
            check(&Source::new("lib/x86/src/cr.rs", &text)).len()
        };
        assert_eq!((test(LIMIT), test(LIMIT + 1)), (0, 1));
    }
}
