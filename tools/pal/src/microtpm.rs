//! What a PAL has for itself: random bytes and the platform configuration registers of its microTPM.
//!
//! Outside a PAL each of these is refused. Buffers lie in the PAL's own sections, below 4 GiB, where files linked
//! with `pal.ld` are.
#![expect(unsafe_code, reason = "hypercalls")]
// UNSAFETY: each hypercall names memory that its caller borrows for as long.

use crate::hypercall::{self, Arguments};
use trustvisor::command::Command;
use trustvisor::status::Status;

/// Bytes of a register of the SHA-1 bank, and of what it is extended by.
pub const DIGEST_BYTES: usize = 20;

/// Fills `bytes` at random.
///
/// # Errors
///
/// More bytes than one call gives, or not called from inside a PAL.
pub fn random(bytes: &mut [u8]) -> Result<(), Status> {
    let mut count = u32::try_from(bytes.len()).map_err(|_| Status::BAD_PARAMETER)?;
    let d = (&raw mut count).expose_provenance();
    let arguments = Arguments { c: bytes.as_mut_ptr().expose_provenance(), d, ..Arguments::default() };
    // SAFETY: as many bytes are written as the slice has, and the count.
    unsafe { hypercall::checked(Command::RANDOM, arguments) }
}

/// The register `index` of the SHA-1 bank.
///
/// # Errors
///
/// No such register, or not called from inside a PAL.
pub fn read_pcr(index: u32) -> Result<[u8; DIGEST_BYTES], Status> {
    let mut digest = [0; DIGEST_BYTES];
    let d = digest.as_mut_ptr().expose_provenance();
    // SAFETY: 20 bytes are written.
    unsafe {
        hypercall::checked(Command::PCR_READ, Arguments { c: index as usize, d, ..Arguments::default() })?
    };
    Ok(digest)
}

/// Extends the register `index` of both banks by `digest`.
///
/// # Errors
///
/// No such register, or not called from inside a PAL.
pub fn extend_pcr(index: u32, digest: &[u8; DIGEST_BYTES]) -> Result<(), Status> {
    let d = digest.as_ptr().expose_provenance();
    // SAFETY: 20 bytes are read.
    unsafe {
        hypercall::checked(Command::PCR_EXTEND, Arguments { c: index as usize, d, ..Arguments::default() })
    }
}

/// Ends the PAL for good: all that it can write is zeroed, and its caller is told.
pub fn give_up() -> ! {
    // SAFETY: an instruction that raises an exception changes nothing.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
