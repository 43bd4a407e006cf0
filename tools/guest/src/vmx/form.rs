//! Every VMX instruction in each of its forms, as code.

#![expect(unsafe_code, reason = "snippets")]
// UNSAFETY: a snippet's assembly is in a section of its own; only its addresses are taken here.

use super::ExitReason;
use crate::{Regs, Snippet, snippet};

/// A VMX instruction with register or memory operands. RSI is the address of the operand in memory, RAX and RBX are
/// its registers.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Mnemonic, and which operand where there are two forms.
    pub name: &'static str,
    /// Code for 64-bit mode.
    pub code64: Snippet,
    /// Code for 32-bit modes.
    pub code32: Snippet,
    /// Code for 16-bit modes.
    pub code16: Snippet,
    /// Reason of the exit that it causes in a guest.
    pub reason: ExitReason,
}

macro_rules! form {
    ($name:literal $code64:literal $code32:literal $reason:ident) => {
        Form {
            name: $name,
            code64: snippet!($code64),
            code32: snippet!(code32: $code32),
            code16: snippet!(code16: $code32),
            reason: ExitReason::$reason,
        }
    };
}

/// Nothing is mapped here, in any guest.
pub const UNMAPPED: u64 = 0x7fff_ffff_f000;

/// VMXON.
pub fn vmxon() -> Form {
    form!("VMXON" "vmxon [rsi]" ".byte 0xf3, 0x0f, 0xc7, 0x36" VMXON)
}

/// All others, VMFUNC excepted.
pub fn forms() -> [Form; 13] {
    [
        form!("VMXOFF" "vmxoff" "vmxoff" VMXOFF),
        form!("VMLAUNCH" "vmlaunch" "vmlaunch" VMLAUNCH),
        form!("VMRESUME" "vmresume" "vmresume" VMRESUME),
        form!("VMCLEAR" "vmclear [rsi]" ".byte 0x66, 0x0f, 0xc7, 0x36" VMCLEAR),
        form!("VMPTRLD" "vmptrld [rsi]" ".byte 0x0f, 0xc7, 0x36" VMPTRLD),
        form!("VMPTRST" "vmptrst [rsi]" ".byte 0x0f, 0xc7, 0x3e" VMPTRST),
        form!("VMREAD register" "vmread rax, rbx" "vmread eax, ebx" VMREAD),
        form!("VMREAD memory" "vmread [rsi], rbx" ".byte 0x0f, 0x78, 0x1e" VMREAD),
        form!("VMWRITE register" "vmwrite rax, rbx" "vmwrite eax, ebx" VMWRITE),
        form!("VMWRITE memory" "vmwrite rax, [rsi]" ".byte 0x0f, 0x79, 0x06" VMWRITE),
        form!("INVEPT" "invept rax, [rsi]" ".byte 0x66, 0x0f, 0x38, 0x80, 0x06" INVEPT),
        form!("INVVPID" "invvpid rax, [rsi]" ".byte 0x66, 0x0f, 0x38, 0x81, 0x06" INVVPID),
        form!("VMCALL" "vmcall" "vmcall" VMCALL),
    ]
}

/// Registers for an operand in memory that is not there: what comes before the operand is seen.
pub fn without_memory() -> Regs {
    Regs { rsi: UNMAPPED, rax: 1, rbx: 0x681e, ..Regs::default() }
}
