//! Checks of a VM entry over the bytes of a VMCS12.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime::model::checks(input));
