use super::*;
use crate::algorithm::{Algorithm, Digest};
use crate::error::TransportError;
use proptest::prelude::*;

#[path = "command_tests.rs"]
mod commands;

/// Gives these answers, one after the other, and keeps what was sent.
struct Told {
    answers: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Transport for Told {
    fn transact(&mut self, command: &[u8], answer: &mut [u8], _: u64) -> Result<usize, TransportError> {
        self.sent.push(command.to_vec());
        if self.answers.is_empty() {
            return Err(TransportError::NoAnswer);
        }
        let next = self.answers.remove(0);
        answer[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }
}

fn tpm(answers: &[Vec<u8>]) -> Tpm2<Told> {
    Tpm2::new(Told { answers: answers.to_vec(), sent: Vec::new() })
}

fn answer(tag: u16, code: u32, rest: &[u8]) -> Vec<u8> {
    let size = 10 + rest.len() as u32;
    [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), rest].concat()
}

#[test]
fn a_started_tpm_is_as_good_as_one_that_starts() {
    assert_eq!(tpm(&[answer(0x8001, 0, &[])]).startup(Startup::Clear), Ok(()));
    assert_eq!(tpm(&[answer(0x8001, 0x100, &[])]).startup(Startup::Clear), Ok(()));
    let refused = TpmError::Refused { command: 0x144, code: 0x101 };
    assert_eq!(tpm(&[answer(0x8001, 0x101, &[])]).startup(Startup::Clear), Err(refused));
    let none = TpmError::Transport(TransportError::NoAnswer);
    assert_eq!(tpm(&[]).startup(Startup::Clear), Err(none));
}

#[test]
fn a_command_is_sent_again_where_the_tpm_asks_for_that() {
    let again = |code| answer(0x8001, code, &[]);
    let mut busy = tpm(&[again(0x922), again(0x90a), again(0x908), again(0)]);
    assert_eq!(busy.self_test(), Ok(()));
    let sent = busy.into_transport().sent;
    assert!(sent.len() == 4 && sent.iter().all(|command| *command == sent[0]));
    let refused = TpmError::Refused { command: 0x143, code: 0x922 };
    assert_eq!(tpm(&vec![again(0x922); 20]).self_test(), Err(refused));
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let digest = Digest::new(Algorithm::Sha1, &[1; 20]).unwrap();
    let malformed = |command| Err(TpmError::Malformed { command });
    // Sessions where there are none, and none where there are; a TPM 1.2's tag.
    assert_eq!(tpm(&[answer(0x8002, 0, &[])]).self_test(), malformed(0x143));
    assert_eq!(tpm(&[answer(0x8001, 0, &[])]).pcr_extend(17, &[digest]), malformed(0x182));
    assert_eq!(tpm(&[answer(0xc4, 0, &[])]).self_test(), malformed(0x143));
    // A size that is not the answer's.
    let mut wrong = answer(0x8001, 0, &[]);
    wrong[5] = 11;
    assert_eq!(tpm(&[wrong]).self_test(), malformed(0x143));
    // Another register or bank than the one that was asked for.
    let read = |map: [u8; 3]| {
        let values = [&[0, 0, 0, 9, 0, 0, 0, 1, 0, 4, 3][..], &map, &[0, 0, 0, 1, 0, 20], &[5; 20]].concat();
        tpm(&[answer(0x8001, 0, &values)]).pcr_read(Algorithm::Sha1, 17)
    };
    assert_eq!(read([0, 0, 2]), Ok(Digest::new(Algorithm::Sha1, &[5; 20]).unwrap()));
    assert_eq!(read([0, 0, 4]).map(drop), malformed(0x17e));
    assert_eq!(read([0, 0, 0]).map(drop), malformed(0x17e));
}

#[test]
fn banks_without_registers_are_not_active() {
    let bank = |algorithm: u8, map: u8| [0, algorithm, 3, map, map, map];
    let banks = [bank(4, 0), bank(0xb, 0xff), bank(0x27, 0xff)].concat();
    let body = |count: u8, banks: &[u8]| [&[0, 0, 0, 0, 5, 0, 0, 0, count][..], banks].concat();
    let found = tpm(&[answer(0x8001, 0, &body(3, &banks))]).banks().unwrap();
    let active: Vec<_> = found.iter().iter().map(|bank| (bank.algorithm, bank.registers)).collect();
    assert_eq!(active, [(0xb, 0xff_ffff), (0x27, 0xff_ffff)]);
    assert!(found.has_unknown(&Algorithm::ALL));
    let many = bank(0xb, 1).repeat(9);
    let malformed = TpmError::Malformed { command: 0x17a };
    assert_eq!(tpm(&[answer(0x8001, 0, &body(9, &many))]).banks(), Err(malformed));
    assert_eq!(tpm(&[answer(0x8001, 0, &body(4, &banks))]).banks(), Err(malformed));
}

#[test]
fn banks_of_another_capability_or_not_all_of_them_are_refused() {
    let body = |more: u8, capability: u8| {
        let bytes = [more, 0, 0, 0, capability, 0, 0, 0, 1, 0, 0xb, 3, 1, 2, 4];
        tpm(&[answer(0x8001, 0, &bytes)]).banks()
    };
    let malformed = TpmError::Malformed { command: 0x17a };
    let banks = body(0, 5).unwrap();
    assert_eq!(banks.iter()[0], Bank { algorithm: 0xb, registers: 0x04_0201 });
    assert!(
        !banks.has_unknown(&[Algorithm::Sha1, Algorithm::Sha256]) && banks.has_unknown(&[Algorithm::Sha1])
    );
    assert_eq!([body(1, 5), body(0, 6)], [Err(malformed); 2]);
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused(
        tag in prop_oneof![Just(0x8001_u16), Just(0x8002), any::<u16>()],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let answers = vec![answer(tag, 0, &rest)];
        let digest = Digest::new(Algorithm::Sha256, &[0; 32]).unwrap();
        let selection = Selection { algorithm: Algorithm::Sha256, registers: 1 << 17 };
        let _ = (tpm(&answers).banks(), tpm(&answers).pcr_read(Algorithm::Sha256, 17));
        let _ = tpm(&answers).pcr_event(17, &[1], |_| ());
        let _ = (tpm(&answers).storage_key(), tpm(&answers).seal(Handle(1), &[1], &digest));
        let _ = tpm(&answers).unseal(Handle(1), Session(2), <[u8]>::len);
        let _ = tpm(&answers).quote(Handle(1), &[1], selection, |statement, signature| (statement.len(), signature.len()));
        let _ = (tpm(&answers).counter_read(1), tpm(&answers).policy_digest(Session(1)), tpm(&answers).random(&mut [0; 40]));
    }
}
