//! `tools/xmhf docs`: the book of `docs/`, with the documentation of the code behind it.

use crate::installed::installed;
use crate::{doc, paths, process};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const MDBOOK: &str = "0.5.4";
const SVGBOB: &str = "0.7.6";

/// Makes the book and says where it begins.
///
/// # Errors
///
/// A program cannot be installed, rustdoc or mdBook finds a fault, or the picture of the layers is not what its text
/// draws.
pub fn report() -> Result<()> {
    check_picture()?;
    let book = paths::out().join("book");
    let mut make = Command::new(installed("mdbook", MDBOOK, "mdbook")?);
    make.arg("build").arg("--dest-dir").arg(&book).arg(paths::root().join("docs"));
    process::run(&mut make)?;
    let first = doc::make()?;
    let pages = first.parent().and_then(|page| page.parent()).context("a folder of pages")?;
    process::run(Command::new("cp").arg("-rT").arg(pages).arg(book.join("api")))?;
    println!("{}", book.join("index.html").display());
    Ok(())
}

/// Draws `docs/layers.txt` and compares with the picture in the tree.
fn check_picture() -> Result<()> {
    let folder = paths::root().join("docs");
    let mut draw = Command::new(installed("svgbob_cli", SVGBOB, "svgbob_cli")?);
    let drawn = process::output(draw.arg(folder.join("layers.txt")))?;
    let path: PathBuf = folder.join("layers.svg");
    if std::env::var_os("XMHF_WRITE_PICTURE").is_some() {
        fs::write(&path, &drawn)?;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        kept.trim() == drawn.trim(),
        "docs/layers.svg is not what docs/layers.txt draws; XMHF_WRITE_PICTURE=1 tools/xmhf docs writes it anew"
    );
    Ok(())
}
