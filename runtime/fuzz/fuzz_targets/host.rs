//! Host state after an exit.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime::model::host(input));
