//! How a PAL is called, returns and fails.
//!
//! A program calls the entry address as a function of its C calling convention (System V): the call comes to
//! the hypapp, which carries the parameters over and runs the PAL on its own stack, with [`SENTINEL`] as the
//! return address.
//!
//! - *Return.* RAX is the PAL's result. RCX and RDX are 0, in 64-bit mode also RSI, RDI and R8 to R11; all other
//!   registers are what the caller had. The flags are the caller's with the arithmetic ones cleared: CF = 0.
//! - *Failure.* The function returns too, with CF = 1 and RAX = a [`Failure`]; RDX is a [`FaultKind`] where RAX is
//!   [`Failure::FAULTED`] and RCX its address, else both are 0. Programs that know nothing of this see a
//!   function that returns [`Failure`]'s number; those that do look at CF right behind the call.
//!
//! A call must come from CPL 3 with interrupts on, in the address space that registered the PAL. Inside, the
//! PAL has its sections alone: no system calls, no other memory, no FPU or vector registers, no debug registers.

/// The return address of a PAL; nothing is ever mapped there.
pub const SENTINEL: u64 = 4;

/// Bytes of the parameter section before the first record.
///
/// The section holds, for the PAL's information: number of parameters as a word at offset 0; from offset 16 for
/// each parameter type, size in words and value, a word each, and right behind a pointer's record its data.
pub const PARAMETER_HEADER_BYTES: u64 = 16;

/// Words of a parameter's record in the parameter section.
pub const PARAMETER_RECORD_WORDS: u64 = 3;

/// Why a call failed: RAX, where CF = 1.
///
/// Unless said otherwise the PAL has not run and can be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure(pub u32);

macro_rules! failures {
    ($($(#[$meta:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Failure {
            $($(#[$meta])* pub const $name: Self = Self($value);)*

            /// Returns what happened, and what to do about it, in one sentence.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "a failure that this version does not know",
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Failure] = &[$(Failure::$name),*];
    };
}

failures! {
    /// The return address or the parameters on the caller's stack cannot be read.
    BAD_STACK = 0xffff_ff01, "the caller's stack cannot be read";
    /// What a pointer parameter names cannot be read and written by the caller.
    BAD_POINTER = 0xffff_ff02, "what a pointer parameter names cannot be read and written; touch it first, and lock it";
    /// Interrupts are off (RFLAGS.IF).
    INTERRUPTS_OFF = 0xffff_ff03, "a PAL can only be called while interrupts are on";
    /// The PAL runs on another CPU, or another thread's call of it is suspended.
    BUSY = 0xffff_ff04, "another thread's call of this PAL has not returned; try again";
    /// The PAL raised an exception: RDX and RCX say which and where. All that it could write is zero, and it has
    /// to be unregistered.
    FAULTED = 0xffff_ff05, "the PAL raised an exception; its memory has been zeroed: unregister it";
    /// The PAL's pages were taken from it meanwhile. All that it could write is zero.
    REVOKED = 0xffff_ff06, "the PAL lost its pages to a write of the operating system, which zeroed them: unregister it";
    /// An earlier call faulted, or the PAL was revoked: it has to be unregistered and registered again.
    DEAD = 0xffff_ff07, "the PAL faulted or was revoked before: unregister it and register it again";
    /// The PAL returned, but what a pointer parameter names can no longer be written by the caller.
    BAD_OUTPUT = 0xffff_ff08, "the PAL returned, but a pointer parameter's memory was no longer writable";
    /// The call is not from a process of the word size that registered the PAL.
    BAD_MODE = 0xffff_ff09, "the caller runs in another mode than when it registered the PAL";
}

/// What a PAL did that ended it: RDX of [`Failure::FAULTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultKind(pub u32);

impl FaultKind {
    /// An instruction that no PAL may execute: privileged ones that the hypervisor intercepts, port access.
    pub const FORBIDDEN_INSTRUCTION: Self = Self(0x100);
    /// The PAL ran into a shutdown.
    pub const SHUTDOWN: Self = Self(0x101);

    /// Returns the vector of an exception, 0 to 31; `None` for kinds of our own.
    ///
    /// RCX is the linear address of the access for a page fault (14), else that of the instruction.
    #[must_use]
    pub const fn vector(self) -> Option<u32> {
        if self.0 < 32 { Some(self.0) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_failure_has_a_number_and_a_sentence_of_its_own() {
        let numbers: BTreeSet<_> = ALL.iter().map(|failure| failure.0).collect();
        let sentences: BTreeSet<_> = ALL.iter().map(|failure| failure.explanation()).collect();
        assert_eq!((numbers.len(), sentences.len()), (ALL.len(), ALL.len()));
        assert_eq!(Failure(1).explanation(), "a failure that this version does not know");
    }

    #[test]
    fn a_kind_below_32_is_a_vector() {
        for vector in 0..32 {
            assert_eq!(FaultKind(vector).vector(), Some(vector));
        }
        for other in
            [FaultKind(32), FaultKind::FORBIDDEN_INSTRUCTION, FaultKind::SHUTDOWN, FaultKind(u32::MAX)]
        {
            assert_eq!(other.vector(), None, "{other:?}");
        }
    }
}
