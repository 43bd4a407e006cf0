//! No file is longer than a person reads in one go.

use super::{Finding, Source};

const LIMIT: usize = 400;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().count();
    if lines <= LIMIT {
        return Vec::new();
    }
    vec![source.finding(0, format!("{lines} lines, at most {LIMIT}: split it by noun"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed() {
        let file = |lines: usize| Source::new("lib/x86/src/cr.rs", &"x\n".repeat(lines));
        assert!(check(&file(LIMIT)).is_empty());
        assert_eq!(check(&file(LIMIT + 1)).len(), 1);
    }
}
