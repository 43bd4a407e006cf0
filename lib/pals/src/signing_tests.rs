use super::*;
use crate::fake::{Fake, PAL, PARAMETERS, SECTIONS, whole};
use crate::layout::PAGE;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use trustvisor::flags::ORIGINAL;
use trustvisor::parameter::WordSize;

const MEASUREMENT: [u8; 32] = [0x3c; 32];

fn key() -> SigningKey {
    SigningKey::from_bytes(&[0x11; 32])
}

fn header() -> SignedHeader {
    let mut header = SignedHeader {
        flags: ORIGINAL,
        product: 7,
        version: 3,
        stack_pages: 1,
        measurement: MEASUREMENT,
        public_key: key().verifying_key().to_bytes(),
        signature: [0; 64],
    };
    header.signature = key().sign(&header.signed_bytes()).to_bytes();
    header
}

fn layout() -> Layout {
    whole(&Fake::with_pal(&[]), WordSize::Bits64, [SECTIONS, PARAMETERS, PAL]).unwrap()
}

/// What comes out of a claim, and in how many steps.
fn settled(header: SignedHeader, measurement: &[u8]) -> (Result<Option<Signer>, Status>, usize) {
    let mut signing = Signing::claimed(header, &layout()).unwrap();
    let mut steps = 0;
    while let Some(mut step) = signing.take(measurement) {
        assert!(!signing.is_settled() && signing.take(measurement).is_none(), "one step at a time");
        assert_eq!(signing.signer(), Err(Status::SIGNATURE));
        step.make();
        signing.give(step);
        steps += 1;
    }
    assert!(signing.is_settled());
    (signing.signer(), steps)
}

#[test]
fn a_good_signature_says_who_and_what() {
    let signer = Signer::new(&key().verifying_key().to_bytes(), 7, 3);
    assert_eq!(settled(header(), &MEASUREMENT), (Ok(Some(signer)), 33));
}

#[test]
fn who_is_not_signed_has_no_signer_and_no_steps() {
    let mut signing = Signing::none();
    assert!(signing.is_settled() && signing.take(&MEASUREMENT).is_none());
    assert_eq!(signing.signer(), Ok(None));
}

#[test]
fn another_pal_with_the_same_header_is_forged() {
    assert_eq!(settled(header(), &[0x3d; 32]), (Err(Status::SIGNATURE), 0));
    assert_eq!(settled(header(), &[]), (Err(Status::SIGNATURE), 0));
}

#[test]
fn every_part_of_the_header_is_signed() {
    let changes: [fn(&mut SignedHeader); 5] = [
        |header| header.product += 1,
        |header| header.version += 1,
        |header| header.public_key = SigningKey::from_bytes(&[0x12; 32]).verifying_key().to_bytes(),
        |header| header.signature[5] ^= 1,
        |header| header.signature = [0; 64],
    ];
    for change in changes {
        let mut changed = header();
        change(&mut changed);
        assert_eq!(settled(changed, &MEASUREMENT).0, Err(Status::SIGNATURE), "{changed:?}");
    }
}

#[test]
fn a_header_that_does_not_fit_is_refused_at_once() {
    for unfit in [
        SignedHeader { flags: 0, ..header() },
        SignedHeader { flags: u32::MAX, ..header() },
        SignedHeader { stack_pages: 2, ..header() },
    ] {
        assert_eq!(Signing::claimed(unfit, &layout()).err(), Some(Status::SIGNED_HEADER));
    }
}

#[test]
fn a_header_is_read_from_the_process_or_not() {
    let fake = Fake::with_pal(&[]);
    fake.poke(PARAMETERS, &header().to_bytes());
    assert_eq!(read_header(&fake, PARAMETERS), Ok(header()));
    assert_eq!(read_header(&fake, PARAMETERS + 1), Err(Status::SIGNED_HEADER));
    for address in [0, PAL + 64 * PAGE, PARAMETERS + 2 * PAGE - 159, u64::MAX - 3] {
        assert_eq!(read_header(&fake, address), Err(Status::BAD_ADDRESS), "{address:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a process makes of the bytes: it is refused, or the PAL has no signer.
    #[test]
    fn no_other_header_is_good(place in 0_usize..160, change in 1_u8..) {
        let mut bytes = header().to_bytes();
        bytes[place] ^= change;
        if let Some(changed) = SignedHeader::from_bytes(&bytes)
            && changed.flags == ORIGINAL
            && changed.stack_pages == 1
        {
            prop_assert_eq!(settled(changed, &MEASUREMENT).0, Err(Status::SIGNATURE));
        }
    }
}
