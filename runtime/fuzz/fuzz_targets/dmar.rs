//! The table of DMA-remapping hardware, of any bytes.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| platform::acpi::dmar::check_any(input));
