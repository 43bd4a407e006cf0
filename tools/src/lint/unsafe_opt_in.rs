//! A module that may hold unsafe code says why, for readers, beside the attribute for the compiler.

use super::{Finding, Source};

const MARK: &str = "UNSAFETY:";
/// How far from the attribute the comment may stand, in lines.
const REACH: usize = 8;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let opens = |line: &str| {
        let line = line.trim_start();
        line.starts_with("#")
            && line.contains("unsafe_code")
            && !line.contains("forbid")
            && !line.contains("deny")
    };
    let explained = |index: usize| {
        let nearby = &lines[index.saturating_sub(REACH)..lines.len().min(index + REACH)];
        nearby.iter().any(|line| line.trim_start().starts_with("//") && line.contains(MARK))
    };
    let open = (0..lines.len()).filter(|&index| opens(lines[index]) && !explained(index));
    open.map(|index| {
        source.finding(index + 1, format!("unsafe code without a `// {MARK}` comment beside it"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&Source::new("lib/hw/src/bare/port.rs", text)).len()
    }

    #[test]
    fn an_opt_in_needs_its_comment() {
        let opt_in = "#![expect(unsafe_code, reason = \"ports\")]\n";
        assert_eq!(findings(opt_in), 1);
        assert_eq!(findings(&format!("{opt_in}// UNSAFETY: IN and OUT.\n")), 0);
        assert_eq!(findings(&format!("//! UNSAFETY: IN and OUT.\n{opt_in}")), 0);
        assert_eq!(findings(&format!("{opt_in}{}// UNSAFETY: far off\n", "\n".repeat(REACH))), 1);
    }

    #[test]
    fn each_opt_in_counts() {
        let item = "#[allow(unsafe_code)]\nfn f() {}\n";
        assert_eq!(findings(&format!("{item}{}{item}", "\n".repeat(20))), 2);
    }

    #[test]
    fn forbidding_needs_no_reason() {
        assert_eq!(findings("#![forbid(unsafe_code)]\n"), 0);
    }
}
