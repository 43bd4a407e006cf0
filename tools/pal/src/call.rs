//! A call of an entry address with any number of arguments, which tells a failed call from a result.
#![expect(unsafe_code, reason = "the carry flag behind a call is out of the language's reach")]
// UNSAFETY: one function in assembly for each word size, after the System V calling convention.

use core::arch::naked_asm;

/// Registers behind the call, in the order that the assembly has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Returned {
    /// EAX or RAX.
    pub(crate) a: usize,
    /// ECX or RCX.
    pub(crate) c: usize,
    /// EDX or RDX.
    pub(crate) d: usize,
    /// The carry flag, 0 or 1.
    pub(crate) carry: u8,
}

/// Calls `entry` with the `count` words at `words`, of which six have to be readable.
///
/// # Safety
///
/// `entry` is a PAL's, registered, or a function that may be called with these arguments.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn call(
    entry: usize,
    words: *const usize,
    count: usize,
    returned: &mut Returned,
) {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "mov rbx, rcx",
        "mov rax, rdi",
        "mov r10, rsi",
        "mov r11, rdx",
        // An even number of words on the stack keeps its alignment.
        "cmp r11, 6",
        "jbe 3f",
        "test r11, 1",
        "jz 2f",
        "push 0",
        "2: push qword ptr [r10 + 8 * r11 - 8]",
        "dec r11",
        "cmp r11, 6",
        "ja 2b",
        "3: mov rdi, [r10]",
        "mov rsi, [r10 + 8]",
        "mov rdx, [r10 + 16]",
        "mov rcx, [r10 + 24]",
        "mov r8, [r10 + 32]",
        "mov r9, [r10 + 40]",
        "call rax",
        "mov [rbx], rax",
        "mov [rbx + 8], rcx",
        "mov [rbx + 16], rdx",
        "setc byte ptr [rbx + 24]",
        "lea rsp, [rbp - 16]",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Calls `entry` with the `count` words at `words`.
///
/// # Safety
///
/// `entry` is a PAL's, registered, or a function that may be called with these arguments.
#[cfg(target_arch = "x86")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn call(
    entry: usize,
    words: *const usize,
    count: usize,
    returned: &mut Returned,
) {
    naked_asm!(
        "push ebp",
        "mov ebp, esp",
        "push ebx",
        "push esi",
        "mov edx, [ebp + 12]",
        "mov ecx, [ebp + 16]",
        "lea eax, [4 * ecx]",
        "sub esp, eax",
        "and esp, -16",
        "2: dec ecx",
        "js 3f",
        "mov eax, [edx + 4 * ecx]",
        "mov [esp + 4 * ecx], eax",
        "jmp 2b",
        "3: call dword ptr [ebp + 8]",
        "mov ebx, [ebp + 20]",
        "mov [ebx], eax",
        "mov [ebx + 4], ecx",
        "mov [ebx + 8], edx",
        "setc byte ptr [ebx + 12]",
        "lea esp, [ebp - 8]",
        "pop esi",
        "pop ebx",
        "pop ebp",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    extern "sysv64" fn weigh(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64, i: u64) -> u64 {
        let aligned = 0u128;
        assert!((&raw const aligned).is_aligned());
        [a, b, c, d, e, f, g, h, i].iter().zip(1..).map(|(value, weight)| value * weight).sum()
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_argument_arrives_in_its_place() {
        let words: [usize; 9] = [9, 80, 700, 6000, 50_000, 400_000, 3_000_000, 20_000_000, 100_000_000];
        let mut returned = Returned::default();
        // SAFETY: the function takes nine integers.
        unsafe { call(weigh as *const () as usize, words.as_ptr(), words.len(), &mut returned) };
        assert_eq!(returned.a, words.iter().zip(1..).map(|(value, weight)| value * weight).sum());
    }
}
