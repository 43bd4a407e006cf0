//! The examples of `tools/pal/README.md`, taken from it word for word and built as it says.

use crate::pal::{Platform, c_library};
use crate::process::output;
use crate::{paths, progress, toolchain};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// For a program that runs where there is no library.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static -C strip=symbols";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A section of the README with a program in Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Example {
    /// A PAL of core alone.
    Alone,
    /// A PAL that uses another crate.
    WithCrates,
}

impl Example {
    const fn section(self) -> &'static str {
        match self {
            Self::Alone => "## In Rust",
            Self::WithCrates => "## With other crates",
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Alone => "readme/rust",
            Self::WithCrates => "readme/crates",
        }
    }
}

/// Builds the program in Rust, linked statically, and gives its file.
///
/// # Errors
///
/// The compiler's, or the README lacks a part.
pub fn rust(example: Example) -> Result<PathBuf> {
    let folder = paths::pal().join(example.folder());
    let readme = readme()?;
    let of = |section| blocks(&readme, section).into_iter();
    // What both have in common is told once.
    let manifest = of(Example::Alone.section()).filter(|block| block.name == "Cargo.toml");
    for block in of(example.section()).filter(|block| block.name != "Cargo.toml").chain(manifest) {
        let sdk = paths::root().join("tools/pal");
        // What `cargo new` leaves, in a workspace of its own for it lies in this tree.
        let text = match block.name.as_str() {
            "Cargo.toml" => format!(
                "[workspace]\n[package]\nname = \"vault\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{}",
                block.text.replace("XMHF/tools/pal", &sdk.to_string_lossy())
            ),
            _ => block.text.clone(),
        };
        write(&folder.join(&block.name), &text)?;
    }
    // The versions of this tree, and no look at a registry.
    if !folder.join("Cargo.lock").exists() {
        fs::copy(paths::root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    }
    let mut cargo = toolchain::cargo();
    cargo.current_dir(&folder).args(["build", "--release", "--target", TARGET]);
    cargo.env_remove("CARGO_TARGET_DIR").env("RUSTFLAGS", STATIC);
    progress::cargo(&format!("building the README's example `{}`", example.section()), &mut cargo)?;
    Ok(folder.join("target").join(TARGET).join("release/vault"))
}

/// Builds the program in C by the README's commands, linked statically, and gives its file.
///
/// # Errors
///
/// The compiler's, or the README lacks a part.
pub fn c() -> Result<PathBuf> {
    let folder = paths::pal().join("readme/c");
    for block in blocks(&readme()?, "## In C").iter().filter(|block| block.language != "sh") {
        write(&folder.join(&block.name), &block.text)?;
    }
    build_c(&folder)
}

/// Builds a program that tries each function of the header by the same commands, and gives its file.
///
/// # Errors
///
/// As [`c`].
pub fn c_test() -> Result<PathBuf> {
    let folder = paths::pal().join("readme/c-test");
    let sources = paths::root().join("tools/pal/c/test");
    for name in ["counter.c", "main.c"] {
        write(&folder.join(name), &fs::read_to_string(sources.join(name))?)?;
    }
    build_c(&folder)
}

fn build_c(folder: &Path) -> Result<PathBuf> {
    let blocks = blocks(&readme()?, "## In C");
    let commands = blocks.iter().find(|block| block.language == "sh");
    let commands = &commands.context("the README has no commands for C")?.text;
    fs::copy(c_library(Platform::Linux64)?, folder.join("libxmhf-pal.a"))?;
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", commands]).current_dir(folder).env("SDK", paths::root().join("tools/pal"));
    output(&mut shell).with_context(|| format!("the program in C in {}", folder.display()))?;
    Ok(folder.join("program"))
}

/// A piece of code in the README.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    language: String,
    /// What stands last in backquotes in front of it: the file's name.
    name: String,
    text: String,
}

fn readme() -> Result<String> {
    let path = paths::root().join("tools/pal/README.md");
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The pieces of code below the heading `section`, up to the next.
fn blocks(text: &str, section: &str) -> Vec<Block> {
    let lines = text.lines().skip_while(|line| *line != section).skip(1);
    let (mut name, mut blocks, mut open) = ("", Vec::<Block>::new(), false);
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                let (language, name) = (language.to_owned(), name.to_owned());
                blocks.push(Block { language, name, text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            (None, false) => name = line.rsplit('`').nth(1).unwrap_or(name),
        }
    }
    blocks
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stand-in for TrustVisor is a function of the test's; see its file.
    #[test]
    fn the_c_header_asks_and_refuses_as_the_rust_sdk_does() {
        let folder = tempfile::tempdir().unwrap();
        let (sdk, program) = (paths::root().join("tools/pal"), folder.path().join("abi"));
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Werror", "-D_GNU_SOURCE", "-I"]).arg(sdk.join("include"));
        compiler.arg("-o").arg(&program).arg(sdk.join("c/test/abi.c"));
        output(&mut compiler).unwrap();
        output(&mut Command::new(&program)).unwrap();
    }

    #[test]
    fn code_has_the_name_in_front_of_it() {
        let text = "# T\n## One\nThe PAL, `p.rs`:\n\n```rust\na\n\nb\n```\nAnd `x` in `q.c`:\n```c\n## c\n```\n## Two\n";
        let block = |language: &str, name: &str, text: &str| Block {
            language: language.into(),
            name: name.into(),
            text: text.into(),
        };
        assert_eq!(blocks(text, "## One")[0], block("rust", "p.rs", "a\n\nb\n"));
        assert_eq!(blocks(text, "## Two"), []);
        assert_eq!(blocks(&readme().unwrap(), "## In C").len(), 3);
    }

    #[test]
    fn a_pal_with_other_crates_has_all_its_files() {
        let blocks = blocks(&readme().unwrap(), Example::WithCrates.section());
        let names: Vec<_> = blocks.iter().map(|block| block.name.as_str()).collect();
        assert_eq!(names, ["build.rs", "pal/digest.rs", "src/main.rs"]);
    }

    #[test]
    fn a_pal_takes_less_than_40_lines() {
        let blocks = blocks(&readme().unwrap(), "## In Rust");
        let names: Vec<_> = blocks.iter().map(|block| block.name.as_str()).collect();
        assert_eq!(names, ["pal/vault.rs", "build.rs", "src/main.rs", "Cargo.toml"]);
        let lines = |block: &Block| block.text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(
            blocks.iter().map(lines).sum::<usize>() < 40,
            "{:?}",
            blocks.iter().map(lines).collect::<Vec<_>>()
        );
    }
}
