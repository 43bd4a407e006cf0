//! Makes a PAL's file of its source, in a program's build script.
//!
//! [`build`] compiles `pal/NAME.rs` for general registers alone, with all that it calls, and links it with
//! `pal.ld` into `NAME.pal` in the build's output, where `xmhf_pal::image!("NAME")` finds it. A PAL is a program of its
//! own because it shares nothing with the one that calls it: neither code nor constants nor its memory functions.
//!
//! [`build_signed`] signs them too, and [`sign()`] a file of any making. [`measured`] says what TrustVisor will measure.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may stop where it is"))]

pub mod measured;
mod sign;
mod toolchain;

pub use anyhow::Result;
use anyhow::{Context, bail, ensure};
pub use sign::{Signing, sign};
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use toolchain::Target;

/// Where PALs are linked to: below 4 GiB in processes of either word size, away from where Linux puts programs,
/// libraries, heaps and stacks.
const FIRST_BASE: u64 = 0x6000_0000;
/// Each name has one of these; a larger PAL reaches into those behind.
const SLOTS: u64 = 256;
const SLOT_BYTES: u64 = 0x10_0000;

/// Builds the PALs `names` for the target of the package whose build script calls this; where that package has a
/// feature `l2` and it is on, for a guest of a guest.
///
/// # Errors
///
/// A source is missing or does not compile; or two names have the same place, and one has to change.
pub fn build(names: &[&str]) -> Result<()> {
    build_with(names, "")
}

/// As [`build`], with `dependencies` in the words of a `Cargo.toml`, a line each.
///
/// # Errors
///
/// As [`build`].
pub fn build_with(names: &[&str], dependencies: &str) -> Result<()> {
    build_to(names, dependencies, |_, file| Ok(file))
}

/// As [`build_with`], and signs each PAL.
///
/// # Errors
///
/// As [`build`], or the key cannot be read.
pub fn build_signed(names: &[&str], dependencies: &str, signing: &Signing<'_>) -> Result<()> {
    println!("cargo:rerun-if-changed={}", signing.key.display());
    build_to(names, dependencies, |name, file| {
        sign(&file, None, signing).with_context(|| format!("signing the PAL {name}"))
    })
}

/// Builds the PALs, and keeps of each what `finish` makes of its file.
fn build_to(
    names: &[&str],
    dependencies: &str,
    finish: impl Fn(&str, Vec<u8>) -> Result<Vec<u8>>,
) -> Result<()> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = Target::of_architecture(&variable("CARGO_CFG_TARGET_ARCH")?)?;
    check_names(names)?;
    let sources: Vec<PathBuf> =
        names.iter().map(|name| package.join("pal").join(format!("{name}.rs"))).collect();
    for source in &sources {
        ensure!(source.is_file(), "there is no {}", source.display());
        println!("cargo:rerun-if-changed={}", source.display());
    }
    for part in ["src", "pal.ld", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={}", sdk().join(part).display());
    }
    println!("cargo:rerun-if-env-changed={ROOT}");
    let project = out.join("pals");
    write(
        &project.join("Cargo.toml"),
        &manifest(names, &sources, dependencies, env::var_os("CARGO_FEATURE_L2").is_some())?,
    )?;
    write(&project.join("build.rs"), &link_script(names)?)?;
    // The same versions as everywhere in the tree, and no look at a registry.
    let lock = sdk().join("../../Cargo.lock");
    if lock.is_file() && !project.join("Cargo.lock").exists() {
        fs::copy(&lock, project.join("Cargo.lock")).context("copying Cargo.lock")?;
    }
    let built = target.build(&project)?;
    for name in names {
        let path = built.join(name);
        let file = fs::read(&path).with_context(|| path.display().to_string())?;
        fs::write(out.join(format!("{name}.pal")), finish(name, file)?)?;
    }
    Ok(())
}

/// What XMHF's own builds are told: where its tree is.
const ROOT: &str = "XMHF_ROOT";

/// The folder of `xmhf-pal`.
///
/// In XMHF's tree it is asked for at run time, for Cargo does not build this crate anew where the whole tree is copied
/// or moved. A program elsewhere names the folder itself, and Cargo builds this crate anew when that changes.
fn sdk() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = || built.parent().unwrap_or(built).to_path_buf();
    env::var_os(ROOT).map_or_else(own, |root| Path::new(&root).join("tools/pal"))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; call this from a build script"))
}

/// The address to which the PAL `name` is linked.
///
/// It is a part of what is measured, so that it hangs on nothing but the name.
#[must_use]
pub fn base(name: &str) -> u64 {
    // FNV-1a: spreads short names well.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    FIRST_BASE + (hash >> 32) % SLOTS * SLOT_BYTES
}

fn check_names(names: &[&str]) -> Result<()> {
    for (index, name) in names.iter().enumerate() {
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        ensure!(is_name, "{name}: a PAL's name is made of small letters, digits and _");
        if let Some(other) = names[..index].iter().find(|other| base(other) == base(name)) {
            bail!("{name} and {other} are linked to the same address; give one of them another name");
        }
    }
    Ok(())
}

fn manifest(names: &[&str], sources: &[PathBuf], dependencies: &str, level_2: bool) -> Result<String> {
    let features = if level_2 { ", features = [\"l2\"]" } else { "" };
    let mut text = format!(
        "[workspace]\n\n[package]\nname = \"pals\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [profile.release]\npanic = \"abort\"\nopt-level = \"s\"\nlto = \"fat\"\ncodegen-units = 1\nstrip = true\n\n\
         [dependencies]\nxmhf-pal = {{ path = {:?}{features} }}\n{dependencies}\n",
        sdk()
    );
    for (name, source) in names.iter().zip(sources) {
        write!(text, "\n[[bin]]\nname = \"{name}\"\npath = {source:?}\ntest = false\n")?;
    }
    Ok(text)
}

/// The build script of the generated package, which says where each PAL is linked to.
fn link_script(names: &[&str]) -> Result<String> {
    let mut text = String::from("fn main() {\n");
    let script = sdk().join("pal.ld");
    for argument in
        ["-no-pie", "-nostdlib", "--gc-sections", "--build-id=none", "-zmax-page-size=0x1000", "-znognustack"]
    {
        writeln!(text, "    println!(\"cargo:rustc-link-arg-bins={argument}\");")?;
    }
    writeln!(text, "    println!(\"cargo:rustc-link-arg-bins=-T{{}}\", {script:?});")?;
    for name in names {
        let base = base(name);
        writeln!(text, "    println!(\"cargo:rustc-link-arg-bin={name}=--defsym=PAL_BASE={base:#x}\");")?;
    }
    text.push_str("}\n");
    Ok(text)
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

    #[test]
    fn a_name_has_one_place_below_4_gib() {
        for name in ["vault", "counter", "a", "b_2"] {
            let base = base(name);
            assert!((FIRST_BASE..0x7000_0000).contains(&base) && base.is_multiple_of(SLOT_BYTES), "{name}");
            assert_eq!(base, super::base(name));
        }
        assert_ne!(base("vault"), base("counter"));
    }

    #[test]
    fn names_that_make_no_file_or_collide_are_refused() {
        assert!(check_names(&["vault", "counter"]).is_ok());
        assert!(check_names(&["../vault"]).is_err() && check_names(&[""]).is_err());
        assert!(check_names(&["vault", "vault"]).unwrap_err().to_string().contains("same address"));
    }

    #[test]
    fn each_pal_is_a_program_at_its_base() {
        let text = link_script(&["vault"]).unwrap();
        assert!(text.contains(&format!("vault=--defsym=PAL_BASE={:#x}", base("vault"))), "{text}");
        let text = manifest(&["vault"], &["/p/pal/vault.rs".into()], "sha2 = \"0.11\"", false).unwrap();
        assert!(text.contains("sha2 = \"0.11\"\n") && text.contains("path = \"/p/pal/vault.rs\""), "{text}");
        assert!(!text.contains("l2"), "{text}");
        assert!(manifest(&["vault"], &["/p".into()], "", true).unwrap().contains(", features = [\"l2\"] }"));
    }
}
