//! Authenticated code modules of any bytes.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(acm) = txt::acm::Acm::parse(input) {
        assert!(acm.bytes().len() + acm.padding() == input.len());
        assert!(acm.chipsets().iter().count() == acm.chipsets().len());
        assert!(acm.masked_chipsets().iter().count() == acm.masked_chipsets().len());
        acm.processors().inspect(|list| assert!(list.iter().count() == list.len()));
        acm.tpm().inspect(|tpm| assert!(tpm.algorithms().count() * 2 <= input.len()));
    }
});
