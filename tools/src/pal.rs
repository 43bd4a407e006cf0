//! The PAL programs of `tools/pal/demo`, for each system and word size.
//!
//! Their names are the original's: the program's, the word size, `L2` for a guest of a guest, `.exe` for Windows.

use crate::toolchain::{binaries, release, source_cargo};
use crate::{paths, progress};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A system that the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Linux, 64 bits.
    Linux64,
    /// Linux, 32 bits, on a kernel of either word size.
    Linux32,
    /// Windows, 64 bits.
    Windows64,
    /// Windows, 32 bits.
    Windows32,
}

/// A system that `tools/xmhf build` makes the programs for, in both word sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// Linux, without a library.
    Linux,
    /// Windows, with mingw-w64's linker and import library.
    Windows,
}

impl System {
    fn platforms(self) -> [Platform; 2] {
        match self {
            Self::Linux => Platform::LINUX,
            Self::Windows => Platform::WINDOWS,
        }
    }
}

/// Builds all programs for `system` and says where they are.
///
/// # Errors
///
/// As [`build`].
pub fn report(system: System, level_2: bool) -> Result<()> {
    for platform in system.platforms() {
        for (_, path) in build(platform, level_2)? {
            println!("{:>9} bytes  {}", fs::metadata(&path)?.len(), path.display());
        }
        if !platform.is_windows() {
            println!("{}", c_library(platform)?.display());
        }
    }
    Ok(())
}

/// Builds the library for C programs, and gives its file.
///
/// # Errors
///
/// The compiler's, already shown.
pub fn c_library(platform: Platform) -> Result<PathBuf> {
    let mut cargo = source_cargo("build", &platform.target(), "core,compiler_builtins")?;
    progress::cargo("building the C library of PALs", cargo.arg("--package=xmhf-pal-c"))?;
    let folder = paths::pal().join(format!("lib{}", platform.suffix(false)));
    fs::create_dir_all(&folder)?;
    let library = folder.join("libxmhf-pal.a");
    keep(&platform.built().join("libxmhf_pal_c.a"), &library)?;
    Ok(library)
}

impl Platform {
    /// Those that the tests run on.
    pub const LINUX: [Self; 2] = [Self::Linux64, Self::Linux32];
    /// Those that are built with mingw-w64.
    pub const WINDOWS: [Self; 2] = [Self::Windows64, Self::Windows32];

    /// What rustc calls it: a file of ours, or a name.
    #[must_use]
    pub fn target(self) -> PathBuf {
        match self {
            Self::Linux64 => "tools/pal/x86_64-pal-linux.json".into(),
            Self::Linux32 => "tools/pal/i686-pal-linux.json".into(),
            Self::Windows64 => "tools/pal/x86_64-pal-windows.json".into(),
            Self::Windows32 => "tools/pal/i686-pal-windows.json".into(),
        }
    }

    /// Folder of Cargo's release builds.
    fn built(self) -> PathBuf {
        release(&self.target().file_stem().unwrap_or_default().to_string_lossy())
    }

    /// Words behind a program's name.
    fn suffix(self, level_2: bool) -> String {
        let (bits, end) = match self {
            Self::Linux64 => ("64", ""),
            Self::Linux32 => ("32", ""),
            Self::Windows64 => ("64", ".exe"),
            Self::Windows32 => ("32", ".exe"),
        };
        format!("{bits}{}{end}", if level_2 { "L2" } else { "" })
    }

    fn is_windows(self) -> bool {
        Self::WINDOWS.contains(&self)
    }
}

/// Builds all programs for `platform`, for a guest of a guest where `level_2`; gives their names and files.
///
/// # Errors
///
/// The compiler's or linker's, already shown.
pub fn build(platform: Platform, level_2: bool) -> Result<Vec<(String, PathBuf)>> {
    let target = platform.target();
    let mut cargo = source_cargo("build", &target, "core,compiler_builtins")?;
    cargo.arg("--package=xmhf-pal-demo");
    if level_2 {
        cargo.args(["--features", "l2"]);
    }
    let programs = binaries(&paths::root().join("tools/pal/demo/src/bin"))?;
    if platform.is_windows() {
        let portable = programs.iter().filter(|name| !LINUX_ONLY.contains(&name.as_str()));
        portable.for_each(|name| {
            cargo.args(["--bin", name]);
        });
    }
    // Complaints are shown in words, what was made is told in JSON.
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let messages = progress::cargo(&format!("building the PAL programs for {platform:?}"), &mut cargo)?;
    let built = platform.built();
    fs::create_dir_all(paths::pal())?;
    if let Some(out) = build_script_output(&messages).filter(|_| !platform.is_windows()) {
        keep(&out.join("notary.pal"), &notary(platform, level_2))?;
    }
    let mut files = Vec::new();
    for program in programs {
        let end = if platform.is_windows() { ".exe" } else { "" };
        let from = built.join(format!("{program}{end}"));
        if platform.is_windows() && LINUX_ONLY.contains(&program.as_str()) {
            continue;
        }
        let name = format!("{program}{}", platform.suffix(level_2));
        let to = paths::pal().join(&name);
        keep(&from, &to)?;
        files.push((name, to));
    }
    Ok(files)
}

/// Programs that need Linux for what they do.
const LINUX_ONLY: [&str; 3] = ["init", "notary", "palbench"];

/// The file of the PAL that the program `notary` calls, which quotes are verified against.
#[must_use]
pub fn notary(platform: Platform, level_2: bool) -> PathBuf {
    paths::pal().join(format!("notary{}.pal", platform.suffix(level_2)))
}

/// Where the programs' build script put its files, by Cargo's messages.
fn build_script_output(messages: &str) -> Option<PathBuf> {
    let mut messages =
        messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let is_ours = |message: &serde_json::Value| {
        message["reason"] == "build-script-executed"
            && message["package_id"].as_str().is_some_and(|package| package.contains("tools/pal/demo"))
    };
    messages.find(is_ours)?["out_dir"].as_str().map(PathBuf::from)
}

fn keep(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // Copied, for the right to execute.
    fs::copy(from, to).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_as_the_originals_do() {
        assert_eq!(Platform::Linux64.suffix(false), "64");
        assert_eq!(Platform::Linux32.suffix(true), "32L2");
        assert_eq!(Platform::Windows32.suffix(true), "32L2.exe");
    }

    #[test]
    fn cargo_tells_where_a_build_script_put_its_files() {
        let line = |package: &str, folder: &str| {
            format!(
                "{{\"reason\":\"build-script-executed\",\"package_id\":\"{package}\",\"out_dir\":\"{folder}\"}}\n"
            )
        };
        let messages = line("x/tools/pal#1", "/a") + "no JSON\n" + &line("x/tools/pal/demo#y@1", "/b");
        assert_eq!(build_script_output(&messages), Some("/b".into()));
        assert_eq!(build_script_output("{\"reason\":\"build-finished\"}"), None);
    }

    #[test]
    fn the_originals_programs_are_there() {
        let programs = binaries(&paths::root().join("tools/pal/demo/src/bin")).unwrap();
        assert!(["test", "main", "test_args"].iter().all(|name| programs.contains(&(*name).to_owned())));
    }
}
