//! Version 1 of a till: it adds, and has the fault that its sum wraps.
#![no_std]
#![no_main]

mod till_data;

xmhf_pal::entry! {
    fn till(command: u32, number: u32, bytes: &mut [u8; 256]) -> usize {
        till_data::answer(command, number, bytes, u32::wrapping_add)
    }
}
