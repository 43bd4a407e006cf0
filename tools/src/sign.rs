//! `tools/xmhf sign-pal`: a PAL's file with its signed header behind it.

use crate::quote::parameters;
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use xmhf_pal_build::{Signing, sign};

/// What is signed, by whom, as what.
#[derive(Args, Clone, Debug)]
pub(crate) struct SignArguments {
    /// The PAL's file; what signed it before is left out
    #[arg(long, value_name = "FILE")]
    pal: PathBuf,
    /// The signer's Ed25519 key, PKCS #8 in PEM: `openssl genpkey -algorithm ed25519` makes one
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Which of the signer's products it is
    #[arg(long, value_name = "NUMBER")]
    product: u32,
    /// Its version, to grow with each fault that is mended: a lower one does not open what a higher one sealed for its own
    #[arg(long, value_name = "NUMBER")]
    security_version: u32,
    /// What it is registered with: 1 accepts shared pages, 2 lets calls be given up, 4 is to be debugged; the sum of them
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    flags: u32,
    /// Pages of its stack
    #[arg(long, value_name = "NUMBER", default_value_t = xmhf_pal::image::DEFAULT_STACK_PAGES)]
    stack_pages: u32,
    /// Its parameters in order, where the file does not say them, each `integer` or `pointer=WORDS`
    #[arg(long = "parameter", value_name = "TYPE")]
    parameters: Vec<String>,
    /// File to write the signed PAL to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Signs.
///
/// # Errors
///
/// A file cannot be read or written, or what is wrong with the PAL or the key.
pub(crate) fn run(arguments: &SignArguments) -> Result<()> {
    let path = &arguments.pal;
    let file = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let parameters = parameters(&arguments.parameters)?;
    let signing = Signing {
        key: &arguments.key,
        product: arguments.product,
        version: arguments.security_version,
        flags: arguments.flags,
        stack_pages: arguments.stack_pages,
    };
    let signed = sign(&file, (!parameters.is_empty()).then_some(parameters), &signing)?;
    std::fs::write(&arguments.out, signed).with_context(|| format!("writing {}", arguments.out.display()))
}
