//! A PAL's microTPM: measured as registered, extended, sealed to and quoted; of no use from outside.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB, and registers of 32 bits")]

use core::sync::atomic::{AtomicU32, Ordering};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U2048};
use guest::apic::{self, register};
use guest::memory::{low, read8, read32, write8, write32};
use guest::pal;
use guest::pal::prelude::*;
use guest::pal_code::commands_of_32_bits;
use guest::trap;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use trustvisor::flags;

guest!(main);

/// First arguments that are no command: read and write a word of the PAL's memory.
const READ: u64 = 0xffff_ffff;
const WRITE: u64 = 0xffff_fffe;
const PARAMETERS: [(ParameterType, u64); 5] = [(ParameterType::Integer, 0); 5];
/// Bit in a register's index, and in a selection's first byte, that means the SHA-256 bank.
const SHA256_BANK: u64 = 0x100;
/// The timer's vector, and its mode.
const TIMER: u8 = 0x60;
const PERIODIC: u32 = 1 << 17;

fn main() {
    for (number, mode, code) in
        [(0, Mode::User64, code_of_64_bits()), (1, Mode::CompatibilityUser32, commands_of_32_bits())]
    {
        let pal = Pal::place(mode, number, code);
        for command in (3..6).chain(7..14).chain([15, 19, 20]) {
            check_eq!(
                pal::hypercall(mode, command, [0; 4]),
                Status::NOT_IN_PAL.0,
                "command {command} outside"
            );
        }
        for round in 0..2 {
            check_eq!(pal.register(&PARAMETERS), 0, "{mode:?} round {round}: registering");
            measured(&pal);
            extended(&pal);
            random(&pal);
            check_eq!(pal.unregister(), 0, "{mode:?} round {round}: unregistering");
            fill_data(&pal);
        }
    }
    // Descriptions of buffers have 32 bits, which is where this mode's PALs are.
    let pal = Pal::place(Mode::CompatibilityUser32, 2, commands_of_32_bits());
    check_eq!(pal.register(&PARAMETERS), 0, "registering");
    sealed(&pal);
    quoted(&pal);
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// The first register is what the registered pages make it, though the PAL has written since.
fn measured(pal: &Pal) {
    write(pal, 0, 0x1234_5678);
    check_eq!(command(pal, Command::PCR_READ, [0, data(pal, 0x100), 0, 0]), 0, "reading a register");
    check_eq!(command(pal, Command::PCR_READ, [SHA256_BANK, data(pal, 0x120), 0, 0]), 0, "of the other bank");
    check_eq!(bytes::<20>(pal, 0x100), first_register::<Sha1, 20>(pal), "the first register, SHA-1");
    check_eq!(bytes::<32>(pal, 0x120), first_register::<Sha256, 32>(pal), "the first register, SHA-256");
}

/// What each bank's formula makes of the sections: code as it stands, and 0x90 in the pages behind it.
fn first_register<H: Digest, const N: usize>(pal: &Pal) -> [u8; N] {
    let mut register = [0; N];
    let has_header = N == 32;
    if has_header {
        register = follow::<H, N>(register, header::<H>(pal));
    }
    for section in pal.sections() {
        let mut hash = H::new();
        if !has_header {
            hash.update(section.kind.to_le_bytes());
            if !matches!(section.kind, 3 | 4) {
                hash.update(section.start.to_le_bytes());
            }
            hash.update(PAGE.to_le_bytes());
        }
        for at in pal.at..pal.at + PAGE {
            // The process sees zeros of a registered page, so the code is read where it came from.
            let byte = if section.kind == 1 { code_byte(pal, at - pal.at) } else { 0x90 };
            hash.update([byte]);
        }
        register = follow::<H, N>(register, hash);
    }
    register
}

/// A register behind an extension by what was hashed.
fn follow<H: Digest, const N: usize>(mut register: [u8; N], hash: H) -> [u8; N] {
    let mut outer = H::new();
    outer.update(register);
    outer.update(hash.finalize());
    register.copy_from_slice(&outer.finalize());
    register
}

/// What decides how the sections run.
fn header<H: Digest>(pal: &Pal) -> H {
    let mut hash = H::new();
    hash.update(b"XMHF PAL");
    let word_bytes: u32 = if pal.mode == Mode::User64 { 8 } else { 4 };
    for number in [1, 1, word_bytes, flags::ORIGINAL] {
        hash.update(number.to_le_bytes());
    }
    hash.update(pal.entry().to_le_bytes());
    hash.update(4_u32.to_le_bytes());
    hash.update(5_u32.to_le_bytes());
    for section in pal.sections() {
        let rights: u32 = if section.kind == 1 { 5 } else { 3 };
        hash.update(section.kind.to_le_bytes());
        hash.update(rights.to_le_bytes());
        hash.update(section.start.to_le_bytes());
        hash.update(PAGE.to_le_bytes());
    }
    for (kind, words) in PARAMETERS {
        hash.update((kind as u64).to_le_bytes());
        hash.update(words.to_le_bytes());
    }
    hash
}

/// Byte `offset` of the code page as it was registered: behind the code there is what memory held, zero.
fn code_byte(pal: &Pal, offset: u64) -> u8 {
    let code = if pal.mode == Mode::User64 { code_of_64_bits() } else { commands_of_32_bits() };
    if offset < code.length() as u64 { read8(code.address() + offset).unwrap_or(0) } else { 0 }
}

fn extended(pal: &Pal) {
    check_eq!(command(pal, Command::PCR_EXTEND, [3, data(pal, 0x200), 0, 0]), 0, "extending");
    check_eq!(command(pal, Command::PCR_READ, [3, data(pal, 0x100), 0, 0]), 0, "reading");
    let mut hash = Sha1::new();
    hash.update([0; 20]);
    hash.update([0x90; 20]);
    check_eq!(bytes::<20>(pal, 0x100), <[u8; 20]>::from(hash.finalize()), "an extended register");
    check_eq!(command(pal, Command::PCR_READ, [4, data(pal, 0x100), 0, 0]), 0, "reading");
    check_eq!(bytes::<20>(pal, 0x100), [0; 20], "a register that was not extended");
    for (index, at, status) in [
        (8, data(pal, 0), Status::PCR_OUT_OF_RANGE),
        (0, pal.entry(), Status::BAD_ADDRESS),
        (0, pal.entry() - 8, Status::BAD_ADDRESS),
        (0, pal.entry() + 4 * PAGE - 8, Status::BAD_ADDRESS),
    ] {
        check_eq!(
            command(pal, Command::PCR_READ, [index, at, 0, 0]),
            status.0,
            "register {index} to {at:#x}"
        );
    }
    check_eq!(command(pal, Command(200), [0; 4]), Status::UNKNOWN_COMMAND.0, "a command that is none");
}

fn random(pal: &Pal) {
    let draw = || {
        write(pal, 0x80, 32);
        let drawn = command(pal, Command::RANDOM, [data(pal, 0x100), data(pal, 0x80), 0, 0]);
        check_eq!(drawn, 0, "random bytes");
        bytes::<32>(pal, 0x100)
    };
    let (first, second) = (draw(), draw());
    check!(first != second, "random bytes do not repeat: {first:x?}");
    write(pal, 0x80, 4097);
    let drawn = command(pal, Command::RANDOM, [data(pal, 0x100), data(pal, 0x80), 0, 0]);
    check_eq!(drawn, Status::BAD_PARAMETER.0, "too many random bytes");
}

/// Seals 32 bytes to register 5 as it is; they unseal until the register is extended, and no changed blob does.
fn sealed(pal: &Pal) {
    buffers(pal);
    write(pal, 0x14, 32);
    // A selection of register 5 and the digest of its composite: selection, 20, zeros.
    let mut hash = Sha1::new();
    hash.update([1, 0, 0x20, 0, 0, 0, 20]);
    hash.update([0; 20]);
    let release = <[u8; 20]>::from(hash.finalize());
    let mut info = [0; 44];
    info[..3].copy_from_slice(&[1, 0, 0x20]);
    info[3..23].copy_from_slice(&release);
    for (offset, word) in (0x40..).step_by(4).zip(info.chunks(4)) {
        write(pal, offset, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    let (input, output) = (data(pal, 0x10), data(pal, 0x18));
    check_eq!(command(pal, Command::SEAL, [input, data(pal, 0x40), output, 0]), 0, "sealing");
    let length = read(pal, 0x20);
    check!(length > 32 + 28, "a blob is longer than its data: {length}");

    // The blob is at 0x300; the data comes back at 0x600.
    let blob = 0x300;
    write(pal, 0x10, low(data(pal, blob)));
    write(pal, 0x14, length);
    write(pal, 0x18, low(data(pal, 0x600)));
    write(pal, 0x600, 0);
    let unseal = || command(pal, Command::UNSEAL, [input, output, data(pal, 0x700), 0]);
    check_eq!(unseal(), 0, "unsealing");
    check_eq!((read(pal, 0x20), bytes::<32>(pal, 0x600)), (32, [0x90; 32]), "what was sealed");
    check_eq!(bytes::<20>(pal, 0x700), release, "the digest at creation");
    let word = read(pal, blob + 20);
    write(pal, blob + 20, word ^ 0x8000);
    check_eq!(unseal(), Status::BAD_PARAMETER.0, "a changed blob");
    write(pal, blob + 20, word);
    check_eq!(unseal(), 0, "the blob as it was");
    check_eq!(command(pal, Command::PCR_EXTEND, [5, data(pal, 0x200), 0, 0]), 0, "extending");
    check_eq!(unseal(), Status::OTHER.0, "the register has changed");
}

/// Quotes the first register: the public key verifies the signature over register and nonce.
fn quoted(pal: &Pal) {
    write(pal, 0x20, 300);
    let find_key = || command(pal, Command::ID_GETPUB, [data(pal, 0x300), data(pal, 0x20), 0, 0]);
    let mut status = u32::MAX;
    let interrupts = interrupted(|| status = find_key());
    check_eq!(status, 0, "the public key");
    check!(interrupts >= 5, "interrupts while the key is looked for: {interrupts}");
    check_eq!(read(pal, 0x20), 270, "its length");
    check_eq!(bytes::<9>(pal, 0x300), [0x30, 0x82, 1, 0xa, 2, 0x82, 1, 1, 0], "its encoding");
    let key = bytes::<270>(pal, 0x300);
    let modulus = U2048::from_be_slice(&key[9..265]);
    for nonce in [0x90, 0x55] {
        buffers(pal);
        write(pal, 0x40, 0x0001_0001);
        for offset in (0x900..0x914).step_by(4) {
            write(pal, offset, nonce * 0x0101_0101);
        }
        let arguments = [data(pal, 0x40), data(pal, 0x18), data(pal, 0x900), data(pal, 0x28)];
        check_eq!(command(pal, Command::QUOTE, arguments), 0, "quoting");
        check_eq!((read(pal, 0x20), read(pal, 0x24)), (256, 27), "lengths of a quote");
        check_eq!(bytes::<7>(pal, 0x500), [1, 0, 1, 0, 0, 0, 20], "the composite");
        check_eq!(bytes::<20>(pal, 0x507), first_register::<Sha1, 20>(pal), "the quoted register");
        let mut hash = Sha1::new();
        hash.update([1, 1, 0, 0]);
        hash.update(b"QUOT");
        hash.update(Sha1::digest(bytes::<27>(pal, 0x500)));
        hash.update([nonce as u8; 20]);
        let signature = U2048::from_be_slice(&bytes::<256>(pal, 0x300));
        check!(opens(signature, modulus) == padded(hash.finalize().into()), "the signature is good");
    }
}

/// Interrupts of the local APIC's timer that this CPU takes meanwhile.
fn interrupted(act: impl FnOnce()) -> u32 {
    static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
    trap::handle(
        TIMER,
        Some(|_| {
            INTERRUPTS.fetch_add(1, Ordering::Relaxed);
            apic::end_of_interrupt();
            true
        }),
    );
    apic::write(register::TIMER_DIVIDE, 0xb);
    apic::write(register::LVT_TIMER, PERIODIC | u32::from(TIMER));
    apic::write(register::TIMER_INITIAL, 1_000_000);
    act();
    apic::write(register::TIMER_INITIAL, 0);
    INTERRUPTS.load(Ordering::Relaxed)
}

/// What a signature says: it to the power of 65537.
fn opens(signature: U2048, modulus: U2048) -> U2048 {
    let Some(modulus) = Odd::new(modulus).into_option() else { return U2048::ZERO };
    let params = FixedMontyParams::new_vartime(modulus);
    FixedMontyForm::new(&signature, &params).pow_vartime(&U2048::from_u32(65537)).retrieve()
}

/// A SHA-1 digest as PKCS #1 v1.5 pads it for 2048 bits (RFC 8017, "EMSA-PKCS1-v1_5").
fn padded(digest: [u8; 20]) -> U2048 {
    const HEAD: [u8; 15] = [0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 0xe, 3, 2, 0x1a, 5, 0, 4, 0x14];
    let mut bytes = [0xff; 256];
    bytes[..2].copy_from_slice(&[0, 1]);
    bytes[220] = 0;
    bytes[221..236].copy_from_slice(&HEAD);
    bytes[236..].copy_from_slice(&digest);
    U2048::from_be_slice(&bytes)
}

/// Describes an input buffer at 0x200, and output buffers at 0x300 and 0x500 with 512 bytes of room each.
fn buffers(pal: &Pal) {
    let [input, output, second] = [0x200, 0x300, 0x500].map(|offset| low(data(pal, offset)));
    let [length, second_length] = [0x20, 0x24].map(|offset| low(data(pal, offset)));
    let words = [(0x10, input), (0x18, output), (0x1c, length), (0x28, second), (0x2c, second_length)];
    words.iter().for_each(|&(offset, word)| write(pal, offset, word));
    [0x20, 0x24].iter().for_each(|&offset| write(pal, offset, 512));
}

/// The page behind the code as it was placed.
fn fill_data(pal: &Pal) {
    for offset in (PAGE..4 * PAGE).step_by(4) {
        let _ = write32(pal.at + offset, 0x9090_9090);
    }
    let is_open = write8(pal.data(), 0x90).is_ok() && read32(pal.data()) == Ok(0x9090_9090);
    check!(is_open, "the pages are the process's again");
}

/// Linear address of `offset` in the data page.
fn data(pal: &Pal, offset: u64) -> u64 {
    pal.entry() + PAGE + offset
}

fn command(pal: &Pal, command: Command, [ecx, edx, esi, edi]: [u64; 4]) -> u32 {
    call(pal, [command.0.into(), ecx, edx, esi, edi])
}

fn read(pal: &Pal, offset: u64) -> u32 {
    call(pal, [READ, data(pal, offset), 0, 0, 0])
}

fn write(pal: &Pal, offset: u64, word: u32) {
    call(pal, [WRITE, data(pal, offset), word.into(), 0, 0]);
}

fn bytes<const N: usize>(pal: &Pal, offset: u64) -> [u8; N] {
    let mut bytes = [0; N];
    for (at, chunk) in (offset..).step_by(4).zip(bytes.chunks_mut(4)) {
        chunk.copy_from_slice(&read(pal, at).to_le_bytes()[..chunk.len()]);
    }
    bytes
}

fn call(pal: &Pal, [a, b, c, d, e]: [u64; 5]) -> u32 {
    let called = pal.call([a, b, c, d, e, 0, 0, 0, 0, 0]);
    let is_sound = called.is_ok_and(|regs| regs.rflags & CF == 0);
    check!(is_sound, "the call of {a:#x} {b:#x} came back: {called:x?}");
    called.map_or(u32::MAX, |regs| regs.eax())
}

fn code_of_64_bits() -> Snippet {
    snippet!(
        "cmp edi, -1",
        "je 2f",
        "cmp edi, -2",
        "je 3f",
        "mov eax, edi",
        "mov r9, rsi",
        "mov rsi, rcx",
        "mov rcx, r9",
        "mov rdi, r8",
        "vmcall",
        "ret",
        "2: mov eax, [rsi]",
        "ret",
        "3: mov [rsi], edx",
        "ret"
    )
}
