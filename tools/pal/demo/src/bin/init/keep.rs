//! What a process, and the kernel for it, see of a PAL's pages.
#![expect(unsafe_code, reason = "a PAL's pages and words")]
// UNSAFETY: bytes of pages that stay mapped; the PAL has integers alone.

use crate::{Failure, kernel};
use core::ptr;
use pal_demo::functions::{IN_PAL, integers};
use pal_demo::sections::{Memory, Registered};
use xmhf_pal::argument::integer;
use xmhf_pal::trustvisor::call::Failure as CallFailure;
use xmhf_pal::{Error, PAGE_SIZE};

const WORDS: [usize; 10] = [1 | IN_PAL, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const SUM: usize = 385;

/// Reads and then writes a PAL's pages.
pub(crate) fn perform() -> Result<(), Failure> {
    let mut memory = new()?;
    let pal = register(&mut memory)?;
    works(&pal)?;
    let pages = pal.pages();
    for page in pages {
        if (0..PAGE_SIZE).any(|offset| peek(page + offset) != 0) {
            return Err("the process sees something of its PAL");
        }
        let mut bytes = [0xa5; PAGE_SIZE];
        kernel::read_own(page, &mut bytes)?;
        if bytes != [0; PAGE_SIZE] {
            return Err("the kernel sees something of a PAL");
        }
    }
    works(&pal)?;
    poke(pages[1], 0xff);
    if (1..PAGE_SIZE).any(|offset| peek(pages[1] + offset) != 0) || peek(pages[1]) != 0xff {
        return Err("a page that was written was not zeroed before");
    }
    // Its code lies open there now, but a call does not run it.
    if call(&pal) != Err(Error::Failed(CallFailure::DEAD)) {
        return Err("a PAL that was written to answers");
    }
    Ok(())
}

/// A process ends with its PAL, and the kernel hands the pages out again.
pub(crate) fn leave_behind() -> Result<(), Failure> {
    for _ in 0..8 {
        let careless = || {
            let Ok(mut memory) = Memory::new() else { return 1 };
            let Ok(pal) = memory.register(integers as *const (), &[integer(); 10]) else { return 2 };
            let outcome = works(&pal);
            core::mem::forget(pal);
            core::mem::forget(memory);
            u32::from(outcome.is_err())
        };
        if kernel::child(careless)? != 0 {
            return Err("a child's PAL does not work");
        }
        let mut memory = new()?;
        works(&register(&mut memory)?)?;
    }
    Ok(())
}

fn new() -> Result<Memory, Failure> {
    Memory::new().map_err(|_| "no memory for a PAL")
}

fn register(memory: &mut Memory) -> Result<Registered<'_>, Failure> {
    memory.register(integers as *const (), &[integer(); 10]).map_err(|_| "registering is refused")
}

fn works(pal: &Registered<'_>) -> Result<(), Failure> {
    match call(pal) {
        Ok(SUM) => Ok(()),
        Err(Error::Failed(CallFailure::DEAD)) => Err("a PAL is dead"),
        _ => Err("a PAL does not give the sum"),
    }
}

fn call(pal: &Registered<'_>) -> Result<usize, Error> {
    // SAFETY: integers alone.
    unsafe { pal.call(&WORDS) }
}

fn peek(address: usize) -> u8 {
    // SAFETY: a byte of a page of this process.
    unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

fn poke(address: usize, byte: u8) {
    // SAFETY: as above; nobody holds a reference to it.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(byte) }
}
