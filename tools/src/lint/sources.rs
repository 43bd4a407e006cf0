//! The files that the rules look at.

use super::Finding;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// A source file of this tree.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path from the workspace's root, with `/` between the parts.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// A finding at `line`, counted from 1.
    pub(crate) fn finding(&self, line: usize, text: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, text: text.into() }
    }

    /// Whether the file is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// Folders that hold no source of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Reads every `.rs` and `.S` file below `root`, sorted by path.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    read_folder(root, "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn read_folder(folder: &Path, prefix: &str, sources: &mut Vec<Source>) -> Result<()> {
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                read_folder(&entry.path(), &format!("{path}/"), sources)?;
            }
        } else if path.ends_with(".rs") || path.ends_with(".S") {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_in_every_folder_but_the_build_output() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/src/lib.rs", "a/src/entry.S", "target/debug/made.rs", "a/README.md"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let paths: Vec<String> = read_all(root.path()).unwrap().into_iter().map(|s| s.path).collect();
        assert_eq!(paths, ["a/src/entry.S", "a/src/lib.rs"]);
    }
}
