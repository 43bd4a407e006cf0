use super::*;
use crate::layout::{Kind, PAGE, Section};
use crate::machine::Cover;
use microtpm::{Bank, Signer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use trustvisor::parameter::WordSize;
use trustvisor::section::SectionType;

#[path = "tpm_quote_tests.rs"]
mod quotes;

/// Pages by physical address.
#[derive(Debug, Default)]
pub(crate) struct Memory(pub(crate) RefCell<BTreeMap<u64, Vec<u8>>>);

impl Pages for Memory {
    fn is_memory(&self, _: u64) -> bool {
        true
    }

    fn cover(&self, _: &mut dyn Iterator<Item = (u64, Cover)>) -> Result<(), Inaccessible> {
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        let offset = (address % PAGE) as usize;
        bytes.copy_from_slice(&self.0.borrow()[&(address - address % PAGE)][offset..][..bytes.len()]);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let offset = (address % PAGE) as usize;
        let mut pages = self.0.borrow_mut();
        pages.get_mut(&(address - address % PAGE)).unwrap()[offset..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// Code at 0x1000 to 0x3000 and data at 0x3000 to 0x7000, which is physically backwards; the list has data first.
pub(crate) fn pal() -> (Layout, Memory) {
    let memory = Memory::default();
    let section = |kind, start: u64, pages: Vec<u64>| {
        for &page in &pages {
            let byte = (page / PAGE) as u8;
            let bytes = (0..PAGE).map(|at| byte.wrapping_add((at / 8) as u8)).collect();
            memory.0.borrow_mut().insert(page, bytes);
        }
        Section { kind: Kind::Listed(kind), start, count: pages.len() as u32, pages }
    };
    let layout = Layout {
        shared: Vec::new(),
        sections: vec![
            section(SectionType::Code, 0x1000, vec![0x20_0000, 0x20_1000]),
            section(SectionType::Data, 0x3000, vec![0x10_3000, 0x10_2000, 0x10_1000, 0x10_0000]),
        ],
        listed: [1, 0].into_iter().collect(),
        entry: 0x1000,
        word: WordSize::Bits64,
        parameters: Vec::new(),
        flags: 0,
        is_signed: false,
    };
    (layout, memory)
}

/// Entropy of one byte, for as many seeds as there are left.
struct Seeds(u32);

impl Entropy for Seeds {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0 = self.0.checked_sub(1).ok_or(Error::InsufficientEntropy)?;
        bytes.fill(0x5a);
        Ok(())
    }
}

fn microtpm() -> MicroTpm<Seeds> {
    MicroTpm::new(&mut microtpm::PerBootRoot(Seeds(1)), Seeds(1)).unwrap()
}

/// An identity whose key is found, which takes long.
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let mut identity = microtpm().identity;
    while identity.public_key().is_pending() {}
    identity
});

/// A PAL and its microTPM.
struct Fixture {
    tpm: MicroTpm<Seeds>,
    banks: PcrBanks,
    credentials: Credentials,
    layout: Layout,
    memory: Memory,
}

impl Fixture {
    fn new() -> Self {
        let (layout, memory) = pal();
        let (banks, credentials) = (PcrBanks::new(), Credentials::default());
        let tpm = MicroTpm { identity: IDENTITY.clone(), ..microtpm() };
        Self { tpm, banks, credentials, layout, memory }
    }

    fn call(&mut self, command: Command, [ecx, edx, esi, edi]: [u64; 4]) -> Status {
        let memory = PalMemory { layout: &self.layout, pages: &self.memory };
        let request = Request { command, ecx, edx, esi, edi };
        loop {
            match self.tpm.carry_out(&request, &mut self.banks, &self.credentials, &memory) {
                Poll::Ready(Ok(())) => return Status::SUCCESS,
                Poll::Ready(Err(status)) => return status,
                Poll::Pending => {}
            }
        }
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        PalMemory { layout: &self.layout, pages: &self.memory }
            .store(&[store(address, bytes).unwrap()])
            .unwrap();
    }

    fn put_words(&self, address: u64, words: &[u32]) {
        self.put(address, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
    }

    fn get(&self, address: u64, length: usize) -> Vec<u8> {
        PalMemory { layout: &self.layout, pages: &self.memory }.bytes(address, length).unwrap().to_vec()
    }

    fn get_word(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.get(address, 4).try_into().unwrap())
    }

    fn snapshot(&self) -> (BTreeMap<u64, Vec<u8>>, PcrBanks) {
        (self.memory.0.borrow().clone(), self.banks.clone())
    }
}

// Descriptions of buffers, and the buffers; some of them lie across pages.
const INPUT: u64 = 0x3000;
const OUTPUT: u64 = 0x3010;
const COMPOSITE: u64 = 0x3020;
const OUTPUT_LENGTH: u64 = 0x3030;
const COMPOSITE_LENGTH: u64 = 0x3034;
const SELECTION: u64 = 0x3040;
const NONCE: u64 = 0x3ff8;
const DATA: u64 = 0x4100;
const RESULT: u64 = 0x4ff0;
const VALUES: u64 = 0x5ff0;
const NOWHERE: u64 = 0x7000;
const CODE: u64 = 0x1000;

/// A machine whose buffers are described, with 14 bytes of data and room of 1000 bytes.
fn ready() -> Fixture {
    let machine = Fixture::new();
    machine.put_words(INPUT, &[DATA as u32, 14]);
    machine.put(DATA, b"fourteen bytes");
    machine.put_words(OUTPUT, &[RESULT as u32, OUTPUT_LENGTH as u32]);
    machine.put_words(COMPOSITE, &[VALUES as u32, COMPOSITE_LENGTH as u32]);
    machine.put_words(OUTPUT_LENGTH, &[1000, 1000]);
    machine
}

#[test]
fn registers_are_extended_and_read() {
    let mut machine = ready();
    machine.put(DATA, &[7; 32]);
    assert_eq!(machine.call(Command::PCR_EXTEND, [3, DATA, 0, 0]), Status::SUCCESS);
    assert_eq!(machine.call(Command::PCR_READ, [3, RESULT, 0, 0]), Status::SUCCESS);
    assert_eq!(machine.get(RESULT, 20)[..], Bank::Sha1.hash(&[&[0; 20], &[7; 20]])[..]);
    assert_eq!(machine.call(Command::PCR_READ, [0x103, RESULT, 0, 0]), Status::SUCCESS);
    assert_eq!(machine.get(RESULT, 32)[..], Bank::Sha256.hash(&[&[0; 32], &[7; 20]])[..]);
    for index in [8, 0x108, u64::MAX] {
        assert_eq!(machine.call(Command::PCR_READ, [index, RESULT, 0, 0]), Status::PCR_OUT_OF_RANGE);
        assert_eq!(machine.call(Command::PCR_EXTEND, [index, DATA, 0, 0]), Status::PCR_OUT_OF_RANGE);
    }
}

#[test]
fn random_bytes_come_in_the_number_asked_for() {
    let mut machine = ready();
    let before = machine.get(RESULT, 120);
    machine.put_words(OUTPUT_LENGTH, &[100]);
    assert_eq!(machine.call(Command::RANDOM, [RESULT, OUTPUT_LENGTH, 0, 0]), Status::SUCCESS);
    assert_ne!(machine.get(RESULT, 100), before[..100]);
    assert_eq!(
        (machine.get(RESULT + 100, 20), machine.get_word(OUTPUT_LENGTH)),
        (before[100..].to_vec(), 100)
    );
    machine.put_words(OUTPUT_LENGTH, &[4097]);
    assert_eq!(machine.call(Command::RANDOM, [DATA, OUTPUT_LENGTH, 0, 0]), Status::BAD_PARAMETER);
}

#[test]
fn what_is_sealed_unseals() {
    let mut machine = ready();
    // An original PAL leaves its length unset.
    machine.put_words(OUTPUT_LENGTH, &[0]);
    assert_eq!(machine.call(Command::SEAL, [INPUT, 0, OUTPUT, 0]), Status::SUCCESS);
    machine.put_words(INPUT, &[RESULT as u32, machine.get_word(OUTPUT_LENGTH)]);
    machine.put_words(OUTPUT, &[DATA as u32 + 0x100, OUTPUT_LENGTH as u32]);
    machine.put(VALUES, &[9; 20]);
    assert_eq!(machine.call(Command::UNSEAL, [INPUT, OUTPUT, VALUES, 0]), Status::SUCCESS);
    assert_eq!(machine.get_word(OUTPUT_LENGTH), 14);
    assert_eq!(machine.get(DATA + 0x100, 14), b"fourteen bytes");
    assert_eq!(machine.get(VALUES, 20), [0; 20]);
}

#[test]
fn a_policy_binds_to_registers_of_either_bank() {
    for bank in [Bank::Sha1, Bank::Sha256] {
        let mut machine = ready();
        let selection = Selection { bank, map: Some(2) };
        let release = selection.composite_digest(&machine.banks);
        machine.put(SELECTION, &[&selection.to_bytes()[..], &release].concat());
        assert_eq!(machine.call(Command::SEAL, [INPUT, SELECTION, OUTPUT, 0]), Status::SUCCESS);
        machine.put_words(INPUT, &[RESULT as u32, machine.get_word(OUTPUT_LENGTH)]);
        machine.put_words(OUTPUT, &[DATA as u32, OUTPUT_LENGTH as u32]);
        assert_eq!(machine.call(Command::UNSEAL, [INPUT, OUTPUT, VALUES, 0]), Status::SUCCESS);
        assert_eq!(machine.get(VALUES, 20), release[..20]);
        assert_eq!(machine.call(Command::PCR_EXTEND, [1, DATA, 0, 0]), Status::SUCCESS);
        assert_eq!(machine.call(Command::UNSEAL, [INPUT, OUTPUT, VALUES, 0]), Status::OTHER);
        machine.put(RESULT + 20, &[!machine.get(RESULT + 20, 1)[0]]);
        assert_eq!(machine.call(Command::UNSEAL, [INPUT, OUTPUT, VALUES, 0]), Status::BAD_PARAMETER);
    }
}

#[test]
fn a_pal_opens_as_its_own_what_it_sealed_itself() {
    for (bank, map, expected) in [
        (Bank::Sha1, 1, Status::SUCCESS),
        (Bank::Sha256, 1, Status::SUCCESS),
        (Bank::Sha256, 2, Status::FOREIGN_BLOB),
    ] {
        let mut machine = ready();
        let selection = Selection { bank, map: Some(map) };
        let release = selection.composite_digest(&machine.banks);
        machine.put(SELECTION, &[&selection.to_bytes()[..], &release].concat());
        assert_eq!(machine.call(Command::SEAL, [INPUT, SELECTION, OUTPUT, 0]), Status::SUCCESS);
        machine.put_words(INPUT, &[RESULT as u32, machine.get_word(OUTPUT_LENGTH)]);
        machine.put_words(OUTPUT, &[DATA as u32 + 0x100, OUTPUT_LENGTH as u32]);
        let before = machine.snapshot();
        assert_eq!(machine.call(Command::UNSEAL_OWN, [INPUT, OUTPUT, 0, 0]), expected);
        let is_opened = machine.get(DATA + 0x100, 14) == b"fourteen bytes";
        assert_eq!((is_opened, machine.snapshot() == before), (expected == Status::SUCCESS, !is_opened));
    }
}

#[test]
fn what_is_sealed_to_a_signer_opens_for_its_later_versions() {
    let mut machine = ready();
    let seal =
        |machine: &mut Fixture, minimum| machine.call(Command::SEAL_TO_SIGNER, [INPUT, minimum, OUTPUT, 0]);
    assert_eq!(seal(&mut machine, 0), Status::NOT_SIGNED);
    let version = |version| Some(Signer::new(&[1; 32], 7, version));
    machine.credentials.signer = version(3);
    for minimum in [4, u32::MAX.into(), 1 << 32 | 3] {
        assert_eq!(seal(&mut machine, minimum), Status::BAD_PARAMETER, "{minimum:#x}");
    }
    assert_eq!(seal(&mut machine, 3), Status::SUCCESS);
    machine.put_words(INPUT, &[RESULT as u32, machine.get_word(OUTPUT_LENGTH)]);
    machine.put_words(OUTPUT, &[DATA as u32 + 0x100, OUTPUT_LENGTH as u32]);
    // The next version consists of something else.
    machine.put(DATA, &[7; 20]);
    assert_eq!(machine.call(Command::PCR_EXTEND, [0, DATA, 0, 0]), Status::SUCCESS);
    for (signer, is_debug, status) in [
        (version(2), false, Status::OTHER),
        (None, false, Status::OTHER),
        (Some(Signer::new(&[1; 32], 8, 3)), false, Status::OTHER),
        (Some(Signer::new(&[2; 32], 7, 3)), false, Status::OTHER),
        (version(4), true, Status::OTHER),
        (version(4), false, Status::SUCCESS),
    ] {
        machine.credentials = Credentials { is_debug, signer };
        assert_eq!(machine.call(Command::UNSEAL_OWN, [INPUT, OUTPUT, 0, 0]), status, "{signer:?}");
    }
    assert_eq!(machine.get(DATA + 0x100, 14), b"fourteen bytes");
}

#[test]
fn the_deprecated_pair_goes_by_register_zero() {
    let mut machine = ready();
    assert_eq!(machine.call(Command::SEAL_DEPRECATED, [INPUT, 0, OUTPUT, 0]), Status::SUCCESS);
    machine.put_words(INPUT, &[RESULT as u32, machine.get_word(OUTPUT_LENGTH)]);
    machine.put_words(OUTPUT, &[DATA as u32 + 0x100, OUTPUT_LENGTH as u32]);
    assert_eq!(machine.call(Command::UNSEAL_DEPRECATED, [INPUT, OUTPUT, 0, 0]), Status::SUCCESS);
    assert_eq!(machine.get(DATA + 0x100, 14), b"fourteen bytes");
    assert_eq!(machine.call(Command::PCR_EXTEND, [0, DATA, 0, 0]), Status::SUCCESS);
    assert_eq!(machine.call(Command::UNSEAL_DEPRECATED, [INPUT, OUTPUT, 0, 0]), Status::OTHER);
}

#[test]
fn what_the_pal_cannot_access_is_refused_and_nothing_changes() {
    let mut machine = ready();
    machine.put_words(SELECTION, &[NOWHERE as u32, 1]);
    machine.put_words(SELECTION + 8, &[CODE as u32, OUTPUT_LENGTH as u32]);
    machine.put_words(SELECTION + 16, &[RESULT as u32, CODE as u32]);
    let (unreadable, read_only, no_length) = (SELECTION, SELECTION + 8, SELECTION + 16);
    let before = machine.snapshot();
    for (command, arguments) in [
        (Command::PCR_READ, [0, NOWHERE, 0, 0]),
        (Command::PCR_READ, [0, CODE, 0, 0]),
        (Command::PCR_READ, [0, NOWHERE - 19, 0, 0]),
        (Command::PCR_EXTEND, [0, NOWHERE - 19, 0, 0]),
        (Command::PCR_EXTEND, [0, u64::MAX - 3, 0, 0]),
        (Command::RANDOM, [CODE, OUTPUT_LENGTH, 0, 0]),
        (Command::RANDOM, [RESULT, NOWHERE, 0, 0]),
        (Command::SEAL, [unreadable, 0, OUTPUT, 0]),
        (Command::SEAL, [INPUT, NOWHERE, OUTPUT, 0]),
        (Command::SEAL, [INPUT, 0, read_only, 0]),
        (Command::SEAL, [INPUT, 0, no_length, 0]),
        (Command::UNSEAL, [unreadable, OUTPUT, VALUES, 0]),
        (Command::SEAL_TO_SIGNER, [unreadable, 0, OUTPUT, 0]),
        (Command::SEAL_TO_SIGNER, [INPUT, 0, NOWHERE, 0]),
        (Command::SEAL_DEPRECATED, [INPUT, NOWHERE, OUTPUT, 0]),
        (Command::QUOTE, [NOWHERE, OUTPUT, NONCE, COMPOSITE]),
        (Command::QUOTE_DEPRECATED, [NOWHERE, OUTPUT, NONCE, 0]),
        (Command::ID_GETPUB, [CODE, OUTPUT_LENGTH, 0, 0]),
    ] {
        assert_eq!(machine.call(command, arguments), Status::BAD_ADDRESS, "{command:?} {arguments:x?}");
        assert_eq!(machine.snapshot(), before, "{command:?} {arguments:x?}");
    }
}

#[test]
fn sizes_that_are_too_large_are_refused() {
    let mut machine = ready();
    for length in [SEAL_BYTES_LIMIT as u32 + 1, u32::MAX] {
        machine.put_words(INPUT, &[DATA as u32, length]);
        assert_eq!(machine.call(Command::SEAL, [INPUT, 0, OUTPUT, 0]), Status::BAD_PARAMETER);
    }
    machine.put_words(INPUT, &[DATA as u32, BLOB_BYTES_LIMIT as u32 + 1]);
    assert_eq!(machine.call(Command::UNSEAL, [INPUT, OUTPUT, VALUES, 0]), Status::BAD_PARAMETER);
    assert_eq!(machine.call(Command::LOG, [0; 4]), Status::UNKNOWN_COMMAND);
}

#[test]
fn the_largest_input_is_taken_whole() {
    let machine = ready();
    let memory = PalMemory { layout: &machine.layout, pages: &machine.memory };
    machine.put_words(INPUT, &[DATA as u32, 64]);
    assert_eq!(memory.input(INPUT, 64).map(|bytes| bytes.len()), Ok(64));
    assert_eq!(memory.input(INPUT, 63).map(|bytes| bytes.len()), Err(Status::BAD_PARAMETER));
}

#[test]
fn without_entropy_there_is_no_microtpm() {
    let absent = |root, seed| MicroTpm::new(&mut microtpm::PerBootRoot(Seeds(root)), Seeds(seed)).is_err();
    assert!(absent(0, 1) && absent(1, 0) && !absent(1, 1));
}
