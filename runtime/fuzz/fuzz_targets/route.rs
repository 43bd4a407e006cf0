//! Whose an exit of a guest's guest is.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime::model::route(input));
