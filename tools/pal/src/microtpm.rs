//! What a PAL has for itself, its microTPM: random bytes, registers that say what it is, sealed data, quotes.
//!
//! Outside a PAL each of these is refused. Buffers lie in the PAL's own sections, below 4 GiB, where files linked
//! with `pal.ld` are. Sealed data and quotes go by the registers of the SHA-256 bank, where register 0 is the
//! measurement of the PAL.
#![expect(unsafe_code, reason = "hypercalls")]
// UNSAFETY: each hypercall names memory that its caller borrows for as long.

use crate::hypercall::{self, Arguments};
use trustvisor::command::Command;
use trustvisor::status::Status;

/// Bytes of a register of the SHA-1 bank, and of what it is extended by.
pub const DIGEST_BYTES: usize = 20;
/// Bytes of a register of the SHA-256 bank, and of a quote's nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes that a blob may have more than its data.
pub const SEAL_BYTES_MORE: usize = 128;
/// Bytes of the public key.
pub const PUBLIC_KEY_BYTES: usize = 270;
/// Most bytes of a quote's file.
pub const QUOTE_BYTES_LIMIT: usize = COMPOSITE_HEAD + 8 * NONCE_BYTES + NONCE_BYTES + SIGNATURE_BYTES;

/// Bytes of a composite before its values: the selection, and a u32.
const COMPOSITE_HEAD: usize = 7;
const SIGNATURE_BYTES: usize = 256;
/// What is added to the index of a register of the SHA-256 bank.
const SHA256_REGISTERS: usize = 0x100;
/// The second byte of a selection: the SHA-256 bank, and for a seal the registers as they are.
const SHA256_BANK: u8 = 0x80;
const AS_THEY_ARE: u8 = 0x40;

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

/// The value of register `index` of the SHA-256 bank.
///
/// # Errors
///
/// No such register, or not called from inside a PAL.
pub fn read_pcr_sha256(index: u32) -> Result<[u8; NONCE_BYTES], Status> {
    let mut digest = [0; NONCE_BYTES];
    let d = digest.as_mut_ptr().expose_provenance();
    let index = index as usize | SHA256_REGISTERS;
    // SAFETY: 32 bytes are written.
    unsafe { hypercall::checked(Command::PCR_READ, Arguments { c: index, d, ..Arguments::default() })? };
    Ok(digest)
}

/// Seals `data` for PALs whose `registers` (bit 0 is register 0) are as this PAL's are now: with register 0 among
/// them, for this PAL alone. Returns the bytes of `blob` that are used; it needs [`SEAL_BYTES_MORE`] more than the
/// data.
///
/// # Errors
///
/// [`Status::NO_ROOM`], too much data, or not called from inside a PAL.
pub fn seal(registers: u8, data: &[u8], blob: &mut [u8]) -> Result<usize, Status> {
    if blob.len() < data.len().saturating_add(SEAL_BYTES_MORE) {
        return Err(Status::NO_ROOM);
    }
    let policy = selection(AS_THEY_ARE, registers);
    let mut used = 0;
    let input = Input::new(data)?;
    let output = Output::new(blob, &mut used)?;
    let arguments = Arguments {
        c: (&raw const input).expose_provenance(),
        d: policy.as_ptr().expose_provenance(),
        si: (&raw const output).expose_provenance(),
        ..Arguments::default()
    };
    // SAFETY: no blob is longer than what was checked above.
    unsafe { hypercall::checked(Command::SEAL, arguments)? };
    Ok(used as usize)
}

/// Seals `data` for PALs of this one's signer and product, from the security version `minimum` on, which is at most this
/// one's own: its updates open it, and so do, with a `minimum` below it, earlier versions. Returns the bytes of `blob` that
/// are used; it needs [`SEAL_BYTES_MORE`] more than the data.
///
/// # Errors
///
/// [`Status::NOT_SIGNED`]; [`Status::BAD_PARAMETER`] where `minimum` is above this PAL's version; else as [`seal`].
pub fn seal_to_signer(minimum: u32, data: &[u8], blob: &mut [u8]) -> Result<usize, Status> {
    if blob.len() < data.len().saturating_add(SEAL_BYTES_MORE) {
        return Err(Status::NO_ROOM);
    }
    let mut used = 0;
    let input = Input::new(data)?;
    let output = Output::new(blob, &mut used)?;
    let arguments = Arguments {
        c: (&raw const input).expose_provenance(),
        d: minimum as usize,
        si: (&raw const output).expose_provenance(),
        ..Arguments::default()
    };
    // SAFETY: no blob is longer than what was checked above.
    unsafe { hypercall::checked(Command::SEAL_TO_SIGNER, arguments)? };
    Ok(used as usize)
}

/// Writes `text`, of which non-ASCII characters become dots, to the hypervisor's log. What comes too fast is left out.
///
/// # Errors
///
/// [`Status::NOT_DEBUG`]; [`Status::BAD_PARAMETER`] for more than 256 bytes; or not called from inside a PAL.
pub fn log(text: &str) -> Result<(), Status> {
    let arguments = Arguments { c: text.as_ptr().expose_provenance(), d: text.len(), ..Arguments::default() };
    // SAFETY: the text is read.
    unsafe { hypercall::checked(Command::LOG, arguments) }
}

/// Opens what this PAL itself sealed, with register 0 among the registers, or a version of it to their signer. Returns the bytes of `data` that are used; it
/// needs as many as the blob has.
///
/// Any PAL can seal data for this one: what another one chose, a key above all, is not this one's. [`unseal_from`]
/// opens that too, and says whose it is.
///
/// # Errors
///
/// [`Status::NO_ROOM`]; [`Status::BAD_PARAMETER`] where the blob is not this machine's; [`Status::OTHER`] where it was
/// sealed for other registers; [`Status::FOREIGN_BLOB`] where another PAL sealed it; or not called from inside a PAL.
pub fn unseal(blob: &[u8], data: &mut [u8]) -> Result<usize, Status> {
    open(Command::UNSEAL_OWN, blob, data, &mut [0; DIGEST_BYTES])
}

/// Opens what any PAL sealed for this one. Returns the bytes of `data` that are used, and the first bytes of the digest
/// that the selected registers had where it was sealed: its maker's name, if register 0 is one of them, else nobody's.
///
/// # Errors
///
/// As [`unseal`], but for [`Status::FOREIGN_BLOB`].
pub fn unseal_from(blob: &[u8], data: &mut [u8]) -> Result<(usize, [u8; DIGEST_BYTES]), Status> {
    let mut creation = [0; DIGEST_BYTES];
    Ok((open(Command::UNSEAL, blob, data, &mut creation)?, creation))
}

fn open(
    command: Command,
    blob: &[u8],
    data: &mut [u8],
    creation: &mut [u8; DIGEST_BYTES],
) -> Result<usize, Status> {
    if data.len() < blob.len() {
        return Err(Status::NO_ROOM);
    }
    let mut used = 0;
    let input = Input::new(blob)?;
    let output = Output::new(data, &mut used)?;
    let arguments = Arguments {
        c: (&raw const input).expose_provenance(),
        d: (&raw const output).expose_provenance(),
        si: creation.as_mut_ptr().expose_provenance(),
        ..Arguments::default()
    };
    // SAFETY: no data is longer than its blob.
    unsafe { hypercall::checked(command, arguments)? };
    Ok(used as usize)
}

/// Quotes `registers` (bit 0 is register 0) for `nonce`. Returns the bytes of `file` that are used, at most
/// [`QUOTE_BYTES_LIMIT`]: composite, nonce and signature, which is the file that `xmhf verify-quote` reads.
///
/// # Errors
///
/// [`Status::NO_ROOM`], or not called from inside a PAL.
pub fn quote(registers: u8, nonce: &[u8; NONCE_BYTES], file: &mut [u8]) -> Result<usize, Status> {
    let composite_bytes = COMPOSITE_HEAD + registers.count_ones() as usize * NONCE_BYTES;
    let used = composite_bytes + NONCE_BYTES + SIGNATURE_BYTES;
    let (composite, rest) = file.split_at_mut_checked(composite_bytes).ok_or(Status::NO_ROOM)?;
    let (place, rest) = rest.split_at_mut_checked(NONCE_BYTES).ok_or(Status::NO_ROOM)?;
    let signature = rest.get_mut(..SIGNATURE_BYTES).ok_or(Status::NO_ROOM)?;
    place.copy_from_slice(nonce);
    let selection = selection(0, registers);
    let mut lengths = [number(SIGNATURE_BYTES)?, number(composite_bytes)?];
    let [signature_length, composite_length] = &mut lengths;
    let outputs = [Output::new(signature, signature_length)?, Output::new(composite, composite_length)?];
    let arguments = Arguments {
        c: selection.as_ptr().expose_provenance(),
        d: (&raw const outputs[0]).expose_provenance(),
        si: nonce.as_ptr().expose_provenance(),
        di: (&raw const outputs[1]).expose_provenance(),
    };
    // SAFETY: the lengths say what room there is.
    unsafe { hypercall::checked(Command::QUOTE, arguments)? };
    Ok(used)
}

/// The key that quotes are verified with, as PKCS #1 has it in DER. The first call in a boot takes long.
///
/// # Errors
///
/// Not called from inside a PAL.
pub fn public_key() -> Result<[u8; PUBLIC_KEY_BYTES], Status> {
    let mut key = [0; PUBLIC_KEY_BYTES];
    let mut length = number(PUBLIC_KEY_BYTES)?;
    let arguments = Arguments {
        c: key.as_mut_ptr().expose_provenance(),
        d: (&raw mut length).expose_provenance(),
        ..Arguments::default()
    };
    // SAFETY: the length says what room there is.
    unsafe { hypercall::checked(Command::ID_GETPUB, arguments)? };
    Ok(key)
}

/// A selection of registers of the SHA-256 bank.
fn selection(flags: u8, registers: u8) -> [u8; 3] {
    [1, SHA256_BANK | flags, registers]
}

/// Where a command's input is.
#[repr(C)]
struct Input {
    address: u32,
    length: u32,
}

/// Where a command's output goes, and its length.
#[repr(C)]
struct Output {
    address: u32,
    length: u32,
}

impl Input {
    fn new(bytes: &[u8]) -> Result<Self, Status> {
        Ok(Self { address: word(bytes.as_ptr().expose_provenance())?, length: number(bytes.len())? })
    }
}

impl Output {
    fn new(bytes: &mut [u8], length: &mut u32) -> Result<Self, Status> {
        let length = word((&raw mut *length).expose_provenance())?;
        Ok(Self { address: word(bytes.as_mut_ptr().expose_provenance())?, length })
    }
}

fn number(bytes: usize) -> Result<u32, Status> {
    u32::try_from(bytes).map_err(|_| Status::BAD_PARAMETER)
}

/// An address as buffers' descriptions have it.
fn word(address: usize) -> Result<u32, Status> {
    u32::try_from(address).map_err(|_| Status::BAD_ADDRESS)
}

/// Ends the PAL for good: all that it can write is zeroed, and its caller is told.
pub fn give_up() -> ! {
    // SAFETY: an instruction that raises an exception changes nothing.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use crate::memory::Pages;

    /// A hypercall would end this process: nothing here comes to one. `tools/pal/c/test/abi.c` has the same cases.
    #[test]
    fn buffers_beyond_4_gib_are_refused_without_asking() {
        let mut near = Pages::at(0x5ff0_0000, 1).unwrap();
        let mut far = Pages::at(0x1_5ff0_0000, 1).unwrap();
        let (data, blob) = near.bytes_mut().split_at_mut(2048);
        let far = &mut far.bytes_mut()[..1024];
        assert_eq!(seal(1, &far[..16], blob), Err(Status::BAD_ADDRESS));
        assert_eq!(seal(1, &data[..16], far), Err(Status::BAD_ADDRESS));
        assert_eq!(seal_to_signer(1, &far[..16], blob), Err(Status::BAD_ADDRESS));
        assert_eq!(seal_to_signer(1, &data[..16], far), Err(Status::BAD_ADDRESS));
        assert_eq!(unseal(&far[..92], data), Err(Status::BAD_ADDRESS));
        assert_eq!(unseal(&blob[..92], far), Err(Status::BAD_ADDRESS));
        assert_eq!(unseal_from(&blob[..92], far), Err(Status::BAD_ADDRESS));
        assert_eq!(quote(1, &[0; 32], far), Err(Status::BAD_ADDRESS));
    }
}
