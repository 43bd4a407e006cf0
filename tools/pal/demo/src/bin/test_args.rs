//! `test_args FUNCS ITERS SEED`: PALs with ten parameters of all kinds, each called ITERS times with random numbers.
//!
//! FUNCS is a mask: 1 ten integers, 2 ten pointers, 4 five sizes with an array each, registered anew every time. A
//! dot is a call that came back with what it should; behind the last one stands the verdict.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a PAL's pointers")]
// UNSAFETY: every pointer is to as many words as the parameter list says.

use pal_demo::arguments::{Arguments, number};
use pal_demo::functions::{IN_PAL, arrays, integers, pointers};
use pal_demo::random::Random;
use pal_demo::say;
use pal_demo::sections::Memory;
use xmhf_pal::Error;
use xmhf_pal::argument::{integer, pointer};
use xmhf_pal::trustvisor::parameter::ParameterRecord;

/// Parameters of each PAL.
const COUNT: usize = 10;
/// Most words of an array.
const ARRAY_WORDS: usize = 64;
/// What stands around whatever a pointer names.
const GUARD: usize = 0x6775_6172;

pal_demo::program!(main);

fn main(arguments: Arguments) -> u32 {
    let numbers = arguments.exactly().map(|words: [&str; 3]| words.map(number));
    let Some([Some(functions), Some(iterations), Some(seed)]) = numbers else {
        say!("usage: test_args FUNCS ITERS SEED\n");
        return 1;
    };
    let mut random = Random::new(seed);
    let outcome = run(functions, iterations, &mut random);
    say!("\n");
    match outcome {
        Ok(()) => {
            say!("Test pass\n");
            0
        }
        Err(why) => {
            say!("{why}\nTest failed\n");
            1
        }
    }
}

/// What went wrong.
enum Wrong {
    Refused(Error),
    Result { is: usize, expected: usize },
    Target { parameter: usize },
    Guard { parameter: usize },
}

fn run(functions: usize, iterations: usize, random: &mut Random) -> Result<(), Wrong> {
    let mut memory = Memory::new()?;
    if functions & 1 != 0 {
        let pal = memory.register(integers as *const (), &[integer(); COUNT])?;
        repeat(iterations, || {
            let words: [usize; COUNT] = core::array::from_fn(|_| random.number() as usize & !IN_PAL);
            let expected = weighed(words.into_iter().zip(1..));
            let mut passed = words;
            passed[0] |= IN_PAL;
            // SAFETY: integers alone.
            compare(unsafe { pal.call(&passed)? }, expected)
        })?;
        pal.unregister()?;
    }
    if functions & 2 != 0 {
        let pal = memory.register(pointers as *const (), &[pointer(1); COUNT])?;
        repeat(iterations, || {
            let mut targets: [Array; COUNT] = core::array::from_fn(|_| Array::random(random, 1));
            targets[0].words[0] |= IN_PAL;
            let expected = weighed(targets.iter().map(|target| target.words[0] & !IN_PAL).zip(1..));
            let words = targets.each_mut().map(Array::address);
            // SAFETY: each is a pointer to an array of at least one word.
            compare(unsafe { pal.call(&words)? }, expected)?;
            targets.iter().enumerate().try_for_each(|(index, target)| target.check(index))
        })?;
        pal.unregister()?;
    }
    if functions & 4 != 0 {
        repeat(iterations, || sized_arrays(&mut memory, random))?;
    }
    Ok(())
}

/// Does it as often as asked for, with a dot each time.
fn repeat(iterations: usize, mut work: impl FnMut() -> Result<(), Wrong>) -> Result<(), Wrong> {
    let mut done = 0;
    let outcome = (0..iterations).try_for_each(|_| {
        work()?;
        done += 1;
        Ok(())
    });
    // Together: a write for each would take longer than the calls.
    say!("{:.<1$}", "", done);
    outcome
}

fn sized_arrays(memory: &mut Memory, random: &mut Random) -> Result<(), Wrong> {
    let mut targets: [Array; COUNT / 2] = core::array::from_fn(|_| {
        let count = 1 + random.below(ARRAY_WORDS);
        Array::random(random, count)
    });
    let parameters: [ParameterRecord; COUNT] = core::array::from_fn(|index| match index % 2 {
        0 => integer(),
        _ => pointer(targets[index / 2].count as u64),
    });
    let weights = (1..).zip(&targets);
    let expected =
        weighed(weights.flat_map(|(weight, target)| target.used().iter().map(move |&word| (word, weight))));
    let mut words: [usize; COUNT] = core::array::from_fn(|index| match index % 2 {
        0 => targets[index / 2].count,
        _ => targets[index / 2].address(),
    });
    words[0] |= IN_PAL;
    let pal = memory.register(arrays as *const (), &parameters)?;
    // SAFETY: each pointer is to as many words as the list says.
    compare(unsafe { pal.call(&words)? }, expected)?;
    pal.unregister()?;
    targets.iter().enumerate().try_for_each(|(index, target)| target.check(2 * index + 1))
}

/// Words that a pointer names, with guards around them and what they were before the call.
#[repr(C)]
struct Array {
    before: usize,
    words: [usize; ARRAY_WORDS + 1],
    old: [usize; ARRAY_WORDS],
    count: usize,
}

impl Array {
    fn random(random: &mut Random, count: usize) -> Self {
        let mut array = Self { before: GUARD, words: [GUARD; ARRAY_WORDS + 1], old: [0; ARRAY_WORDS], count };
        for (word, old) in array.words.iter_mut().zip(&mut array.old).take(count) {
            *word = random.number() as usize & !IN_PAL;
            *old = *word;
        }
        array
    }

    fn address(&mut self) -> usize {
        self.words.as_mut_ptr().expose_provenance()
    }

    fn used(&self) -> &[usize] {
        &self.words[..self.count]
    }

    /// Whether each word is one more than it was, and nothing around them has changed.
    fn check(&self, parameter: usize) -> Result<(), Wrong> {
        let is_one_more = |(word, old): (&usize, &usize)| word & !IN_PAL == old.wrapping_add(1);
        if !self.used().iter().zip(&self.old).all(is_one_more) {
            return Err(Wrong::Target { parameter });
        }
        let is_untouched = self.before == GUARD && self.words[self.count..].iter().all(|&word| word == GUARD);
        if is_untouched { Ok(()) } else { Err(Wrong::Guard { parameter }) }
    }
}

fn weighed(numbers: impl Iterator<Item = (usize, usize)>) -> usize {
    numbers.fold(0, |sum: usize, (number, weight)| sum.wrapping_add(number.wrapping_mul(weight)))
}

fn compare(is: usize, expected: usize) -> Result<(), Wrong> {
    if is == expected { Ok(()) } else { Err(Wrong::Result { is, expected }) }
}

impl From<Error> for Wrong {
    fn from(why: Error) -> Self {
        Self::Refused(why)
    }
}

impl core::fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Refused(why) => write!(formatter, "Error: {why}"),
            Self::Result { is, expected } => {
                write!(formatter, "Error: the PAL returned {is:#x}, expected {expected:#x}")
            }
            Self::Target { parameter } => {
                write!(formatter, "Error: parameter {parameter} did not come back as it should")
            }
            Self::Guard { parameter } => {
                write!(formatter, "Error: memory around parameter {parameter} was changed")
            }
        }
    }
}
