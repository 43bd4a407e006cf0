//! Linux: the words are on the stack.
#![expect(unsafe_code, reason = "the entry point, system calls")]
// UNSAFETY: the kernel's layout of a new process's stack, read once.

use crate::arguments::Arguments;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char};
use xmhf_pal::system::linux::{Number, call};

unsafe extern "Rust" {
    safe fn program_main(arguments: Arguments) -> u32;
}

/// Where the kernel enters the program.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {start}", start = sym start)
}

/// Where the kernel enters the program.
#[cfg(target_arch = "x86")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "mov eax, esp",
        "and esp, -16",
        "sub esp, 12",
        "push eax",
        "call {start}",
        start = sym start
    )
}

/// Goes on with the stack as the kernel left it: the number of words, then their addresses.
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the first word of a new process's stack.
    let count = unsafe { *stack };
    let word = |index: usize| {
        // SAFETY: `count` addresses follow.
        let place = unsafe { stack.add(1 + index) }.cast::<*const c_char>();
        // SAFETY: each is that of a text, which stays.
        let text = unsafe { *place };
        // SAFETY: ends with a zero byte.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
    };
    exit(program_main(Arguments::new((0..count).map(word))))
}

/// Writes to standard output; what the system does not take is lost.
pub(crate) fn write(bytes: &[u8]) {
    // SAFETY: reads the bytes.
    let _ = unsafe { call(Number::Write, [1, bytes.as_ptr().expose_provenance(), bytes.len(), 0, 0]) };
}

/// Ends the program.
pub(crate) fn exit(status: u32) -> ! {
    loop {
        // SAFETY: the process ends.
        let _ = unsafe { call(Number::Exit, [status as usize, 0, 0, 0, 0]) };
    }
}
