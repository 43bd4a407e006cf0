//! `tools/xmhf verify-quote`: whether a quote says of a PAL what its file says, and if not, why.

pub(crate) mod console;
mod expected;
mod reason;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use expected::Pal;
use microtpm::{Bank, Ed25519Verification, PublicKey, QuoteFile};
use std::iter::repeat_with;
use std::path::PathBuf;
use trustvisor::flags::DEBUG;
use trustvisor::parameter::ParameterType;
use trustvisor::signature::SignedHeader;

/// What is checked against what.
#[derive(Args, Clone, Debug)]
pub struct VerifyArguments {
    /// The PAL: the SDK's file, or a list of lines TYPE ADDRESS PAGES CONTENTS
    #[arg(long, value_name = "FILE")]
    pal: PathBuf,
    /// The quote: composite, nonce and signature, one behind the other
    #[arg(long, value_name = "FILE")]
    quote: PathBuf,
    /// The nonce that was sent to the PAL, 20 bytes, or 32 for a quote of the SHA-256 bank
    #[arg(long, value_name = "HEX")]
    nonce: String,
    /// The machine's public key, as ID_GETPUB gave it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Value that another register has to have, which otherwise is zero: INDEX=HEX, as often as needed
    #[arg(long = "pcr", value_name = "INDEX=HEX")]
    registers: Vec<String>,
    /// The PAL's parameters in order, each `integer` or `pointer=WORDS`, as often as needed
    #[arg(long = "parameter", value_name = "TYPE")]
    parameters: Vec<String>,
    /// The flags that the PAL is registered with, where they are not the usual ones
    #[arg(long, value_name = "NUMBER")]
    flags: Option<u32>,
}

/// Exit code where all is as it should be but for the key, which nobody vouches for.
pub const UNVOUCHED: u8 = 3;

/// What is said first, until there is a chain of trust up to a key that is known.
const NOT_VOUCHED_FOR: &str = "NOT PROVED: nothing vouches for the key. Whoever has made this key, on a machine with this \
                               hypervisor or on any other, can have made the quote; what follows holds only if the key \
                               came to you from the machine itself (exit code 3).";

/// Checks the quote and prints what was found good; gives the exit code.
///
/// # Errors
///
/// A file cannot be read, or why the quote is not good.
pub fn verify(arguments: &VerifyArguments) -> Result<u8> {
    check(arguments)?.iter().for_each(|line| println!("{line}"));
    Ok(UNVOUCHED)
}

/// Checks the quote and gives what was found good, a line each.
///
/// # Errors
///
/// As [`verify`].
pub(crate) fn check(arguments: &VerifyArguments) -> Result<Vec<String>> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let file = QuoteFile::parse(&read(&arguments.quote)?)
        .with_context(|| format!("{} is no quote: composite, nonce, signature", arguments.quote.display()))?;
    let key = PublicKey::from_bytes(&read(&arguments.key)?)
        .ok()
        .with_context(|| format!("{} is no RSA key of 2048 bits", arguments.key.display()))?;
    let question = Question {
        key,
        nonce: bytes(&arguments.nonce).context("--nonce")?,
        pal: expected::pal(&arguments.pal, parameters(&arguments.parameters)?, arguments.flags)?,
        signed: expected::signed(&arguments.pal)?,
        others: arguments.registers.iter().map(|text| register(text)).collect::<Result<_>>()?,
    };
    question.check(&file)
}

impl VerifyArguments {
    /// A quote of a PAL with these parameters and flags, which extends no register.
    pub(crate) fn new(
        [pal, quote, key]: [PathBuf; 3],
        nonce: &str,
        parameters: &[String],
        flags: Option<u32>,
    ) -> Self {
        Self {
            pal,
            quote,
            nonce: nonce.into(),
            key,
            registers: Vec::new(),
            parameters: parameters.into(),
            flags,
        }
    }
}

/// What a quote has to answer.
#[derive(Clone, Debug)]
struct Question {
    key: PublicKey,
    nonce: Vec<u8>,
    pal: Pal,
    /// What the PAL's file says of its signer.
    signed: Option<SignedHeader>,
    /// Values of registers that are not zero.
    others: Vec<(usize, Vec<u8>)>,
}

impl Question {
    /// What is good, a line each, or the first thing that is not.
    fn check(&self, file: &QuoteFile) -> Result<Vec<String>> {
        let is_debug = file.is_signed_by(&self.key, true);
        ensure!(
            is_debug || file.is_signed_by(&self.key, false),
            "the signature is not this key's over this quote: another machine made it, or another boot, or the \
             quote was changed"
        );
        ensure!(
            file.nonce[..] == self.nonce[..],
            "the quote is sound but answers another nonce, {}: it was made for somebody else, or is an old one",
            hex(&file.nonce)
        );
        let is_expected = self.pal.flags & DEBUG != 0;
        ensure!(
            !is_debug || is_expected,
            "the quote is sound but of a PAL that was registered to be debugged, which has no secrets; with --flags it is \
             what you ask for"
        );
        ensure!(is_debug || !is_expected, "the quote is of a PAL that is not to be debugged, as this one is");
        let signature = if is_debug { "this key's, of a PAL that is to be debugged" } else { "this key's" };
        let mut good = vec![
            NOT_VOUCHED_FOR.into(),
            format!("signature: {signature}"),
            "nonce: the one that was asked with".into(),
        ];
        good.push(self.check_pal(file)?);
        if let Some(header) = self.signed.as_ref().filter(|_| file.bank() == Bank::Sha256) {
            good.push(self.check_signer(header)?);
        }
        for index in file.selection.indices().filter(|&index| index != 0) {
            good.push(self.check_other(file, index)?);
        }
        Ok(good)
    }

    fn check_pal(&self, file: &QuoteFile) -> Result<String> {
        let value =
            file.value(0).context("the quote leaves register 0 out, so it says of no PAL which it is")?;
        ensure!(
            file.bank() == Bank::Sha1 || self.pal.entry != 0,
            "the list says not where the PAL is entered: a quote of the SHA-256 bank needs a line `entry ADDRESS`"
        );
        let expected = reason::first_register(file.bank(), &self.pal);
        if value == expected {
            let what = match file.bank() {
                Bank::Sha256 => "its sections, entry, parameters and flags",
                Bank::Sha1 => "its sections alone: not where it is entered, nor with what parameters",
            };
            return Ok(format!("register 0: the PAL's, by {}: {what}", name(file.bank())));
        }
        let change = reason::single_change(file.bank(), &self.pal, value);
        let why = change.unwrap_or_else(|| {
            let sections = self.pal.sections.iter().map(|section| {
                format!("\n  {section}: measured as {}", hex(section.digests().of_bank(file.bank())))
            });
            let sections: String = sections.collect();
            format!(
                "no single change explains it; contents, an address, the entry or a parameter differ, or the PAL has extended it. \
                 Expected were{sections}"
            )
        });
        bail!("register 0 is {}, but this PAL makes it {}: {why}", hex(value), hex(&expected))
    }

    /// The signer's own word on the PAL, which was not needed up to here.
    fn check_signer(&self, header: &SignedHeader) -> Result<String> {
        ensure!(
            header.measurement == self.pal.measurement(),
            "the PAL's file was signed with other parameters or flags than were given here"
        );
        let verification =
            Ed25519Verification::new(&header.public_key, &header.signed_bytes(), &header.signature);
        let is_good = verification
            .and_then(|mut verification| repeat_with(|| verification.step()).find_map(|done| done));
        ensure!(is_good == Some(true), "the signature behind the PAL's file is not its signer's");
        let SignedHeader { public_key, product, version, .. } = header;
        Ok(format!("signer: {}, product {product}, security version {version}", hex(public_key)))
    }

    fn check_other(&self, file: &QuoteFile, index: usize) -> Result<String> {
        let value = file.value(index).unwrap_or_default();
        let given = self.others.iter().find(|(other, _)| *other == index);
        let expected = given.map_or_else(|| vec![0; value.len()], |(_, expected)| expected.clone());
        ensure!(
            value == expected,
            "register {index} is {}, but should be {}{}",
            hex(value),
            hex(&expected),
            if given.is_none() { "; give it with --pcr if the PAL extends it" } else { "" }
        );
        Ok(format!("register {index}: as it should be"))
    }
}

/// Types and sizes in words: `integer`, or `pointer=WORDS`.
pub(crate) fn parameters(texts: &[String]) -> Result<Vec<(u32, u64)>> {
    let parameter = |text: &String| match text.split_once('=') {
        None if text == "integer" => Ok((ParameterType::Integer as u32, 0)),
        Some(("pointer", words)) => {
            Ok((ParameterType::Pointer as u32, words.parse().context("--parameter: a number of words")?))
        }
        _ => bail!("--parameter takes `integer` or `pointer=WORDS`"),
    };
    texts.iter().map(parameter).collect()
}

/// `INDEX=HEX`.
fn register(text: &str) -> Result<(usize, Vec<u8>)> {
    let (index, value) = text.split_once('=').context("--pcr takes INDEX=HEX")?;
    let index = index.parse().ok().filter(|&index| index < microtpm::PCRS);
    Ok((index.context("--pcr: registers are 0 to 7")?, bytes(value).context("--pcr")?))
}

fn name(bank: Bank) -> &'static str {
    match bank {
        Bank::Sha1 => "SHA-1",
        Bank::Sha256 => "SHA-256",
    }
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub(crate) fn bytes(text: &str) -> Result<Vec<u8>> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    bytes.with_context(|| format!("`{text}`: bytes are pairs of hexadecimal digits"))
}

#[cfg(test)]
mod tests;
