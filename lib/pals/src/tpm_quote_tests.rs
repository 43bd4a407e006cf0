use super::*;
use microtpm::{PublicKey, QuoteInfo};

fn key() -> PublicKey {
    let Poll::Ready(key) = IDENTITY.clone().public_key() else { panic!("it was found") };
    key
}

#[test]
fn a_quote_says_that_a_pal_is_to_be_debugged() {
    let mut machine = ready();
    machine.credentials.is_debug = true;
    machine.put(SELECTION, &Selection { bank: Bank::Sha256, map: Some(1) }.to_bytes());
    assert_eq!(machine.call(Command::QUOTE, [SELECTION, OUTPUT, NONCE, COMPOSITE]), Status::SUCCESS);
    let nonce: Vec<u8> = machine.get(NONCE, 32);
    let is_quote = |is_debug| {
        let nonce = nonce.iter().copied().collect();
        let info = QuoteInfo::new(Bank::Sha256, &machine.get(VALUES, 39), nonce, is_debug).to_bytes();
        key().verifies(Bank::Sha256, &info, &machine.get(RESULT, 256))
    };
    assert!(is_quote(true) && !is_quote(false));
    machine.put_words(SELECTION, &[1, 0]);
    assert_eq!(machine.call(Command::QUOTE_DEPRECATED, [SELECTION, OUTPUT, NONCE, 0]), Status::SUCCESS);
    assert_eq!(machine.get(RESULT, 8), *b"\x01\x01\0\x01QUOT");
}

#[test]
fn a_quote_comes_with_its_composite_or_the_room_they_need() {
    let mut machine = ready();
    let nonce: Vec<u8> = (0..32).collect();
    machine.put(NONCE, &nonce);
    for (bank, composite) in [(Bank::Sha1, 27), (Bank::Sha256, 39)] {
        machine.put(SELECTION, &Selection { bank, map: Some(1) }.to_bytes());
        machine.put_words(OUTPUT_LENGTH, &[255, composite]);
        let arguments = [SELECTION, OUTPUT, NONCE, COMPOSITE];
        assert_eq!(machine.call(Command::QUOTE, arguments), Status::NO_ROOM);
        machine.put_words(OUTPUT_LENGTH, &[256, composite - 1]);
        assert_eq!(machine.call(Command::QUOTE, arguments), Status::NO_ROOM);
        assert_eq!((machine.get_word(OUTPUT_LENGTH), machine.get_word(COMPOSITE_LENGTH)), (256, composite));
        assert_eq!(machine.call(Command::QUOTE, arguments), Status::SUCCESS);
        let nonce = nonce[..bank.digest_bytes()].iter().copied().collect();
        let info = QuoteInfo::new(bank, &machine.get(VALUES, composite as usize), nonce, false);
        assert!(key().verifies(bank, &info.to_bytes(), &machine.get(RESULT, 256)));
    }
}

#[test]
fn the_public_key_and_the_deprecated_quote_name_the_same_key() {
    let mut machine = ready();
    assert_eq!(machine.call(Command::ID_GETPUB, [RESULT, OUTPUT_LENGTH, 0, 0]), Status::SUCCESS);
    let length = machine.get_word(OUTPUT_LENGTH) as usize;
    let public_key = PublicKey::from_bytes(&machine.get(RESULT, length)).unwrap();
    assert_eq!((length, &public_key), (270, &key()));
    machine.put_words(OUTPUT_LENGTH, &[10]);
    assert_eq!(machine.call(Command::ID_GETPUB, [RESULT, OUTPUT_LENGTH, 0, 0]), Status::NO_ROOM);
    assert_eq!(machine.get_word(OUTPUT_LENGTH), 270);

    machine.put_words(SELECTION, &[1, 0]);
    assert_eq!(machine.call(Command::QUOTE_DEPRECATED, [SELECTION, OUTPUT, NONCE, 0]), Status::SUCCESS);
    let quote = machine.get(RESULT, machine.get_word(OUTPUT_LENGTH) as usize);
    assert_eq!(quote[quote.len() - 256..], public_key.modulus);
    machine.put_words(SELECTION, &[5, 0]);
    assert_eq!(machine.call(Command::QUOTE_DEPRECATED, [SELECTION, OUTPUT, NONCE, 0]), Status::BAD_PARAMETER);
}
