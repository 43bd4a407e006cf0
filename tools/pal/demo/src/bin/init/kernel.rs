//! What init asks of the kernel.
#![expect(unsafe_code, reason = "system calls")]
// UNSAFETY: each call names memory that its caller borrows for as long, or none.

use crate::Failure;
use core::ffi::CStr;
use core::ptr;
use xmhf_pal::system::linux::{Number, call};

/// `SYSLOG_ACTION_CONSOLE_LEVEL`.
const CONSOLE_LEVEL: usize = 8;
/// `TCSBRK`, which with 1 waits until all is written.
const TCSBRK: usize = 0x5409;
/// The numbers that reboot(2) wants, and the one for switching off.
const REBOOT: [usize; 3] = [0xfee1_dead, 672_274_793, 0x4321_fedc];

/// Has the kernel say no more: its lines would cut ours in two.
pub(crate) fn quiet() {
    // SAFETY: no memory.
    let _ = unsafe { call(Number::Syslog, [CONSOLE_LEVEL, 0, 1, 0, 0]) };
}

/// Number of CPUs that run.
pub(crate) fn cpus() -> u32 {
    let mut mask = [0u64; 16];
    // SAFETY: the mask's bytes are written.
    let _ = unsafe {
        call(Number::SchedGetaffinity, [0, size_of_val(&mask), (&raw mut mask).expose_provenance(), 0, 0])
    };
    mask.iter().map(|word| word.count_ones()).sum()
}

/// Switches the machine off; returns only where the kernel cannot.
pub(crate) fn power_off() {
    // The last lines wait in the UART's buffer.
    // SAFETY: no memory.
    let _ = unsafe { call(Number::Ioctl, [1, TCSBRK, 1, 0, 0]) };
    // SAFETY: ends everything.
    let _ = unsafe { call(Number::Reboot, [REBOOT[0], REBOOT[1], REBOOT[2], 0, 0]) };
}

/// Runs `work` in a child and gives its exit status.
pub(crate) fn child(work: impl FnOnce() -> u32) -> Result<u32, Failure> {
    // SAFETY: this process has one thread.
    match unsafe { call(Number::Fork, [0; 5]) } {
        Ok(0) => {
            let status = work() as usize;
            loop {
                // SAFETY: the process ends.
                let _ = unsafe { call(Number::Exit, [status, 0, 0, 0, 0]) };
            }
        }
        Ok(child) => wait(child),
        Err(_) => Err("no child can be made"),
    }
}

fn wait(child: usize) -> Result<u32, Failure> {
    let mut status = 0u32;
    // SAFETY: the status is written.
    let waited = unsafe { call(Number::Wait4, [child, (&raw mut status).expose_provenance(), 0, 0, 0]) };
    waited.map_err(|_| "a child cannot be waited for")?;
    if status & 0x7f == 0 { Ok(status >> 8) } else { Err("a signal ended a child") }
}

/// Becomes the program `words[0]`; returns where that fails.
pub(crate) fn execute(words: &[&CStr]) -> u32 {
    let mut arguments = [ptr::null(); 8];
    // The last one stays null.
    for (argument, word) in arguments[..7].iter_mut().zip(words) {
        *argument = word.as_ptr();
    }
    let Some(path) = words.first() else { return u32::MAX };
    let none = [ptr::null::<u8>()];
    let words =
        [path.as_ptr().expose_provenance(), arguments.as_ptr().expose_provenance(), none.as_ptr().addr()];
    // SAFETY: three lists of texts, each with its end.
    let _ = unsafe { call(Number::Execve, [words[0], words[1], words[2], 0, 0]) };
    u32::MAX
}

/// Has the kernel show processes in `/proc`.
pub(crate) fn mount_proc() -> Result<(), Failure> {
    let kind = c"proc".as_ptr().expose_provenance();
    // SAFETY: texts with their ends.
    let mounted = unsafe { call(Number::Mount, [kind, c"/proc".as_ptr().expose_provenance(), kind, 0, 0]) };
    mounted.map(drop).map_err(|_| "/proc cannot be mounted")
}

/// Reads this process's memory at `address` as the kernel sees it.
pub(crate) fn read_own(address: usize, bytes: &mut [u8]) -> Result<(), Failure> {
    let count = read(c"/proc/self/mem", address, bytes)?;
    if count == bytes.len() { Ok(()) } else { Err("/proc/self/mem cannot be read") }
}

/// Reads a file from `offset` on; gives the number of bytes.
pub(crate) fn read(path: &CStr, offset: usize, bytes: &mut [u8]) -> Result<usize, Failure> {
    let path = path.as_ptr().expose_provenance();
    // SAFETY: a text with its end.
    let file = unsafe { call(Number::Open, [path, 0, 0, 0, 0]) }.map_err(|_| "a file cannot be opened")?;
    let place = bytes.as_mut_ptr().expose_provenance();
    // SAFETY: at most as many bytes are written as there are.
    let count = unsafe { call(Number::Pread64, [file, place, bytes.len(), offset, 0]) };
    // SAFETY: no memory.
    let _ = unsafe { call(Number::Close, [file, 0, 0, 0, 0]) };
    count.map_err(|_| "a file cannot be read")
}
