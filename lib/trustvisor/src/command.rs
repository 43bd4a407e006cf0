//! The hypercalls.
//!
//! VMCALL from CPL 3, with the command in EAX and arguments in ECX, EDX, ESI and EDI, as wide as the caller's
//! words: 64 bits in 64-bit mode, 32 bits in compatibility and protected mode. Pointers are linear addresses of
//! the caller. EAX returns a [`Status`](crate::status::Status), zero-extended; no other register changes.

/// Added to a command, and to ECX of the CPUID leaf, in a guest of a guest: what bears it passes that one's
/// hypervisor by.
pub const NESTED_OFFSET: u32 = 0x4c41_5000;

/// What a hypercall asks for. Any number may come from a program: those without a name are answered with
/// [`Status::UNKNOWN_COMMAND`](crate::status::Status::UNKNOWN_COMMAND).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Command(pub u32);

impl Command {
    /// Registers a PAL: ECX names the section list, ESI the parameter list, EDI is the entry address.
    pub const REGISTER: Self = Self(1);
    /// Ends a registration: ECX is the entry address. The pages are the process's again, zero where the PAL could write.
    pub const UNREGISTER: Self = Self(2);
    /// Seals for one value of PCR 0: ECX names an input buffer, EDX the value or is 0 for the present one, ESI an
    /// output buffer. Deprecated, as the two that follow: [`Self::SEAL`] binds to any PCRs.
    pub const SEAL_DEPRECATED: Self = Self(3);
    /// Unseals without the digest at creation: ECX names an input buffer, EDX an output buffer.
    pub const UNSEAL_DEPRECATED: Self = Self(4);
    /// Quotes PCR values themselves: ESI names a nonce of 20 bytes, ECX a u32 count and as many u32 indices, EDX an
    /// output buffer for values, nonce, signature and modulus.
    pub const QUOTE_DEPRECATED: Self = Self(5);
    /// Gives a registered PAL more pages, shared with the process: ECX is the entry address, EDX names an array
    /// of EDI u32 addresses, ESI one of as many u32 lengths in bytes. All are multiples of 4096.
    pub const SHARE: Self = Self(6);
    /// Reads a PCR: ECX is the index, EDX names 20 bytes; with 0x100 added to the index, which stands for the
    /// SHA-256 bank, 32 bytes. From inside a PAL, as all that follow and the deprecated three.
    pub const PCR_READ: Self = Self(7);
    /// Extends a PCR of both banks: ECX is the index, EDX names 20 bytes, or 32 with 0x100 added to the index.
    pub const PCR_EXTEND: Self = Self(8);
    /// Random bytes: ECX names where they go, EDX a u32: in how many, at most 4096, out how many.
    pub const RANDOM: Self = Self(9);
    /// Seals: ECX names an input buffer (at most 16384 bytes), EDX the PCRs to bind to or is 0, ESI an output buffer.
    pub const SEAL: Self = Self(10);
    /// Unseals: ECX names an input buffer, EDX an output buffer, ESI 20 bytes for the digest at creation.
    pub const UNSEAL: Self = Self(11);
    /// Quotes: ESI names a nonce of 20 bytes (32 for the SHA-256 bank), ECX the PCR selection, EDX an output buffer
    /// for the signature, EDI one for the PCR composite; both lengths are read as the room there is.
    pub const QUOTE: Self = Self(12);
    /// The public key of quotes: ECX names where it goes, EDX a u32: in its room, out its size. DER with room for
    /// 270 bytes, the bare modulus with room for 256.
    pub const ID_GETPUB: Self = Self(13);
    /// As [`Self::REGISTER`], with [flags](crate::flags) in EDX: they are in the PAL's header, and so in its measurement.
    /// [`Self::REGISTER`] itself registers with [`flags::ORIGINAL`](crate::flags::ORIGINAL).
    pub const REGISTER_WITH_FLAGS: Self = Self(14);
    /// Unseals only what the PAL sealed itself: ECX names an input buffer, EDX an output buffer. From inside a PAL.
    pub const UNSEAL_OWN: Self = Self(15);
    /// Gives up a suspended call, whose thread never comes back to it: ECX is the entry address. For PALs that were
    /// registered with [`flags::ABORTABLE`](crate::flags::ABORTABLE); what the call has done to the PAL's data stays.
    pub const ABORT: Self = Self(16);
    /// Says which processes may register: ECX is one of the [admissions](crate::admission), EDX the physical address of
    /// a process's top page table where it needs one. From privilege level 0 alone.
    pub const ADMIT: Self = Self(17);
    /// As [`Self::REGISTER`], for a PAL with a [signed header](crate::signature), which EDX names; the flags are those in
    /// the header.
    pub const REGISTER_SIGNED: Self = Self(18);
    /// Seals for PALs of the same signer and product: ECX names an input buffer, EDX is the least security version that
    /// opens it, at most the PAL's own, ESI names an output buffer. From inside a PAL with a signed header.
    pub const SEAL_TO_SIGNER: Self = Self(19);
    /// Writes EDX characters at ECX, at most [`LOG_BYTES_LIMIT`], to the hypervisor's log; what comes too fast is counted
    /// and left out. From inside a PAL with [`flags::DEBUG`](crate::flags::DEBUG).
    pub const LOG: Self = Self(20);
    /// Writes ECX to the hypervisor's log, and returns 0. From anywhere.
    pub const TEST: Self = Self(255);

    /// Returns the command behind `eax`, which bears the [`NESTED_OFFSET`] where the caller is in a guest of a guest; a
    /// PAL need not say where it is.
    #[must_use]
    pub const fn of(eax: u32, is_nested: bool, is_pal: bool) -> Option<Self> {
        match eax.wrapping_sub(NESTED_OFFSET) {
            command if command < 0x100 && is_nested => Some(Self(command)),
            _ if is_nested && !is_pal => None,
            _ => Some(Self(eax)),
        }
    }

    /// Returns whether the command is one of a PAL's own, for its microTPM.
    #[must_use]
    pub const fn is_microtpm(self) -> bool {
        matches!(self.0, 3..=5 | 7..=13 | 15 | 19)
    }

    /// Returns whether the command is one that PALs alone have.
    #[must_use]
    pub const fn is_of_pals(self) -> bool {
        self.is_microtpm() || self.0 == Self::LOG.0
    }
}

/// Most bytes that one [`Command::RANDOM`] gives.
pub const RANDOM_BYTES_LIMIT: u32 = 4096;
/// Most bytes that one [`Command::SEAL`] takes.
pub const SEAL_BYTES_LIMIT: u32 = 16384;
/// Most characters that one [`Command::LOG`] writes.
pub const LOG_BYTES_LIMIT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_of_a_guest_bears_the_offset_and_its_pals_may() {
        for (eax, is_nested, is_pal, command) in [
            (255, false, false, Some(255)),
            (NESTED_OFFSET + 255, false, false, Some(NESTED_OFFSET + 255)),
            (NESTED_OFFSET + 255, true, false, Some(255)),
            (NESTED_OFFSET, true, false, Some(0)),
            (NESTED_OFFSET + 0x100, true, false, None),
            (1, true, false, None),
            (7, true, true, Some(7)),
            (NESTED_OFFSET + 7, true, true, Some(7)),
        ] {
            assert_eq!(Command::of(eax, is_nested, is_pal), command.map(Command), "{eax:#x}");
        }
    }

    #[test]
    fn the_microtpms_commands_are_those_of_a_pal() {
        let own: Vec<u32> = (0..=256).filter(|&number| Command(number).is_microtpm()).collect();
        assert_eq!(own, [3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15, 19]);
        let more: Vec<u32> = (0..=256).filter(|&number| Command(number).is_of_pals()).collect();
        assert_eq!(more, [&own[..], &[20]].concat());
    }
}
