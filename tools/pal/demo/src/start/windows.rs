//! Windows: the words are in one line, words with blanks in quotation marks.
#![expect(unsafe_code, reason = "the entry point, functions of the system")]
// UNSAFETY: the system's command line, read once; two functions with buffers of ours.

use crate::arguments::Arguments;
use core::ffi::{CStr, c_char, c_void};
use core::ptr;

const STD_OUTPUT_HANDLE: u32 = -11i32 as u32;

#[link(name = "kernel32")]
unsafe extern "system" {
    safe fn ExitProcess(status: u32) -> !;
    safe fn GetCommandLineA() -> *const c_char;
    safe fn GetStdHandle(which: u32) -> *mut c_void;
    fn WriteFile(file: *mut c_void, from: *const u8, bytes: u32, written: *mut u32, how: *mut c_void) -> i32;
}

unsafe extern "Rust" {
    safe fn program_main(arguments: Arguments) -> u32;
}

/// Where the system enters the program.
#[unsafe(no_mangle)]
extern "C" fn mainCRTStartup() -> ! {
    // SAFETY: ends with a zero byte, and stays.
    let line = unsafe { CStr::from_ptr(GetCommandLineA()) }.to_str().unwrap_or("");
    let mut rest = line;
    let words = core::iter::from_fn(move || {
        rest = rest.trim_start();
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        rest = behind;
        (!word.is_empty()).then_some(word)
    });
    exit(program_main(Arguments::new(words)))
}

/// Writes to standard output; what the system does not take is lost.
pub(crate) fn write(bytes: &[u8]) {
    let output = GetStdHandle(STD_OUTPUT_HANDLE);
    let mut written = 0;
    // SAFETY: reads the bytes and writes the number.
    unsafe { WriteFile(output, bytes.as_ptr(), bytes.len() as u32, &mut written, ptr::null_mut()) };
}

/// Ends the program.
pub(crate) fn exit(status: u32) -> ! {
    ExitProcess(status)
}
