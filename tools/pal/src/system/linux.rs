//! Linux: system calls, for programs without a library as for those with one.
#![expect(unsafe_code, reason = "system calls")]
// UNSAFETY: one instruction a word size, and the calls of `mman.h` that own the pages they name.

use super::{Refusal, Rights};
use core::arch::asm;

/// System calls that this crate and programs without a library make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[cfg(target_arch = "x86_64")]
#[expect(missing_docs, reason = "as in the system's manual")]
pub enum Number {
    Write = 1,
    Open = 2,
    Close = 3,
    Mmap = 9,
    Mprotect = 10,
    Munmap = 11,
    Ioctl = 16,
    Pread64 = 17,
    Madvise = 28,
    Fork = 57,
    Execve = 59,
    Exit = 60,
    Wait4 = 61,
    Syslog = 103,
    Mlock = 149,
    Mount = 165,
    Reboot = 169,
    SchedGetaffinity = 204,
}

/// System calls that this crate and programs without a library make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[cfg(target_arch = "x86")]
#[expect(missing_docs, reason = "as in the system's manual")]
pub enum Number {
    Exit = 1,
    Fork = 2,
    Write = 4,
    Open = 5,
    Close = 6,
    Execve = 11,
    Mount = 21,
    Ioctl = 54,
    Reboot = 88,
    /// The one that takes its six arguments in memory.
    Mmap = 90,
    Munmap = 91,
    Syslog = 103,
    Wait4 = 114,
    Mprotect = 125,
    Mlock = 150,
    Pread64 = 180,
    Madvise = 219,
    SchedGetaffinity = 242,
}

const PROT_READ: usize = 1;
const PROT_WRITE: usize = 2;
const PROT_EXEC: usize = 4;
const MAP_PRIVATE: usize = 0x02;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_FIXED_NOREPLACE: usize = 0x10_0000;
/// Pages of a PAL are not to appear in a child, nor to be merged into large ones.
const ADVICE: [usize; 2] = [10, 15];
/// The numbers that system calls return for errors are the last ones of a word.
const LARGEST_ERROR: usize = 4095;

/// Calls the kernel.
///
/// # Safety
///
/// The call does with this process's memory what the caller may.
///
/// # Errors
///
/// The kernel's error number.
pub unsafe fn call(number: Number, arguments: [usize; 5]) -> Result<usize, i32> {
    // SAFETY: the duty is the caller's.
    let result = unsafe {
        enter(&[number as usize, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]])
    };
    let error = result.wrapping_neg();
    if error.wrapping_sub(1) < LARGEST_ERROR {
        Err(i32::try_from(error).unwrap_or(i32::MAX))
    } else {
        Ok(result)
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn enter(call: &[usize; 6]) -> usize {
    let mut a = call[0];
    // SAFETY: the duty is the caller's; the kernel changes RAX, RCX and R11 alone. The sixth argument is zero.
    unsafe {
        asm!("syscall", inout("rax") a, in("rdi") call[1], in("rsi") call[2], in("rdx") call[3],
            in("r10") call[4], in("r8") call[5], in("r9") 0usize, out("rcx") _, out("r11") _, options(nostack));
    }
    a
}

#[cfg(target_arch = "x86")]
unsafe fn enter(call: &[usize; 6]) -> usize {
    let mut a = call.as_ptr() as usize;
    // SAFETY: the duty is the caller's; EBX and ESI are the compiler's own, and given back.
    unsafe {
        asm!(
            "push ebx",
            "push esi",
            "mov ebx, [eax + 4]",
            "mov ecx, [eax + 8]",
            "mov edx, [eax + 12]",
            "mov esi, [eax + 16]",
            "mov edi, [eax + 20]",
            "mov eax, [eax]",
            "int 0x80",
            "pop esi",
            "pop ebx",
            inout("eax") a,
            out("ecx") _,
            out("edx") _,
            out("edi") _,
        );
    }
    a
}

/// Gives new zeroed pages, at `start` where that is not 0.
pub(crate) fn allocate(start: usize, bytes: usize) -> Result<usize, Refusal> {
    let fixed = if start == 0 { 0 } else { MAP_FIXED_NOREPLACE };
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | fixed;
    let start = map([start, bytes, PROT_READ | PROT_WRITE, flags, usize::MAX, 0])?;
    for advice in ADVICE {
        // SAFETY: new pages of our own. A kernel without one of these does without.
        let _ = unsafe { call(Number::Madvise, [start, bytes, advice, 0, 0]) };
    }
    Ok(start)
}

fn map(arguments: [usize; 6]) -> Result<usize, Refusal> {
    let [start, bytes, rights, flags, file, _] = arguments;
    #[cfg(target_arch = "x86_64")]
    let inputs = [start, bytes, rights, flags, file];
    #[cfg(target_arch = "x86")]
    let inputs = [arguments.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: nothing that is mapped already is replaced.
    let mapped = unsafe { call(Number::Mmap, inputs) };
    let mapped = mapped.map_err(|number| Refusal { request: "mmap", number })?;
    #[cfg(target_arch = "x86")]
    let _ = (bytes, rights, flags, file);
    // A kernel older than the flag takes the address for a wish.
    if start != 0 && mapped != start {
        release(mapped, bytes);
        return Err(Refusal { request: "mmap", number: TAKEN });
    }
    Ok(mapped)
}

/// EEXIST.
pub(crate) const TAKEN: i32 = 17;

/// Keeps pages in memory.
pub(crate) fn lock(start: usize, bytes: usize) -> Result<(), Refusal> {
    // SAFETY: changes no content.
    let locked = unsafe { call(Number::Mlock, [start, bytes, 0, 0, 0]) };
    locked.map(drop).map_err(|number| Refusal { request: "mlock", number })
}

/// Changes what the process may do with pages of its own.
pub(crate) fn protect(start: usize, bytes: usize, rights: Rights) -> Result<(), Refusal> {
    let rights = match rights {
        Rights::Write => PROT_READ | PROT_WRITE,
        Rights::Execute => PROT_READ | PROT_EXEC,
        Rights::All => PROT_READ | PROT_WRITE | PROT_EXEC,
    };
    // SAFETY: the pages are the caller's own.
    let changed = unsafe { call(Number::Mprotect, [start, bytes, rights, 0, 0]) };
    changed.map(drop).map_err(|number| Refusal { request: "mprotect", number })
}

/// Gives pages back.
pub(crate) fn release(start: usize, bytes: usize) {
    // SAFETY: the pages came from `allocate`, and nobody uses them any more.
    let _ = unsafe { call(Number::Munmap, [start, bytes, 0, 0, 0]) };
}
