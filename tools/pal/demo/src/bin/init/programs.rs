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
