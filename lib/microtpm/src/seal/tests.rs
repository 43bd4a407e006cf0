use super::*;
use crate::bank::Bank;
use crate::bytes::hex;
use crate::deprecated::deprecated_policy;
use crate::pcr::PcrIndex;
use crate::selection::Selection;
use proptest::prelude::*;

const DATA: &[u8] = b"the quick brown fox jumps over the lazy dog";

/// A PAL that is not signed, nor to be debugged.
const PLAIN: Credentials = Credentials { is_debug: false, signer: None };

fn keys() -> SealKeys {
    SealKeys::new(&[0x5a; 32])
}

fn random() -> HmacDrbg {
    HmacDrbg::new(&[b"test"])
}

/// Registers of which the first has been extended once.
fn banks() -> PcrBanks {
    let mut banks = PcrBanks::new();
    banks.extend(PcrIndex::from_number(0).unwrap(), &[0x44; 20]).unwrap();
    banks
}

fn policy(bank: Bank, map: u8) -> Policy {
    Policy::current(Selection { bank, map: Some(map) }, &banks())
}

fn sealed(policy: Option<&Policy>, data: &[u8]) -> Vec<u8> {
    seal(&keys(), &mut random(), &banks(), &PLAIN, policy, true, data).unwrap()
}

fn data_of(blob: &[u8], banks: &PcrBanks) -> Result<Vec<u8>, Error> {
    unseal(&keys(), banks, &PLAIN, blob).map(|unsealed| unsealed.data.to_vec())
}

// The blobs below are made by a script over Python's cryptography, from a root secret of bytes 0x5a.

/// The original's format, bound to nothing.
const ORIGINAL_UNBOUND: &str = "
        000102030405060708090a0b0c0d0e0f68e3fc30ada6a2568d0b98876d392747
        dfb2ece818bfc19225b1f98dfc461d982e5500cc63ed926da6ad412979a0df1c
        1f5be33bd84cc05ed0b853e38ddf249277c93c2e6b9b275608a06eb5fda7c6a7
        ca8e12d3";

/// The original's format, bound to the first register of `banks()`; the digest at creation is all 0xcc.
const ORIGINAL_BOUND: &str = "
        000102030405060708090a0b0c0d0e0f12ea1918dba2c5634bdc440006ec2b90
        fb254632c80fc50aad08228093363ce50d90368869f31168cf43f3b0d2f75fcb
        5f97c5b7d09b46709520e72a4e4b347d50d6c721689c189f600239abf009c3f3
        3aab94546033bdea632e917054782e499ff37d0b3a4c1f9c4603e7c0a59e0030
        873079eb";

/// Ours, bound to nothing.
const CURRENT_UNBOUND: &str = "
        75545002000102030405060708090a0b36ea1372bb17f67ba4a20a83d5ed0bac
        cbdc3d28c214246832e1af303a0dc8f09ea785342e05af8c14ce8149bb89efb3
        e03e92f961b30eacda33ef4d";

/// Ours, bound to the first SHA-256 register; the digest at creation is all 0xcc.
const CURRENT_BOUND: &str = "
        75545002000102030405060708090a0b379ffb1666ed751705d3ee4f49351540
        5f3a0605d62baa2961cb6f7bfb30cda64119b90a8ea81939f86622e2c9fa7ce9
        d30540ba7701efd3099fccb8f32144fc564717be922cf8d7e4ea5dffce6d97a3
        bd6fbb84ef0049a2c5175773bc4ecadf4959b88c669c37af4a290c4f138fd702
        4c0c1f921ae5a588fac2dba3d0b2db";

#[test]
fn blobs_of_the_originals_format_open() {
    let unsealed = unseal(&keys(), &PcrBanks::new(), &PLAIN, &hex(ORIGINAL_UNBOUND)).unwrap();
    assert_eq!((&unsealed.data[..], unsealed.digest_at_creation), (DATA, [0; 20]));
    let unsealed = unseal(&keys(), &banks(), &PLAIN, &hex(ORIGINAL_BOUND)).unwrap();
    assert_eq!((&unsealed.data[..], unsealed.digest_at_creation), (DATA, [0xcc; 20]));
    assert_eq!(data_of(&hex(ORIGINAL_BOUND), &PcrBanks::new()), Err(Error::Other));
}

#[test]
fn blobs_that_were_made_elsewhere_open() {
    assert_eq!(data_of(&hex(CURRENT_UNBOUND), &PcrBanks::new()).unwrap(), DATA);
    let unsealed = unseal(&keys(), &banks(), &PLAIN, &hex(CURRENT_BOUND)).unwrap();
    assert_eq!((&unsealed.data[..], unsealed.digest_at_creation), (DATA, [0xcc; 20]));
    assert_eq!(data_of(&hex(CURRENT_BOUND), &PcrBanks::new()), Err(Error::Other));
}

#[test]
fn no_bit_of_a_blob_can_change() {
    let bound = sealed(Some(&policy(Bank::Sha256, 1)), DATA);
    for blob in [hex(ORIGINAL_BOUND), hex(ORIGINAL_UNBOUND), bound, sealed(None, DATA)] {
        for bit in 0..8 * blob.len() {
            let mut changed = blob.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(data_of(&changed, &banks()), Err(Error::BadParameter), "bit {bit}");
        }
        for length in 0..blob.len() {
            assert_eq!(data_of(&blob[..length], &banks()), Err(Error::BadParameter), "{length} bytes");
        }
        assert_eq!(data_of(&[&blob[..], &[0; 16]].concat(), &banks()), Err(Error::BadParameter));
    }
}

#[test]
fn another_machine_does_not_open_a_blob() {
    let other = SealKeys::new(&[0x5b; 32]);
    for blob in [hex(ORIGINAL_BOUND), sealed(None, DATA), sealed(Some(&policy(Bank::Sha1, 1)), DATA)] {
        assert_eq!(unseal(&other, &banks(), &PLAIN, &blob), Err(Error::BadParameter));
    }
}

#[test]
fn the_digest_at_creation_is_of_the_registers_selected_then() {
    let mut later = banks();
    later.extend(PcrIndex::from_number(3).unwrap(), &[1; 20]).unwrap();
    for bank in [Bank::Sha1, Bank::Sha256] {
        let selection = Selection { bank, map: Some(0b1001) };
        let release = Policy::current(selection, &later);
        let blob = seal(&keys(), &mut random(), &banks(), &PLAIN, Some(&release), true, DATA).unwrap();
        assert_eq!(data_of(&blob, &banks()), Err(Error::Other));
        let unsealed = unseal(&keys(), &later, &PLAIN, &blob).unwrap();
        assert_eq!(unsealed.digest_at_creation[..], selection.composite_digest(&banks())[..20]);
    }
}

/// The same sections under two headers: the SHA-1 bank cannot tell them apart.
fn twins() -> [PcrBanks; 2] {
    let mut section = crate::SectionMeasurement::new(1, 0x1000, 4096);
    section.update(&[0xc3; 4096]);
    [1, 2].map(|byte| PcrBanks::measured(&[byte; 32], [section.clone().finish()]))
}

#[test]
fn what_sha_1_does_not_say_binds_what_is_sealed_by_it() {
    let [one, other] = twins();
    let first = Selection { bank: Bank::Sha1, map: Some(1) };
    assert_eq!(first.composite_digest(&one), first.composite_digest(&other));
    for (policy, with_creation) in
        [(Policy::current(first, &one), true), (deprecated_policy(&one, None), false)]
    {
        let blob = seal(&keys(), &mut random(), &one, &PLAIN, Some(&policy), with_creation, DATA).unwrap();
        assert_eq!(data_of(&blob, &one).unwrap(), DATA);
        assert_eq!(data_of(&blob, &other), Err(Error::Other));
        let unsealed = unseal(&keys(), &one, &PLAIN, &blob).unwrap();
        assert_eq!(unsealed.digest_at_creation[..], first.composite_digest(&one)[..]);
    }
}

#[test]
fn data_is_a_pals_own_only_where_that_pal_sealed_it() {
    let [one, other] = twins();
    for bank in [Bank::Sha1, Bank::Sha256] {
        let select = |map| Selection { bank, map: Some(map) };
        let is_own = |sealer: &PcrBanks, policy: &Policy| {
            let blob = seal(&keys(), &mut random(), sealer, &PLAIN, Some(policy), true, DATA).unwrap();
            unseal(&keys(), &one, &PLAIN, &blob).map(|unsealed| unsealed.is_own)
        };
        assert_eq!(is_own(&one, &Policy::current(select(1), &one)), Ok(true));
        assert_eq!(is_own(&one, &Policy::current(select(0b11), &one)), Ok(true));
        // Without register 0 anybody's registers are alike.
        assert_eq!(is_own(&one, &Policy::current(select(0b10), &one)), Ok(false));
        let expected = if bank == Bank::Sha1 { Err(Error::Other) } else { Ok(false) };
        assert_eq!(is_own(&other, &Policy::current(select(1), &one)), expected);
        let mut stranger = PcrBanks::new();
        stranger.extend(PcrIndex::from_number(0).unwrap(), &[3; 20]).unwrap();
        assert_eq!(is_own(&stranger, &Policy::current(select(1), &one)), Ok(false));
    }
    assert!(!unseal(&keys(), &one, &PLAIN, &sealed(None, DATA)).unwrap().is_own);
    assert!(!unseal(&keys(), &banks(), &PLAIN, &hex(ORIGINAL_BOUND)).unwrap().is_own);
}

#[test]
fn a_blob_is_no_longer_than_the_originals_was() {
    // IV, TPM_PCR_INFO or u16, length, data, padding, MAC.
    let original = |info: usize, data: usize| (16 + info + 4 + data).next_multiple_of(16) + 20;
    // Confounder, MAC, register, length, data, padding.
    let deprecated = |data: usize| (20 + 20 + 20 + 4 + data).next_multiple_of(16);
    for length in 0..100 {
        let data = vec![1; length];
        assert!(sealed(None, &data).len() <= original(2, length));
        assert!(sealed(Some(&policy(Bank::Sha1, 1)), &data).len() <= original(43, length));
        let first = deprecated_policy(&banks(), None);
        let blob = seal(&keys(), &mut random(), &banks(), &PLAIN, Some(&first), false, &data).unwrap();
        assert!(blob.len() <= deprecated(length));
        assert_eq!(data_of(&blob, &banks()).unwrap(), data);
    }
}

#[test]
fn data_and_blobs_have_limits() {
    let most = vec![0; SEAL_BYTES_LIMIT];
    let blob = sealed(Some(&policy(Bank::Sha256, 0xff)), &most);
    assert!(blob.len() <= BLOB_BYTES_LIMIT);
    assert_eq!(data_of(&blob, &banks()).unwrap(), most);
    let more = vec![0; SEAL_BYTES_LIMIT + 1];
    assert_eq!(seal(&keys(), &mut random(), &banks(), &PLAIN, None, true, &more), Err(Error::BadParameter));
    let to_signer = |data: &[u8]| seal_to_signer(&keys(), &mut random(), &banks(), &signed(1, 7, 3), 3, data);
    let blob = to_signer(&most).unwrap();
    assert!(blob.len() <= BLOB_BYTES_LIMIT);
    assert_eq!(opens(&blob, &signed(1, 7, 3)).unwrap().data[..], most);
    assert_eq!(to_signer(&more), Err(Error::BadParameter));
    assert_eq!(data_of(&vec![0; BLOB_BYTES_LIMIT + 1], &banks()), Err(Error::BadParameter));
    assert_eq!(data_of(&sealed(None, &[]), &banks()).unwrap(), []);
}

#[test]
fn a_blob_opens_up_to_the_limit_however_it_was_sealed() {
    assert_eq!((SEAL_BYTES_LIMIT, BLOB_BYTES_LIMIT), (16384, 16512));
    let of_length = |length: usize| {
        let around = current::seal(&keys(), &mut random(), false, None, &[]).unwrap().len();
        current::seal(&keys(), &mut random(), false, None, &vec![7; length - around]).unwrap()
    };
    let (longest, longer) = (of_length(BLOB_BYTES_LIMIT), of_length(BLOB_BYTES_LIMIT + 1));
    assert_eq!((longest.len(), longer.len()), (BLOB_BYTES_LIMIT, BLOB_BYTES_LIMIT + 1));
    assert!(data_of(&longest, &banks()).is_ok());
    assert_eq!(data_of(&longer, &banks()), Err(Error::BadParameter));
}

#[test]
fn equal_data_makes_unequal_blobs() {
    let mut random = random();
    let mut blob = || seal(&keys(), &mut random, &banks(), &PLAIN, None, true, DATA).unwrap();
    assert_ne!(blob(), blob());
}

proptest! {
    #[test]
    fn what_is_sealed_unseals_for_the_same_registers_alone(
        data in proptest::collection::vec(any::<u8>(), 0..600),
        sha256: bool,
        map: u8,
        extended in 0_u64..8,
        bound: bool,
    ) {
        let bank = if sha256 { Bank::Sha256 } else { Bank::Sha1 };
        let policy = policy(bank, map);
        let blob = sealed(bound.then_some(&policy), &data);
        prop_assert_eq!(data_of(&blob, &banks()).unwrap(), data.clone());
        let mut changed = banks();
        changed.extend(PcrIndex::from_number(extended).unwrap(), &[9; 20]).unwrap();
        let expected = if bound && map >> extended & 1 == 1 { Err(Error::Other) } else { Ok(data) };
        prop_assert_eq!(data_of(&blob, &changed), expected);
    }

    #[test]
    fn what_was_never_sealed_does_not_unseal(mut blob: Vec<u8>, tagged: bool) {
        if tagged {
            blob.splice(0..0, *b"uTP\x02");
        }
        prop_assert_eq!(data_of(&blob, &banks()), Err(Error::BadParameter));
    }
}

fn signed(byte: u8, product: u32, version: u32) -> Credentials {
    Credentials { is_debug: false, signer: Some(Signer::new(&[byte; 32], product, version)) }
}

fn sealed_to_signer(credentials: &Credentials, minimum: u32) -> Result<Vec<u8>, Error> {
    seal_to_signer(&keys(), &mut random(), &banks(), credentials, minimum, DATA)
}

/// Other code of the same signer's: nothing in its registers is the first one's.
fn opens(blob: &[u8], credentials: &Credentials) -> Result<Unsealed, Error> {
    unseal(&keys(), &PcrBanks::new(), credentials, blob)
}

#[test]
fn data_for_a_signer_opens_for_its_product_from_a_version_on() {
    let blob = sealed_to_signer(&signed(1, 7, 3), 2).unwrap();
    assert!(blob.len() <= DATA.len() + 128);
    for version in [2, 3, 4, u32::MAX] {
        let unsealed = opens(&blob, &signed(1, 7, version)).unwrap();
        assert_eq!((&unsealed.data[..], unsealed.is_own), (DATA, true), "version {version}");
        let maker = Selection { bank: Bank::Sha256, map: Some(1) }.composite_digest(&banks());
        assert_eq!(unsealed.digest_at_creation[..], maker[..20]);
    }
    for other in [signed(1, 7, 1), signed(1, 7, 0), signed(1, 8, 3), signed(2, 7, 3), PLAIN] {
        assert_eq!(opens(&blob, &other), Err(Error::Other), "{other:?}");
    }
}

#[test]
fn nobody_seals_for_a_later_version_or_without_a_signer() {
    assert_eq!(sealed_to_signer(&signed(1, 7, 3), 4), Err(Error::BadParameter));
    assert!(sealed_to_signer(&signed(1, 7, 3), 3).is_ok());
    assert_eq!(sealed_to_signer(&PLAIN, 0), Err(Error::NotSigned));
}

#[test]
fn a_pal_to_be_debugged_opens_nothing_of_others_nor_they_of_it() {
    let of = |is_debug| Credentials { is_debug, ..signed(1, 7, 3) };
    let (current, sha1) = (policy(Bank::Sha256, 1), policy(Bank::Sha1, 1));
    // Of the SHA-1 bank, for the registers of another PAL: the very same for one with another header.
    let other = Policy { digest_at_release: Digest::from_iter([9; 20]), ..sha1.clone() };
    let mut blobs = vec![(false, hex(ORIGINAL_UNBOUND)), (false, hex(ORIGINAL_BOUND))];
    for is_debug in [false, true] {
        for policy in [None, Some(&current), Some(&sha1), Some(&other)] {
            for with_creation in [false, true] {
                let credentials = &of(is_debug);
                let blob =
                    seal(&keys(), &mut random(), &banks(), credentials, policy, with_creation, DATA).unwrap();
                blobs.push((is_debug, blob));
            }
        }
        blobs.push((is_debug, sealed_to_signer(&of(is_debug), 1).unwrap()));
    }
    let mut opened = 0;
    for (is_debug, blob) in blobs {
        opened += usize::from(unseal(&keys(), &banks(), &of(is_debug), &blob).is_ok());
        assert_eq!(unseal(&keys(), &banks(), &of(!is_debug), &blob), Err(Error::Other));
    }
    // All but the two pairs for the other PAL.
    assert_eq!(opened, 16);
}
