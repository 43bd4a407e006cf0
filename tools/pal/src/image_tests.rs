//! Small files made by hand.

use super::*;

const EXECUTE: u32 = 5;
const WRITE: u32 = 6;

/// An ELF64 file with segments (flags, address, size in memory, content).
fn file(entry: u64, segments: &[(u32, u64, u64, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56 * segments.len()];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    bytes[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    bytes[24..32].copy_from_slice(&entry.to_le_bytes());
    bytes[32] = 64;
    bytes[52..58].copy_from_slice(&[64, 0, 56, 0, u8::try_from(segments.len()).unwrap(), 0]);
    for (index, (flags, address, size, content)) in segments.iter().enumerate() {
        let at = 64 + 56 * index;
        let fields = [bytes.len() as u64, *address, *address, content.len() as u64, *size, 4096];
        bytes[at] = 1;
        bytes[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
        for (place, field) in fields.into_iter().enumerate() {
            bytes[at + 8 + 8 * place..][..8].copy_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(content);
    }
    bytes
}

#[test]
fn segments_become_sections_by_their_rights() {
    let file =
        file(0x6000_0010, &[(EXECUTE, 0x6000_0000, 0x1001, b"code"), (WRITE, 0x6000_2000, 0x20, b"data")]);
    let image = Image::parse(&file).unwrap();
    let segments: Vec<_> = image.segments().collect();
    let code = Segment { kind: SectionType::Code, start: 0x6000_0000, pages: 2, bytes: b"code" };
    let data = Segment { kind: SectionType::Data, start: 0x6000_2000, pages: 1, bytes: b"data" };
    assert_eq!(segments, [code, data]);
    assert_eq!((image.entry, image.start(), image.end()), (0x6000_0010, 0x6000_0000, 0x6000_3000));
    assert_eq!(image.word_size, WordSize::Bits64);
}

#[test]
fn a_signed_header_is_found_behind_the_rest() {
    let mut file = file(0x1000, &[(EXECUTE, 0x1000, 0x1000, b"code")]);
    let image = Image::parse(&file).unwrap();
    assert_eq!((image.signed, image.stack_pages()), (None, 4));
    let header = SignedHeader {
        flags: 1,
        product: 2,
        version: 3,
        stack_pages: 9,
        measurement: [4; 32],
        public_key: [5; 32],
        signature: [6; 64],
    };
    file.extend_from_slice(&header.to_bytes());
    let image = Image::parse(&file).unwrap();
    assert_eq!((image.signed, image.stack_pages()), (Some(header), 9));
    assert_eq!((image.start(), image.end(), image.segments().count()), (0x1000, 0x2000, 1));
    file.push(0);
    assert_eq!(Image::parse(&file).unwrap().signed, None);
}

#[test]
fn files_that_make_no_pal_are_told_apart() {
    let error = |entry, segments: &[_]| Image::parse(&file(entry, segments)).unwrap_err();
    assert_eq!(Image::parse(b"#!/bin/sh").unwrap_err(), ImageError::NotExecutable);
    assert_eq!(error(0x1000, &[]), ImageError::SegmentCount);
    assert_eq!(error(0x9000, &[(EXECUTE, 0x1000, 1, b"x")]), ImageError::Entry);
    let unaligned = ImageError::Segment { address: 0x1010 };
    assert_eq!(error(0x1010, &[(EXECUTE, 0x1010, 1, b"x")]), unaligned);
    assert_eq!(error(0x1000, &[(7, 0x1000, 1, b"x")]), ImageError::Segment { address: 0x1000 });
    let overlap = [(EXECUTE, 0x1000, 0x2000, b"x".as_slice()), (WRITE, 0x2000, 1, b"y")];
    assert_eq!(error(0x1000, &overlap), ImageError::Segment { address: 0x2000 });
    let huge = [(EXECUTE, 0x1000, u64::MAX, b"x".as_slice())];
    assert_eq!(error(0x1000, &huge), ImageError::Segment { address: 0x1000 });
    let many: Vec<_> = (1..=9).map(|page| (EXECUTE, page * 0x1000, 1, b"x".as_slice())).collect();
    assert_eq!(error(0x1000, &many), ImageError::SegmentCount);
}

#[test]
fn parameters_get_the_pages_that_their_layout_takes() {
    use crate::argument::{integer, pointer};
    let pages = |parameters: &[_]| parameter_pages(parameters, WordSize::Bits64);
    assert_eq!((pages(&[]), pages(&[integer(); 64])), (1, 1));
    // 16 + 24 + 8 * 507 is a page.
    assert_eq!((pages(&[pointer(507)]), pages(&[pointer(508)])), (1, 2));
    assert_eq!(pages(&[pointer(u64::MAX); 2]), u32::MAX);
}
