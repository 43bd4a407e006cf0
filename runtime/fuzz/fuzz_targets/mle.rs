//! Headers of measured launched environments and page tables, of any bytes.
#![no_main]
use txt::mle_header::MleHeader;
use txt::mle_pages::walk;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok((_, header)) = MleHeader::find(input) {
        let mut bytes = [0; 64];
        let size = header.write(&mut bytes).unwrap();
        assert!(MleHeader::parse(&bytes[..size]) == Ok(header));
    }
    let read = |at: u64| {
        let at = usize::try_from(at).ok()?;
        Some(u64::from_le_bytes(input.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    let mut last = 0;
    let _ = walk(0, 1 << 20, read, |page| {
        assert!(page > last);
        last = page;
    });
});
