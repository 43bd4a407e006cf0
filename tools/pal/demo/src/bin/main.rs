//! `main A B`, both hexadecimal: the same function called as it is and as a PAL, which has to make no difference.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a PAL's pointers")]
// UNSAFETY: the one pointer is to a word, as the parameter list says.

use pal_demo::arguments::{Arguments, hexadecimal};
use pal_demo::functions::{IN_PAL, my_pal};
use pal_demo::say;
use pal_demo::sections::Memory;
use xmhf_pal::Error;
use xmhf_pal::argument::{integer, pointer};

pal_demo::program!(main);

fn main(arguments: Arguments) -> u32 {
    let words = arguments.exactly().and_then(|[a, b]| Some((hexadecimal(a)?, hexadecimal(b)?)));
    let Some((a, b)) = words else {
        say!("usage: main A B, hexadecimal\n");
        return 1;
    };
    let a = a & !IN_PAL;
    // SAFETY: the pointer is to a word.
    let without = show("Without PAL:", a, b, |number| Ok(unsafe { my_pal(a, number) }));
    let with = show("With PAL:", a, b, |number| as_pal(a, number));
    match (without, with) {
        (Ok(without), Ok(with)) if without == with => 0,
        (Ok(_), Ok(_)) => {
            say!("Error: the PAL gives another result\n");
            1
        }
        (Err(why), _) | (_, Err(why)) => {
            say!("Error: {why}\n");
            1
        }
    }
}

/// Prints one block, and gives the result and the number afterwards.
fn show(
    title: &str,
    a: usize,
    b: usize,
    run: impl FnOnce(&mut usize) -> Result<usize, Error>,
) -> Result<(usize, usize), Error> {
    let mut number = b;
    say!("{title}\n {number:#x} = *ptr\n");
    let result = run(&mut number)?;
    say!(" {result:#x} = my_pal({a:#x}, ptr)\n {number:#x} = *ptr\n");
    Ok((result, number))
}

fn as_pal(a: usize, number: &mut usize) -> Result<usize, Error> {
    let mut memory = Memory::new()?;
    let pal = memory.register(my_pal as *const (), &[integer(), pointer(1)])?;
    // SAFETY: the pointer is to a word, as the list says.
    let result = unsafe { pal.call(&[a | IN_PAL, (&raw mut *number).expose_provenance()])? };
    pal.unregister()?;
    Ok(result)
}
