//! The original's programs, which check themselves and print what the runner looks for.

use crate::{Failure, kernel};
use core::ffi::CStr;

const PROGRAMS: [&[&CStr]; 3] =
    [&[c"/bin/test32", c"5"], &[c"/bin/main32", c"7", c"3"], &[c"/bin/test_args32", c"7", c"7", c"7"]];

/// Runs each of them.
pub(crate) fn perform() -> Result<(), Failure> {
    for words in PROGRAMS {
        if kernel::child(|| kernel::execute(words))? != 0 {
            return Err("a program did not end with 0");
        }
    }
    Ok(())
}

/// Runs the PAL that seals, shares and quotes, with the number that the command line has for it.
pub(crate) fn notary() -> Result<(), Failure> {
    const WORD: &[u8] = b"xmhf.nonce=";
    let mut line = [0; 1024];
    let length = kernel::read(c"/proc/cmdline", 0, &mut line)?;
    let mut words = line[..length].split(u8::is_ascii_whitespace);
    let nonce = words.find_map(|word| word.strip_prefix(WORD)).ok_or("no nonce on the command line")?;
    let mut text = [0; 65];
    text.get_mut(..nonce.len()).ok_or("the nonce is too long")?.copy_from_slice(nonce);
    let nonce = CStr::from_bytes_until_nul(&text).map_err(|_| "the nonce is too long")?;
    match kernel::child(|| kernel::execute(&[c"/bin/notary32", nonce]))? {
        0 => Ok(()),
        _ => Err("notary did not end with 0"),
    }
}
