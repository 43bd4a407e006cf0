use super::expected::Section;
use super::*;
use microtpm::{Identity, PcrBanks, PcrIndex, Selection, quote};
use std::sync::LazyLock;
use std::task::Poll;

/// An identity whose key is found, which takes long.
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let mut identity = Identity::new(&[0x5a; 32]);
    in_the_end(|| identity.public_key());
    identity
});

fn in_the_end<T>(mut poll: impl FnMut() -> Poll<T>) -> T {
    loop {
        if let Poll::Ready(result) = poll() {
            return result;
        }
    }
}

fn key() -> PublicKey {
    in_the_end(|| IDENTITY.clone().public_key())
}

fn sections() -> Vec<Section> {
    let section = |kind, start, byte| Section { kind, start, contents: vec![byte; 4096] };
    vec![section(1, 0x1000, 0xc3), section(3, 0, 0), section(4, 0, 0)]
}

fn pal(sections: &[Section]) -> Pal {
    let parameters = vec![(1, 0)];
    Pal { word_bytes: 8, entry: 0x1000, flags: 1, parameters, sections: sections.to_vec() }
}

fn question(bank: Bank) -> Question {
    let nonce = vec![7; bank.digest_bytes()];
    Question { key: key(), nonce, pal: pal(&sections()), signed: None, others: Vec::new() }
}

/// What a PAL of these sections answers, after it has extended register 1 where `extended`.
fn answer(bank: Bank, sections: &[Section], map: u8, extended: bool) -> QuoteFile {
    answer_of(bank, &pal(sections), map, extended)
}

fn answer_of(bank: Bank, pal: &Pal, map: u8, extended: bool) -> QuoteFile {
    let digests = pal.sections.iter().map(Section::digests);
    let mut banks = PcrBanks::measured(&pal.header_digest(), digests);
    if extended {
        banks.extend(PcrIndex::from_number(1).unwrap(), &[1; 20]).unwrap();
    }
    let (selection, nonce) = (Selection { bank, map: Some(map) }, question(bank).nonce);
    let (mut identity, is_debug) = (IDENTITY.clone(), pal.flags & DEBUG != 0);
    let quote = in_the_end(|| quote(&mut identity, &banks, selection, &nonce, is_debug)).unwrap();
    QuoteFile { selection, quote, nonce: nonce.into_iter().collect() }
}

fn why_not(question: &Question, file: &QuoteFile) -> String {
    question.check(file).unwrap_err().to_string()
}

#[test]
fn a_good_quote_is_good_in_either_bank() {
    for bank in [Bank::Sha1, Bank::Sha256] {
        let lines = question(bank).check(&answer(bank, &sections(), 0b11, false)).unwrap();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(lines[3].contains(name(bank)), "{lines:?}");
    }
}

#[test]
fn a_quote_by_anybodys_key_is_not_called_proved() {
    let lines = question(Bank::Sha256).check(&answer(Bank::Sha256, &sections(), 1, false)).unwrap();
    assert!(lines[0].starts_with("NOT PROVED: nothing vouches for the key"), "{lines:?}");
}

#[test]
fn a_pal_to_be_debugged_passes_only_where_that_is_asked() {
    for bank in [Bank::Sha1, Bank::Sha256] {
        let debug = Pal { flags: 1 | DEBUG, ..pal(&sections()) };
        let file = answer_of(bank, &debug, 1, false);
        assert!(why_not(&question(bank), &file).contains("registered to be debugged"));
        let asked = Question { pal: debug, ..question(bank) };
        assert!(asked.check(&file).unwrap()[1].contains("to be debugged"));
        assert!(why_not(&asked, &answer(bank, &sections(), 1, false)).contains("is not to be debugged"));
    }
}

#[test]
fn the_signer_is_named_where_its_signature_is_good() {
    let secret = ed25519_dalek::SigningKey::from_bytes(&[0x21; 32]);
    let mut header = SignedHeader {
        flags: 1,
        product: 7,
        version: 3,
        stack_pages: 1,
        measurement: pal(&sections()).measurement(),
        public_key: secret.verifying_key().to_bytes(),
        signature: [0; 64],
    };
    header.signature = ed25519_dalek::Signer::sign(&secret, &header.signed_bytes()).to_bytes();
    let asked = |signed| Question { signed: Some(signed), ..question(Bank::Sha256) };
    let file = answer(Bank::Sha256, &sections(), 1, false);
    let lines = asked(header).check(&file).unwrap();
    let expected = format!("signer: {}, product 7, security version 3", hex(&header.public_key));
    assert!(lines.contains(&expected), "{lines:?}");
    let raised = SignedHeader { version: 4, ..header };
    assert!(why_not(&asked(raised), &file).contains("not its signer's"));
    let other = SignedHeader { measurement: [1; 32], ..header };
    assert!(why_not(&asked(other), &file).contains("other parameters or flags"));
}

#[test]
fn what_the_sections_do_not_say_is_told_by_the_larger_bank() {
    let others = [
        Pal { entry: 0x1004, ..pal(&sections()) },
        Pal { flags: 0, ..pal(&sections()) },
        Pal { parameters: Vec::new(), ..pal(&sections()) },
        Pal { word_bytes: 4, ..pal(&sections()) },
    ];
    for other in others {
        let why = why_not(&question(Bank::Sha256), &answer_of(Bank::Sha256, &other, 1, false));
        assert!(why.contains("register 0 is"), "{why}");
        assert!(question(Bank::Sha1).check(&answer_of(Bank::Sha1, &other, 1, false)).is_ok(), "{other:?}");
    }
    let unknown = Question { pal: Pal { entry: 0, ..pal(&sections()) }, ..question(Bank::Sha256) };
    let why = why_not(&unknown, &answer(Bank::Sha256, &sections(), 1, false));
    assert!(why.contains("entry ADDRESS"), "{why}");
}

#[test]
fn parameters_are_integers_and_pointers() {
    let read = |texts: &[&str]| parameters(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(read(&["integer", "pointer=128"]).unwrap(), [(1, 0), (2, 128)]);
    assert!(["pointer", "pointer=x", "word"].iter().all(|text| read(&[text]).is_err()));
}

#[test]
fn a_forged_quote_is_told_from_an_old_one() {
    let file = answer(Bank::Sha1, &sections(), 1, false);
    let mut changed = file.clone();
    changed.quote.signature[9] ^= 1;
    assert!(why_not(&question(Bank::Sha1), &changed).contains("signature is not this key's"));
    let mut changed = file.clone();
    *changed.quote.composite.last_mut().unwrap() ^= 1;
    assert!(why_not(&question(Bank::Sha1), &changed).contains("signature is not this key's"));
    let other = Question { key: PublicKey { modulus: [0xff; 256] }, ..question(Bank::Sha1) };
    assert!(why_not(&other, &file).contains("signature is not this key's"));
    let later = Question { nonce: vec![8; 20], ..question(Bank::Sha1) };
    assert!(why_not(&later, &file).contains("answers another nonce, 0707"));
}

#[test]
fn another_pal_is_told_with_its_section() {
    let mut filled = sections();
    filled[2].contents.fill(0x90);
    let why = why_not(&question(Bank::Sha256), &answer(Bank::Sha256, &filled, 1, false));
    assert!(why.contains("section 3 (stack, 1 page) was full of 0x90"), "{why}");
    let mut patched = sections();
    patched[0].contents[0] = 0x90;
    let why = why_not(&question(Bank::Sha1), &answer(Bank::Sha1, &patched, 1, false));
    assert!(why.contains("no single change explains it") && why.contains("code at 0x1000"), "{why}");
}

#[test]
fn a_quote_without_the_first_register_says_nothing_of_the_pal() {
    let why = why_not(&question(Bank::Sha1), &answer(Bank::Sha1, &sections(), 0b10, false));
    assert!(why.contains("leaves register 0 out"), "{why}");
}

#[test]
fn other_registers_are_zero_or_as_given() {
    let file = answer(Bank::Sha1, &sections(), 0b11, true);
    let why = why_not(&question(Bank::Sha1), &file);
    assert!(why.contains("register 1 is") && why.contains("--pcr"), "{why}");
    let value = file.value(1).unwrap();
    let given = register(&format!("1={}", hex(value))).unwrap();
    assert!(Question { others: vec![given], ..question(Bank::Sha1) }.check(&file).is_ok());
    assert!(register("8=00").is_err() && register("1").is_err() && register("1=0").is_err());
}

#[test]
fn the_command_reads_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("pal"), "entry 1000\ncode 1000 1 fill=c3\nparameters 0 1 zero\nstack 0 1 zero\n")
        .unwrap();
    std::fs::write(path("quote"), answer(Bank::Sha256, &sections(), 1, false).to_bytes()).unwrap();
    std::fs::write(path("key"), key().to_der()).unwrap();
    let arguments = VerifyArguments {
        pal: path("pal"),
        quote: path("quote"),
        nonce: "07".repeat(32),
        key: path("key"),
        registers: Vec::new(),
        parameters: vec!["integer".into()],
        flags: None,
    };
    assert_eq!(verify(&arguments).unwrap(), UNVOUCHED);
    let other = VerifyArguments { parameters: Vec::new(), ..arguments.clone() };
    assert!(format!("{:#}", verify(&other).unwrap_err()).contains("register 0 is"));
    for (name, words) in [("quote", "is no quote"), ("key", "is no RSA key"), ("pal", "names no section")] {
        let old = std::fs::read(path(name)).unwrap();
        std::fs::write(path(name), "").unwrap();
        let error = format!("{:#}", verify(&arguments).unwrap_err());
        assert!(error.contains(words), "{error}");
        std::fs::write(path(name), old).unwrap();
    }
    let odd = VerifyArguments { nonce: "7".into(), ..arguments };
    assert!(format!("{:#}", verify(&odd).unwrap_err()).contains("--nonce"));
}
