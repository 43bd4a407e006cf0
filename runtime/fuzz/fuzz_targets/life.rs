//! A life of VMCSs: VMREAD, VMWRITE, VMPTRLD, VMCLEAR, entries and exits.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime::model::life(input));
