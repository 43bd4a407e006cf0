//! `notary [NONCE]`: a PAL with a key of its own, that seals it, shares memory, and proves what it is; and another, that
//! is signed, with its update.
//!
//! Tells each step. The quote for NONCE, 64 hexadecimal digits, and the key that verifies it are printed too: they may
//! be carried anywhere, and `xmhf verify-quote` checks them against the PAL's file.
#![no_std]
#![no_main]

/// A sentence for who watches.
macro_rules! tell {
    ($($text:tt)*) => {
        pal_demo::say!("xmhf-guest: demo: {}\n", format_args!($($text)*))
    };
}

#[path = "../../../pal/commands.rs"]
mod commands;
mod updates;

use commands::{ADD, DRAW, EXTEND, FAILED, FINGERPRINT, PUBLIC_KEY, QUOTE, REGISTER, SEAL, SHARED, UNSEAL};
use core::fmt;
use pal_demo::arguments::Arguments;
use pal_demo::say;
use xmhf_pal::Error;
use xmhf_pal::memory::Pages;
use xmhf_pal::microtpm::{self, DIGEST_BYTES, NONCE_BYTES};
use xmhf_pal::trustvisor::flags::ACCEPTS_SHARE;
use xmhf_pal::trustvisor::status::Status;

xmhf_pal::pal! {
    /// See its source, in `pal`.
    struct Notary = xmhf_pal::image!("notary");
    fn notary(command: u32, number: u32, bytes: &mut [u8; 1024]) -> usize;
}

const PAGE_FAULT: u32 = 14;
/// Bytes of a quote that are printed in one line.
const LINE_BYTES: usize = 64;

pal_demo::program!(main);

fn main(arguments: Arguments) -> u32 {
    let nonce = match arguments.exactly() {
        None => Some([0; NONCE_BYTES]),
        Some([word]) => nonce(word),
    };
    let Some(nonce) = nonce else {
        say!("usage: notary [NONCE], {} hexadecimal digits\n", 2 * NONCE_BYTES);
        return 1;
    };
    match seals().and_then(|()| shares()).and_then(|()| updates::updates()).and_then(|()| proves(&nonce)) {
        Ok(()) => 0,
        Err(why) => {
            say!("Error: {why}\n");
            1
        }
    }
}

/// What went wrong.
enum Wrong {
    Pal(Error),
    Status { command: u32, status: Status },
    Otherwise(&'static str),
}

/// The notary, which shares a page with its process.
fn registered() -> Result<Notary, Wrong> {
    Ok(Notary::register_with(ACCEPTS_SHARE)?)
}

/// A key outlives its PAL's registration as a sealed blob, and opens for the same PAL in the same state alone.
fn seals() -> Result<(), Wrong> {
    let mut bytes = [0; 1024];
    let notary = registered()?;
    let without = fingerprint(&notary)?;
    ask(&notary, DRAW, 0, &mut bytes)?;
    let drawn = fingerprint(&notary)?;
    ensure(drawn != without, "no key was drawn")?;
    let length = ask(&notary, SEAL, 0, &mut bytes)?;
    let blob = bytes;
    tell!("A PAL draws a key, and seals it: the program keeps {length} bytes that it cannot open.");
    notary.unregister()?;

    let notary = registered()?;
    ensure(fingerprint(&notary)? == without, "a PAL that is registered anew has a key")?;
    let number = u32::try_from(length).unwrap_or(0);
    bytes[length / 2] ^= 1;
    refused(&notary, number, &mut bytes, Status::BAD_PARAMETER)?;
    bytes = blob;
    ask(&notary, UNSEAL, number, &mut bytes)?;
    ensure(fingerprint(&notary)? == drawn, "another key was unsealed")?;
    tell!("Registered anew, the PAL opens them and has its key again; with one bit changed it does not.");
    ask(&notary, EXTEND, 1, &mut [7; 1024])?;
    bytes = blob;
    refused(&notary, number, &mut bytes, Status::OTHER)?;
    ask(&notary, REGISTER, 1, &mut bytes)?;
    ensure(bytes[..DIGEST_BYTES] != [0; DIGEST_BYTES], "an extended register is zero")?;
    tell!("Once its register 1 is extended, the PAL is in another state, for which the key was not sealed.");
    ensure(microtpm::random(&mut [0; 16]) == Err(Status::NOT_IN_PAL), "a process has a microTPM")?;
    Ok(notary.unregister()?)
}

/// A page that the process shares with its PAL is there for both; without that the PAL ends.
fn shares() -> Result<(), Wrong> {
    let mut page = Pages::at(SHARED as usize, 1)?;
    let mut bytes = [0; 1024];
    let notary = registered()?;
    let fault = notary.call(ADD, SHARED, &mut bytes);
    let is_told = matches!(fault, Err(Error::Faulted(fault))
        if fault.kind.0 == PAGE_FAULT && fault.address == SHARED as usize);
    ensure(is_told, "a PAL reads its process's memory")?;
    drop(notary);
    let notary = registered()?;
    notary.pal().registration().share(&[SHARED], &[4096])?;
    for number in [7, 1000] {
        page.bytes_mut()[..2].copy_from_slice(&u16::to_le_bytes(number));
        let seen = ask(&notary, ADD, SHARED, &mut bytes)?;
        ensure(seen == usize::from(number), "a PAL sees other memory than was shared")?;
        ensure(
            page.bytes()[..2] == u16::to_le_bytes(number + 1),
            "a PAL writes to other memory than was shared",
        )?;
    }
    let data = xmhf_pal::Image::parse(xmhf_pal::image!("notary")).map_err(Error::from)?;
    for segment in data.segments() {
        // Whatever may be added to in the PAL's own memory could be read so, its key too.
        let address = u32::try_from(segment.start).unwrap_or(0);
        refused_with(&notary, ADD, address, &mut bytes, Status::BAD_ADDRESS)?;
    }
    for address in [SHARED - 1, SHARED + 4093, SHARED + 4096, 0, u32::MAX] {
        refused_with(&notary, ADD, address, &mut bytes, Status::BAD_ADDRESS)?;
    }
    tell!("A page that the process shares is there for both; before that, touching it ended the PAL.");
    Ok(notary.unregister()?)
}

/// A quote tells anybody which PAL it was that answered.
fn proves(nonce: &[u8; NONCE_BYTES]) -> Result<(), Wrong> {
    let notary = registered()?;
    let mut bytes = [0; 1024];
    let length = ask(&notary, PUBLIC_KEY, 0, &mut bytes)?;
    print("key", &bytes[..length]);
    bytes[..NONCE_BYTES].copy_from_slice(nonce);
    let length = ask(&notary, QUOTE, 0, &mut bytes)?;
    print("quote", &bytes[..length]);
    tell!("Asked with a number from outside, the PAL quotes what it is, in {length} bytes.");
    Ok(notary.unregister()?)
}

fn ask(notary: &Notary, command: u32, number: u32, bytes: &mut [u8; 1024]) -> Result<usize, Wrong> {
    let result = notary.call(command, number, bytes)?;
    if result & FAILED == 0 {
        return Ok(result);
    }
    let status = Status(u32::try_from(result & !FAILED).unwrap_or(u32::MAX));
    Err(Wrong::Status { command, status })
}

fn refused(notary: &Notary, length: u32, blob: &mut [u8; 1024], with: Status) -> Result<(), Wrong> {
    refused_with(notary, UNSEAL, length, blob, with)
}

fn refused_with(
    notary: &Notary,
    command: u32,
    number: u32,
    bytes: &mut [u8; 1024],
    with: Status,
) -> Result<(), Wrong> {
    match ask(notary, command, number, bytes) {
        Err(Wrong::Status { status, .. }) if status == with => Ok(()),
        Err(why) => Err(why),
        Ok(_) => Err(Wrong::Otherwise("a PAL does what it must not")),
    }
}

fn fingerprint(notary: &Notary) -> Result<[u8; 8], Wrong> {
    let mut bytes = [0; 1024];
    ask(notary, FINGERPRINT, 0, &mut bytes)?;
    Ok(core::array::from_fn(|index| bytes[index]))
}

fn ensure(is_so: bool, what: &'static str) -> Result<(), Wrong> {
    if is_so { Ok(()) } else { Err(Wrong::Otherwise(what)) }
}

/// Prints bytes so that they can be read off a console: `quote64` is of a process of 64 bits.
fn print(what: &str, bytes: &[u8]) {
    for line in bytes.chunks(LINE_BYTES) {
        say!("xmhf-guest: {what}{} {}\n", usize::BITS, Hex(line));
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

fn nonce(word: &str) -> Option<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    for (index, byte) in nonce.iter_mut().enumerate() {
        *byte = u8::from_str_radix(word.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    (word.len() == 2 * NONCE_BYTES).then_some(nonce)
}

impl From<Error> for Wrong {
    fn from(why: Error) -> Self {
        Self::Pal(why)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pal(why) => write!(formatter, "{why}"),
            Self::Status { command, status } => {
                write!(formatter, "command {command}: {} ({})", status.explanation(), status.0)
            }
            Self::Otherwise(what) => formatter.write_str(what),
        }
    }
}
