//! A PAL with a key of its own: it draws it, seals it, and answers for what it is.
#![no_std]
#![no_main]

mod commands;

use commands::{
    ADD, DRAW, EXTEND, FAILED, FINGERPRINT, PUBLIC_KEY, QUOTE, REGISTER, SEAL, SHARED, UNSEAL,
};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use xmhf_pal::microtpm;
use xmhf_pal::trustvisor::status::Status;

/// Registers 0 and 1, to which the key is sealed.
const REGISTERS: u8 = 0b11;
const KEY_BYTES: usize = 32;
const SHARED_BYTES: u32 = 4096;

static KEY: [AtomicU8; KEY_BYTES] = [const { AtomicU8::new(0) }; KEY_BYTES];

xmhf_pal::entry! {
    fn notary(command: u32, number: u32, bytes: &mut [u8; 1024]) -> usize {
        match answer(command, number, bytes) {
            Ok(result) => result,
            Err(status) => FAILED | usize::try_from(status.0).unwrap_or(0),
        }
    }
}

fn answer(command: u32, number: u32, bytes: &mut [u8; 1024]) -> Result<usize, Status> {
    match command {
        DRAW => draw(),
        SEAL => microtpm::seal(REGISTERS, &key(), bytes),
        UNSEAL => unseal(bytes, number),
        FINGERPRINT => fingerprint(bytes),
        EXTEND => {
            let digest = bytes.first_chunk().ok_or(Status::BAD_PARAMETER)?;
            microtpm::extend_pcr(number, digest).map(|()| 0)
        }
        REGISTER => {
            let value = microtpm::read_pcr(number)?;
            give(bytes, &value)
        }
        QUOTE => {
            let nonce = *bytes.first_chunk().ok_or(Status::BAD_PARAMETER)?;
            microtpm::quote(1, &nonce, bytes)
        }
        PUBLIC_KEY => give(bytes, &microtpm::public_key()?),
        ADD => add(number),
        _ => Err(Status::BAD_PARAMETER),
    }
}

fn draw() -> Result<usize, Status> {
    let mut key = [0; KEY_BYTES];
    microtpm::random(&mut key)?;
    keep(&key);
    Ok(0)
}

/// Opens a blob of `length` bytes, and takes the key from it.
fn unseal(bytes: &[u8; 1024], length: u32) -> Result<usize, Status> {
    let mut data = [0; 1024];
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let blob = bytes.get(..length).ok_or(Status::BAD_PARAMETER)?;
    let used = microtpm::unseal(blob, &mut data)?;
    let key = data.first_chunk().filter(|_| used == KEY_BYTES).ok_or(Status::BAD_PARAMETER)?;
    keep(key);
    Ok(0)
}

/// A number that hangs on every byte of the key, and does not tell it (FNV-1a).
fn fingerprint(bytes: &mut [u8; 1024]) -> Result<usize, Status> {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = key().into_iter().fold(0xcbf2_9ce4_8422_2325, mix);
    give(bytes, &hash.to_le_bytes())
}

/// Adds one to the number at the address, which lies in the one page that is shared; where it is not, the PAL ends.
/// A PAL takes no other address from its process: what lies there could be the PAL's own, and what it answers would
/// tell its key.
fn add(address: u32) -> Result<usize, Status> {
    let is_shared = address.is_multiple_of(4) && (SHARED..SHARED + SHARED_BYTES).contains(&address);
    let address = Some(address).filter(|_| is_shared).ok_or(Status::BAD_ADDRESS)?;
    let place = core::ptr::with_exposed_provenance_mut::<u32>(usize::try_from(address).unwrap_or(0));
    // SAFETY: nothing of the PAL's own is in that page.
    let number = unsafe { AtomicU32::from_ptr(place) };
    Ok(usize::try_from(number.fetch_add(1, Ordering::Relaxed)).unwrap_or(0))
}

fn key() -> [u8; KEY_BYTES] {
    core::array::from_fn(|index| KEY[index].load(Ordering::Relaxed))
}

fn keep(key: &[u8; KEY_BYTES]) {
    KEY.iter().zip(key).for_each(|(place, byte)| place.store(*byte, Ordering::Relaxed));
}

/// Puts an answer in front of the parameter; gives its length.
fn give(bytes: &mut [u8; 1024], answer: &[u8]) -> Result<usize, Status> {
    bytes.get_mut(..answer.len()).ok_or(Status::NO_ROOM)?.copy_from_slice(answer);
    Ok(answer.len())
}
