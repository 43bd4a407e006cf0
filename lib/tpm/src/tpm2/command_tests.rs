//! Each command's bytes, and what is taken from its answer (TPM 2.0 Library part 3).

use super::*;

/// An empty password for one handle, behind its size.
const PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
const OWNER: [u8; 4] = [0x40, 0, 0, 1];
const INDEX: u32 = 0x0180_0001;

/// A command with this tag and code.
fn command(tag: u16, code: u32, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let size = 10 + rest.len() as u32;
    [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), &rest].concat()
}

/// Answers `run` by `rest` behind a good answer's header, and gives its result with what it sent.
fn sent<R>(rest: &[u8], with_sessions: bool, run: impl FnOnce(&mut Tpm2<Told>) -> R) -> (R, Vec<u8>) {
    let mut tpm = tpm(&[answer(if with_sessions { 0x8002 } else { 0x8001 }, 0, rest)]);
    let done = run(&mut tpm);
    let [command] = <[Vec<u8>; 1]>::try_from(tpm.into_transport().sent).unwrap();
    (done, command)
}

/// Parameters behind their size, with the session of an empty password.
fn by_session(parameters: &[u8]) -> Vec<u8> {
    [&(parameters.len() as u32).to_be_bytes()[..], parameters, &[0, 0, 1, 0, 0]].concat()
}

#[test]
fn starts_and_stops_say_what_is_kept() {
    for (kind, number) in [(Startup::Clear, 0), (Startup::State, 1)] {
        let expected = |code| (Ok(()), command(0x8001, code, &[&[0, number]]));
        assert_eq!(sent(&[], false, |tpm| tpm.startup(kind)), expected(0x144));
        assert_eq!(sent(&[], false, |tpm| tpm.shutdown(kind)), expected(0x145));
    }
    assert_eq!(
        sent(&[], false, |tpm| tpm.flush(0x0300_0000)),
        (Ok(()), command(0x8001, 0x165, &[&[3, 0, 0, 0]]))
    );
}

#[test]
fn random_bytes_come_in_parts() {
    let part = |length: u8, byte| answer(0x8001, 0, &[&[0, length][..], &vec![byte; length.into()]].concat());
    let mut bytes = [0; 40];
    let mut whole = tpm(&[part(32, 1), part(8, 2)]);
    assert_eq!(whole.random(&mut bytes), Ok(()));
    assert_eq!(bytes, *[[1; 32].as_slice(), &[2; 8]].concat());
    let expected = [32, 8].map(|length| command(0x8001, 0x17b, &[&[0, length]]));
    assert_eq!(whole.into_transport().sent, expected);
    assert_eq!(tpm(&[part(31, 1)]).random(&mut [0; 32]), Err(TpmError::Malformed { command: 0x17b }));
}

#[test]
fn counters_are_defined_counted_read_and_removed() {
    let index = INDEX.to_be_bytes();
    let good = by_session(&[]);
    // TPMA_NV: AUTHWRITE, counter, AUTHREAD, NO_DA.
    let public = [&[0, 14][..], &index, &[0, 0xb, 2, 4, 0, 0x14, 0, 0, 0, 8]].concat();
    let defined = sent(&good, true, |tpm| tpm.counter_define(INDEX));
    assert_eq!(defined, (Ok(()), command(0x8002, 0x12a, &[&OWNER, &PASSWORD, &[0, 0], &public])));
    let removed = sent(&good, true, |tpm| tpm.counter_remove(INDEX));
    assert_eq!(removed, (Ok(()), command(0x8002, 0x122, &[&OWNER, &index, &PASSWORD])));
    let counted = sent(&good, true, |tpm| tpm.counter_increment(INDEX));
    assert_eq!(counted, (Ok(()), command(0x8002, 0x134, &[&index, &index, &PASSWORD])));
    let read = |value: &[u8]| sent(&by_session(value), true, |tpm| tpm.counter_read(INDEX));
    let (value, bytes) = read(&[0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(value, Ok(0x0102_0304_0506_0708));
    assert_eq!(bytes, command(0x8002, 0x14e, &[&index, &index, &PASSWORD, &[0, 8, 0, 0]]));
    for wrong in [&[0, 7, 1, 2, 3, 4, 5, 6, 7][..], &[0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[0, 8, 1]] {
        assert_eq!(read(wrong).0, Err(TpmError::Malformed { command: 0x14e }));
    }
}

#[test]
fn keys_are_made_by_their_attributes() {
    let answer = [&[0x80, 0, 0, 7][..], &by_session(&[])].concat();
    let expected = |attributes: [u8; 4], scheme: &[u8]| {
        let curve = [0, 3, 0, 0x10, 0, 0, 0, 0];
        let size = [0, (10 + scheme.len() + curve.len()) as u8];
        let public = [&size[..], &[0, 0x23, 0, 0xb], &attributes, &[0, 0], scheme, &curve].concat();
        let sensitive = [0, 4, 0, 0, 0, 0];
        command(0x8002, 0x131, &[&OWNER, &PASSWORD, &sensitive, &public, &[0, 0, 0, 0, 0, 0]])
    };
    // TPMA_OBJECT: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted; decrypt or sign.
    let storage = sent(&answer, true, Tpm2::storage_key);
    assert_eq!(
        storage,
        (Ok(Handle(0x8000_0007)), expected([0, 3, 4, 0x72], &[0, 6, 0, 128, 0, 0x43, 0, 0x10]))
    );
    let attestation = sent(&answer, true, Tpm2::attestation_key);
    let scheme = [0, 0x10, 0, 0x18, 0, 0xb];
    assert_eq!(attestation, (Ok(Handle(0x8000_0007)), expected([0, 5, 4, 0x72], &scheme)));
}

#[test]
fn sealed_data_opens_by_its_policy_alone() {
    let policy = Digest::new(Algorithm::Sha256, &[9; 32]).unwrap();
    let parts = by_session(&[0, 3, 1, 2, 3, 0, 2, 4, 5]);
    let (blob, bytes) = sent(&parts, true, |tpm| tpm.seal(Handle(0x8000_0007), &[7, 8], &policy));
    // TPMA_OBJECT: fixedTPM, fixedParent, noDA, and not userWithAuth.
    let public = [&[0, 46, 0, 8, 0, 0xb, 0, 0, 4, 0x12, 0, 32][..], &[9; 32], &[0, 0x10, 0, 0]].concat();
    let rest: [&[u8]; 5] =
        [&[0x80, 0, 0, 7], &PASSWORD, &[0, 6, 0, 0, 0, 2, 7, 8], &public, &[0, 0, 0, 0, 0, 0]];
    assert_eq!(bytes, command(0x8002, 0x153, &rest));
    let blob = blob.unwrap();
    assert_eq!((blob.private(), blob.public()), (&[1, 2, 3][..], &[4, 5][..]));
    assert_eq!(format!("{blob:?}"), "SealedBlob { private: 3, public: 2 }");
    let answer = [&[0x80, 0, 0, 8][..], &by_session(&[])].concat();
    let (handle, bytes) = sent(&answer, true, |tpm| tpm.load(Handle(0x8000_0007), &blob));
    let rest: [&[u8]; 3] = [&[0x80, 0, 0, 7], &PASSWORD, &[0, 3, 1, 2, 3, 0, 2, 4, 5]];
    assert_eq!((handle, bytes), (Ok(Handle(0x8000_0008)), command(0x8002, 0x157, &rest)));
}

#[test]
fn a_blob_is_as_long_as_is_kept() {
    let most = [1; BLOB_LIMIT];
    assert_eq!(SealedBlob::new(&most, &most).unwrap().public(), most);
    assert_eq!(SealedBlob::new(&[0; BLOB_LIMIT + 1], &[]), None);
}

#[test]
fn policies_name_registers_by_a_bit_each() {
    let selection = Selection { algorithm: Algorithm::Sha256, registers: 1 << 17 | 1 << 8 | 1 };
    let expected = Digest::new(Algorithm::Sha256, &[9; 32]).unwrap();
    for (digest, written) in [(None, vec![0, 0]), (Some(&expected), [&[0, 32][..], &[9; 32]].concat())] {
        let done = sent(&[], false, |tpm| tpm.policy_pcr(Session(0x0300_0001), selection, digest));
        let rest: [&[u8]; 3] = [&[3, 0, 0, 1], &written, &[0, 0, 0, 1, 0, 0xb, 3, 1, 1, 2]];
        assert_eq!(done, (Ok(()), command(0x8001, 0x17f, &rest)));
    }
}

#[test]
fn an_event_is_hashed_by_the_tpm_for_each_bank() {
    let digests = [&[0, 0, 0, 2, 0, 4][..], &[1; 20], &[0, 0xb], &[2; 32]].concat();
    let mut told = Vec::new();
    let (done, bytes) =
        sent(&by_session(&digests), true, |tpm| tpm.pcr_event(17, b"MLE", |digest| told.push(digest)));
    let rest: [&[u8]; 3] = [&[0, 0, 0, 17], &PASSWORD, &[0, 3, b'M', b'L', b'E']];
    assert_eq!((done, bytes), (Ok(()), command(0x8002, 0x13c, &rest)));
    let expected = [(Algorithm::Sha1, vec![1; 20]), (Algorithm::Sha256, vec![2; 32])];
    assert_eq!(told, expected.map(|(algorithm, bytes)| Digest::new(algorithm, &bytes).unwrap()));
    let none = by_session(&[0, 0, 0, 0]);
    assert_eq!(sent(&none, true, |tpm| tpm.pcr_event(17, &[0; 1024], |_| ())).0, Ok(()));
    let mut untouched = tpm(&[]);
    assert_eq!(untouched.pcr_event(17, &[0; 1025], |_| ()), Err(TpmError::TooLong));
    assert!(untouched.into_transport().sent.is_empty());
}
