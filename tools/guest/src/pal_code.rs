//! PALs for 32-bit code that more than one guest registers.

#![expect(unsafe_code, reason = "snippets")]
// UNSAFETY: a snippet's assembly is in a section of its own; only its addresses are taken here.

use crate::{Snippet, snippet};

/// The sum of ten words, each times its place from 1; EBX, EBP, ESI, EDI and CF are changed too.
pub fn sum_of_32_bits() -> Snippet {
    snippet!(code32:
        "xor eax, eax",
        "mov ecx, 10",
        "2: mov edx, [esp + 4 * ecx]",
        "imul edx, ecx",
        "add eax, edx",
        "dec ecx",
        "jnz 2b",
        "mov ebx, eax",
        "mov ebp, eax",
        "mov esi, eax",
        "mov edi, eax",
        "stc",
        "ret"
    )
}

/// The sum of the words that ten pointers are for, each times its place from 1; each word grows by one.
pub fn increment_of_32_bits() -> Snippet {
    snippet!(code32:
        "xor eax, eax",
        "mov ecx, 1",
        "2: mov edx, [esp + 4 * ecx]",
        "mov edi, [edx]",
        "imul edi, ecx",
        "add eax, edi",
        "inc dword ptr [edx]",
        "inc ecx",
        "cmp ecx, 11",
        "jne 2b",
        "ret"
    )
}

/// EBX of CPUID leaf 0x7A567254.
pub fn cpuid_of_32_bits() -> Snippet {
    snippet!(code32: "push ebx", "mov eax, 0x7a567254", "xor ecx, ecx", "cpuid", "mov eax, ebx", "pop ebx", "ret")
}

/// The result of the command in the first word with the other four as its arguments; for -1 the word at the second, for
/// -2 that becomes the third.
pub fn commands_of_32_bits() -> Snippet {
    snippet!(code32:
        "push esi",
        "push edi",
        "mov eax, [esp + 12]",
        "mov ecx, [esp + 16]",
        "mov edx, [esp + 20]",
        "mov esi, [esp + 24]",
        "mov edi, [esp + 28]",
        "cmp eax, -1",
        "je 2f",
        "cmp eax, -2",
        "je 3f",
        "vmcall",
        "jmp 4f",
        "2: mov eax, [ecx]",
        "jmp 4f",
        "3: mov [ecx], edx",
        "4: pop edi",
        "pop esi",
        "ret"
    )
}
