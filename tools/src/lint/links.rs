//! Links between the tree's documents lead somewhere, and the book has every page of `docs/`.

use super::Finding;
use anyhow::Result;
use std::fs;
use std::path::{Component, Path, PathBuf};

const BOOK: &str = "docs";
const CONTENTS: &str = "docs/SUMMARY.md";
/// Documents outside the book.
const OTHERS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tools/pal/README.md"];

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut pages = Vec::new();
    pages_below(root, Path::new(BOOK), &mut pages)?;
    let contents = fs::read_to_string(root.join(CONTENTS)).unwrap_or_default();
    let mut findings = missing_pages(&pages, &contents);
    for page in pages.iter().map(PathBuf::as_path).chain(OTHERS.map(Path::new)) {
        let text = fs::read_to_string(root.join(page)).unwrap_or_default();
        findings.extend(broken(page, &text, |path| root.join(path).exists()));
    }
    Ok(findings)
}

fn pages_below(root: &Path, folder: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            pages_below(root, &path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// Pages that the table of contents leaves out.
fn missing_pages(pages: &[PathBuf], contents: &str) -> Vec<Finding> {
    let listed: Vec<&str> = links(contents).map(|(_, target)| target).collect();
    let absent = pages.iter().filter_map(|page| {
        let name = page.strip_prefix(BOOK).ok()?.to_str()?;
        (name != "SUMMARY.md" && !listed.contains(&name))
            .then(|| format!("{name} is not in the book's contents"))
    });
    absent.map(|text| Finding { path: CONTENTS.to_owned(), line: 0, text }).collect()
}

/// Links of `text` to files that do not exist.
fn broken(page: &Path, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let bad = links(text).filter(|(_, target)| {
        let file = target.split('#').next().unwrap_or(target);
        !target.contains("://") && !file.is_empty() && !exists(&plain(&folder.join(file)))
    });
    let finding = |(line, target)| Finding {
        path: page.display().to_string(),
        line,
        text: format!("a link to `{target}`, which does not exist"),
    };
    bad.map(finding).collect()
}

/// Line, counted from 1, and target of each `](target)` outside of code.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().flat_map(move |(index, line)| {
        is_code ^= line.starts_with("```");
        let parts = if is_code { "" } else { line }.split("](").skip(1);
        parts.filter_map(move |part| Some((index + 1, part.split_once(')')?.0)))
    })
}

/// `path` without `..`, which an absent folder on the way would keep from being found.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_is_found_and_others_are_not() {
        let text = "[a](there.md) [b](../up.md#part)\n```\n[c](code.md)\n```\n[d](https://e.org/x) [e](#here)\n[f](gone.md)";
        let there = |path: &Path| ["docs/there.md", "up.md"].iter().any(|known| path == Path::new(known));
        let findings = broken(Path::new("docs/page.md"), text, there);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].line, findings[0].path.as_str()), (6, "docs/page.md"));
        assert!(findings[0].text.contains("`gone.md`"));
    }

    #[test]
    fn a_page_that_the_contents_leave_out_is_found() {
        let pages = ["docs/SUMMARY.md", "docs/a.md", "docs/design/b.md"].map(PathBuf::from);
        assert!(missing_pages(&pages, "- [A](a.md)\n  - [B](design/b.md)\n").is_empty());
        let findings = missing_pages(&pages, "- [A](a.md)\n");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.starts_with("design/b.md"));
    }
}
