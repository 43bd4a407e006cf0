//! A quote that a program in the guest printed, carried out over its console and verified here.

use super::{VerifyArguments, bytes, check};
use crate::pal::{self, Platform};
use crate::stage::Origin;
use crate::verdict::Outcome;
use anyhow::{Context, Result, ensure};
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use trustvisor::flags::ACCEPTS_SHARE;

/// Word of the kernel's command line that carries the nonce to the guest's init.
pub(crate) const NONCE: &str = "xmhf.nonce=";
const NONCE_WORDS: usize = 4;

/// A number that nobody could foresee, for a quote to answer: 64 hexadecimal digits.
pub(crate) fn nonce() -> String {
    // Each of the library's hashers is seeded at random.
    (0..NONCE_WORDS).map(|_| format!("{:016x}", RandomState::new().build_hasher().finish())).collect()
}

/// Takes key and quote of `platform`'s program off the guest's console into files in `folder`, and checks them
/// against the PAL's file; gives what was found good.
///
/// # Errors
///
/// The guest printed none, or why the quote is not good.
pub(crate) fn verify(
    outcome: &Outcome,
    platform: Platform,
    nonce: &str,
    folder: &Path,
) -> Result<Vec<String>> {
    let arguments = arguments(outcome, platform, nonce, folder)?;
    check(&arguments)
}

/// As [`verify`], and then the same with a bit changed in each part, and against another PAL: all of that has to be
/// refused, for the right reason.
///
/// # Errors
///
/// The quote is not good, or a changed one is.
pub(crate) fn challenge(outcome: &Outcome, platform: Platform, nonce: &str, folder: &Path) -> Result<()> {
    let arguments = arguments(outcome, platform, nonce, folder)?;
    check(&arguments).context("a good quote")?;
    let good = fs::read(&arguments.quote)?;
    let last = good.len() - 1;
    // Register 0's first byte, the nonce's last, the signature's ends.
    for (place, part) in
        [(7, "composite"), (last - 256, "nonce"), (last - 255, "signature"), (last, "signature")]
    {
        let mut changed = good.clone();
        changed[place] ^= 0x10;
        fs::write(&arguments.quote, changed)?;
        refused(&arguments, "signature", &format!("a bit of its {part} changed"))?;
    }
    fs::write(&arguments.quote, good)?;
    let other = if platform == Platform::Linux64 { Platform::Linux32 } else { Platform::Linux64 };
    let other = VerifyArguments { pal: pal::notary(other, false), ..arguments.clone() };
    refused(&other, "register 0 is", "another PAL expected")?;
    let later = VerifyArguments { nonce: self::nonce(), ..arguments };
    refused(&later, "answers another nonce", "another nonce asked with")
}

fn refused(arguments: &VerifyArguments, why: &str, what: &str) -> Result<()> {
    match check(arguments) {
        Ok(_) => anyhow::bail!("a quote is good with {what}"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains(why), "a quote with {what} is refused otherwise: {text}");
            Ok(())
        }
    }
}

fn arguments(outcome: &Outcome, platform: Platform, nonce: &str, folder: &Path) -> Result<VerifyArguments> {
    let bits = if platform == Platform::Linux64 { "64" } else { "32" };
    let file = |what: &str| {
        let name = format!("{what}{bits}");
        let path = folder.join(&name);
        fs::write(&path, printed(outcome, &name)?)?;
        anyhow::Ok(path)
    };
    // Of the notary's function: a command, a number, 1024 bytes; its process shares pages with it.
    let words = if platform == Platform::Linux64 { 128 } else { 256 };
    let parameters = ["integer".into(), "integer".into(), format!("pointer={words}")];
    let files = [pal::notary(platform, false), file("quote")?, file("key")?];
    Ok(VerifyArguments::new(files, nonce, &parameters, Some(ACCEPTS_SHARE)))
}

/// The bytes that the guest printed in lines with `name` in front.
fn printed(outcome: &Outcome, name: &str) -> Result<Vec<u8>> {
    let words = format!("xmhf-guest: {name} ");
    let guest = outcome.lines.iter().filter(|(origin, _)| *origin == Origin::Guest);
    let digits: String = guest.filter_map(|(_, line)| Some(line.split_once(&words)?.1.trim())).collect();
    ensure!(!digits.is_empty(), "the guest printed no {name}");
    bytes(&digits).with_context(|| format!("what the guest printed as {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_off_the_console_line_by_line() {
        let mut outcome = Outcome::new(false);
        for (origin, line) in [
            (Origin::Guest, "xmhf-guest: quote64 0102"),
            (Origin::Hypervisor, "xmhf-guest: quote64 ff"),
            (Origin::Guest, "[ 1.0] xmhf-guest: quote64 03 "),
            (Origin::Guest, "xmhf-guest: quote32 09"),
        ] {
            outcome.read_line(origin, line, false);
        }
        assert_eq!(printed(&outcome, "quote64").unwrap(), [1, 2, 3]);
        assert!(printed(&outcome, "key64").unwrap_err().to_string().contains("no key64"));
    }

    #[test]
    fn nonces_differ() {
        assert_eq!(bytes(&nonce()).unwrap().len(), 32);
        assert_ne!(nonce(), nonce());
    }
}
