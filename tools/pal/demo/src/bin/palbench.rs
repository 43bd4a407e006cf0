//! `palbench [OTHERS]`: median ticks of registering, calling and unregistering a PAL of four sections and ten integers,
//! beside OTHERS registered PALs.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a PAL's words")]
// UNSAFETY: the PAL has integers alone.

use pal_demo::arguments::{Arguments, number};
use pal_demo::functions::{IN_PAL, integers};
use pal_demo::say;
use pal_demo::sections::{Memory, Registered};
use pal_demo::ticks::ticks;
use xmhf_pal::Error;
use xmhf_pal::argument::integer;

const OTHERS_LIMIT: usize = 1000;
/// Odd, so that there is one in the middle; many, since work of the kernel on another CPU takes ticks too, for a while.
const ROUNDS: usize = 501;
const WORDS: [usize; 10] = [1 | IN_PAL, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const SUM: usize = 385;

pal_demo::program!(main);

fn main(arguments: Arguments) -> u32 {
    let others = arguments.iter().next().map_or(Some(0), number);
    let Some(others) = others.filter(|&others| others <= OTHERS_LIMIT) else {
        say!("usage: palbench [OTHERS], at most {OTHERS_LIMIT}\n");
        return 1;
    };
    match run(others) {
        Ok(()) => 0,
        Err(why) => {
            say!("Error: {why}\n");
            1
        }
    }
}

fn run(others: usize) -> Result<(), Error> {
    let mut memories: [Option<Memory>; OTHERS_LIMIT] = [const { None }; OTHERS_LIMIT];
    let mut registered: [Option<Registered<'_>>; OTHERS_LIMIT] = [const { None }; OTHERS_LIMIT];
    for (memory, place) in memories.iter_mut().zip(&mut registered).take(others) {
        let memory = memory.insert(Memory::new()?);
        *place = Some(register(memory)?);
    }
    measure(others + 1)?;
    registered.into_iter().flatten().try_for_each(Registered::unregister)
}

fn measure(pals: usize) -> Result<(), Error> {
    let mut memory = Memory::new()?;
    let [mut registering, mut calling, mut unregistering] = [[0; ROUNDS]; 3];
    for round in 0..ROUNDS {
        let start = ticks();
        let pal = register(&mut memory)?;
        registering[round] = ticks() - start;
        // The first call after a registration may have more to do.
        call(&pal)?;
        calling[round] = call(&pal)?;
        let start = ticks();
        pal.unregister()?;
        unregistering[round] = ticks() - start;
    }
    say!("bench pal_register_{pals} ticks={}\n", median(&mut registering));
    say!("bench pal_call_{pals} ticks={}\n", median(&mut calling));
    say!("bench pal_unregister_{pals} ticks={}\n", median(&mut unregistering));
    Ok(())
}

fn register(memory: &mut Memory) -> Result<Registered<'_>, Error> {
    memory.register(integers as *const (), &[integer(); 10])
}

/// Calls the PAL and gives the ticks.
fn call(pal: &Registered<'_>) -> Result<u64, Error> {
    let start = ticks();
    // SAFETY: integers alone.
    let result = unsafe { pal.call(&WORDS) };
    let ticks = ticks() - start;
    if result? == SUM { Ok(ticks) } else { Err(Error::Arguments) }
}

fn median(ticks: &mut [u64; ROUNDS]) -> u64 {
    ticks.sort_unstable();
    ticks[ROUNDS / 2]
}
