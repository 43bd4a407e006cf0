//! The decoder against another one, of all x86 instructions.

use super::*;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use proptest::prelude::*;

const SIZES: [(CodeSize, u32); 3] = [(CodeSize::Bits16, 16), (CodeSize::Bits32, 32), (CodeSize::Bits64, 64)];

/// What the other decoder makes of the bytes, where they are a MOV to memory without prefixes that none has.
fn other(bytes: &[u8], bits: u32) -> Option<MovStore> {
    let mut decoder = Decoder::new(bits, &bytes[..bytes.len().min(LENGTH_LIMIT)], DecoderOptions::NONE);
    let instruction = decoder.decode();
    let is_store = matches!(
        instruction.code(),
        Code::Mov_rm8_r8
            | Code::Mov_rm16_r16
            | Code::Mov_rm32_r32
            | Code::Mov_rm64_r64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
            | Code::Mov_rm8_imm8
            | Code::Mov_rm16_imm16
            | Code::Mov_rm32_imm32
            | Code::Mov_rm64_imm32
    );
    let length = instruction.len();
    let is_plain = !bytes[..length].iter().take_while(|byte| is_prefix(**byte, bits)).any(|byte| {
        // LOCK, REPNE, REP.
        matches!(byte, 0xf0 | 0xf2 | 0xf3)
    });
    if !is_store || !is_plain || instruction.op0_kind() == OpKind::Register {
        return None;
    }
    let width = u8::try_from(instruction.memory_size().size()).unwrap();
    Some(MovStore { width, length: u8::try_from(length).unwrap(), source: source(&instruction) })
}

fn is_prefix(byte: u8, bits: u32) -> bool {
    let is_legacy =
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3);
    is_legacy || bits == 64 && byte & 0xf0 == 0x40
}

fn source(instruction: &Instruction) -> Source {
    if instruction.op1_kind() != OpKind::Register {
        return Source::Immediate(instruction.immediate(1));
    }
    let register = instruction.op1_register();
    let number = u8::try_from(register.full_register().number()).unwrap();
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => Source::HighByte(number),
        _ => Source::Register(number),
    }
}

/// The sign-extended immediate, cut to what is stored.
fn cut(store: MovStore) -> MovStore {
    let mask = u64::MAX >> (64 - 8 * u32::from(store.width));
    match store.source {
        Source::Immediate(value) => MovStore { source: Source::Immediate(value & mask), ..store },
        _ => store,
    }
}

fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    for (code, bits) in SIZES {
        let ours = MovStore::decode(bytes, code).ok().map(cut);
        prop_assert_eq!(ours, other(bytes, bits).map(cut), "{:02x?} as {} bits", bytes, bits);
        if let Some(store) = ours {
            // No byte behind the instruction is looked at, and each of it is.
            let length = usize::from(store.length);
            prop_assert_eq!(MovStore::decode(&bytes[..length], code).ok().map(cut), Some(store));
            for short in 0..length {
                prop_assert_eq!(MovStore::decode(&bytes[..short], code), Err(NoStore::Incomplete));
            }
        }
    }
    Ok(())
}

const PREFIXES: [u8; 13] = [0x66, 0x67, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x40, 0x44, 0x48, 0x4c, 0x4f];
const OPCODES: [u8; 10] = [0x88, 0x89, 0xa2, 0xa3, 0xc6, 0xc7, 0x8a, 0x8c, 0xf3, 0x0f];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_taken_as_another_decoder_takes_them(bytes in proptest::collection::vec(any::<u8>(), 15..20)) {
        agree(&bytes)?;
    }

    #[test]
    fn stores_are_taken_as_another_decoder_takes_them(
        prefixes in proptest::collection::vec(proptest::sample::select(&PREFIXES[..]), 0..6),
        opcode in proptest::sample::select(&OPCODES[..]),
        rest in proptest::collection::vec(any::<u8>(), 15),
    ) {
        agree(&[prefixes, vec![opcode], rest].concat())?;
    }
}

#[test]
fn every_operand_byte_of_every_store_is_taken_alike() {
    for prefix in [&[][..], &[0x66], &[0x67], &[0x48], &[0x44], &[0x40], &[0x66, 0x48], &[0x64]] {
        for opcode in [0x88, 0x89, 0xa2, 0xa3, 0xc6, 0xc7] {
            for (operand, scale) in
                (0..=255).flat_map(|operand| [0x04, 0x25, 0xe5].map(|scale| (operand, scale)))
            {
                let rest = [opcode, operand, scale, 0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8, 1, 2, 3];
                agree(&[prefix, &rest].concat()).unwrap();
            }
        }
    }
}

#[test]
fn what_is_longer_than_an_instruction_is_none() {
    let long = [[0x26; 13].as_slice(), &[0x88, 0x07]].concat();
    assert!(MovStore::decode(&long, CodeSize::Bits64).is_ok());
    let longer = [[0x26; 14].as_slice(), &[0x88, 0x07]].concat();
    assert_eq!(MovStore::decode(&longer, CodeSize::Bits64), Err(NoStore::Other));
    assert_eq!(MovStore::decode(&[0x26; 15], CodeSize::Bits64), Err(NoStore::Other));
}

#[test]
fn other_ways_to_store_are_no_mov() {
    // XCHG, ADD, MOVNTI, STOSD, PUSH, MOV from a segment register, XRELEASE MOV, XABORT.
    for bytes in [
        &[0x87, 0x07][..],
        &[0x01, 0x07],
        &[0x0f, 0xc3, 0x07],
        &[0xab],
        &[0xff, 0x37],
        &[0x8c, 0x07],
        &[0xf3, 0x89, 0x07],
        &[0xc6, 0xf8, 0x00],
    ] {
        assert_eq!(MovStore::decode(bytes, CodeSize::Bits64), Err(NoStore::Other), "{bytes:02x?}");
    }
}
