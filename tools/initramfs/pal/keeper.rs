//! A PAL that keeps a secret: it takes it, tells whether a guess is right, and gives it to nobody.
#![no_std]
#![no_main]

use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU64, Ordering};

const KEEP: u32 = 1;
const CHECK: u32 = 2;
const COUNT: u32 = 3;
const LOOP: u32 = 4;
const STRAY: u32 = 5;
const PANIC: u32 = 6;
const WAIT: u32 = 7;
const RANDOM: u32 = 8;

static SECRET: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static CALLS: AtomicU64 = AtomicU64::new(0);

xmhf_pal::entry! {
    fn keeper(command: u32, words: &mut [u64; 2]) -> usize {
        match command {
            KEEP => keep(words),
            CHECK => usize::from(is_right(words)),
            COUNT => usize::try_from(CALLS.fetch_add(1, Ordering::Relaxed)).unwrap_or(0),
            LOOP => loop {
                spin_loop();
            },
            STRAY => usize::from(stray(words)),
            PANIC => panic!("asked to"),
            WAIT => wait(words[0]),
            RANDOM => draw(words),
            _ => usize::MAX,
        }
    }
}

/// Fills the words at random; gives the status of the hypercall.
fn draw(words: &mut [u64; 2]) -> usize {
    let mut bytes = [0; 16];
    let status = xmhf_pal::microtpm::random(&mut bytes).err().map_or(0, |status| status.0);
    for (word, part) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
    }
    usize::try_from(status).unwrap_or(usize::MAX)
}

/// Takes the secret out of the parameters, and leaves nothing there.
fn keep(words: &mut [u64; 2]) -> usize {
    for (place, word) in SECRET.iter().zip(words) {
        place.store(*word, Ordering::Relaxed);
        *word = 0;
    }
    0
}

/// Takes the same time for any guess.
fn is_right(words: &[u64; 2]) -> bool {
    let difference =
        SECRET.iter().zip(words).fold(0, |bits, (place, word)| bits | (place.load(Ordering::Relaxed) ^ word));
    black_box(difference) == 0
}

/// Reads what is no section of the PAL's: the address in the first word.
fn stray(words: &[u64; 2]) -> bool {
    let address = usize::try_from(words[0]).unwrap_or(0);
    let place = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: none; the hypervisor ends the PAL here, which is what a test wants to see.
    unsafe { core::ptr::read_volatile(place) != 0 }
}

/// Does nothing for so many rounds, and counts the call behind them.
fn wait(rounds: u64) -> usize {
    (0..rounds).for_each(|_| spin_loop());
    usize::try_from(CALLS.fetch_add(1, Ordering::Relaxed)).unwrap_or(0)
}
