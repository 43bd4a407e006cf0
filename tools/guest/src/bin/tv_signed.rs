//! A signed PAL's data open for its later versions, and for no lower one, no other signer, no forged header, and no PAL that is to be debugged.
//! hypapp: trustvisor
//! bare: no
//! expect-hypervisor: says: signed and printing.[0 INFO] no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use ed25519_dalek::{Signer, SigningKey};
use guest::apic::{self, register};
use guest::cpu::rdtsc;
use guest::memory::{FREE, low, read8, write8};
use guest::pal;
use guest::pal::prelude::*;
use guest::pal_code::commands_of_32_bits;
use guest::{println, trap};
use sha2::{Digest, Sha256};
use trustvisor::flags::DEBUG;
use trustvisor::signature::SignedHeader;

guest!(main);

const MODE: Mode = Mode::CompatibilityUser32;
const READ: u64 = 0xffff_ffff;
const WRITE: u64 = 0xffff_fffe;
const PARAMETERS: [(ParameterType, u64); 5] = [(ParameterType::Integer, 0); 5];
/// Where the process has the signed header.
const HEADER: u64 = FREE + 0x4_0000;
const SECRET: u32 = 0x5ec2_e700;
/// Most ticks without an interrupt while a PAL's measurement and signature are looked at, with the timer's own.
const LIMIT: u64 = 100_000;
const PERIOD: u32 = 20_000;
const TIMER: u8 = 0x60;

/// What is signed of a PAL.
#[derive(Clone, Copy)]
struct Signed {
    key: u8,
    product: u32,
    version: u32,
    flags: u32,
}

const FIRST: Signed = Signed { key: 1, product: 7, version: 3, flags: 0 };

fn main() {
    let blob = first();
    for (what, signed, expected) in [
        ("a later version", Signed { version: 4, ..FIRST }, Status::SUCCESS),
        ("the least version", Signed { version: 2, ..FIRST }, Status::SUCCESS),
        ("a lower version", Signed { version: 1, ..FIRST }, Status::OTHER),
        ("another product", Signed { product: 8, ..FIRST }, Status::OTHER),
        ("another signer", Signed { key: 2, ..FIRST }, Status::OTHER),
        ("one to be debugged", Signed { flags: DEBUG, ..FIRST }, Status::OTHER),
    ] {
        // Other code than the first one's.
        let pal = Pal::place(MODE, 1, second_code());
        check_eq!(register(&pal, &header(&pal, second_code(), signed)), 0, "registering {what}");
        put_blob(&pal, &blob);
        check_eq!(unseal(&pal), expected.0, "{what} unseals");
        let is_told = read(&pal, 0x600) == SECRET;
        check_eq!(is_told, expected == Status::SUCCESS, "{what} has the secret");
        check_eq!(pal.unregister(), 0, "unregistering");
    }
    forged(&blob);
    unsigned(&blob);
    unfit();
    prints();
}

/// Seals a word for versions from 2 on; gives the blob.
fn first() -> [u32; 65] {
    let pal = Pal::place(MODE, 0, commands_of_32_bits());
    check_eq!(register(&pal, &header(&pal, commands_of_32_bits(), FIRST)), 0, "registering");
    ask_first(&pal, "signed");
    buffers(&pal);
    write(&pal, 0x200, SECRET);
    let seal =
        |minimum| command(&pal, Command::SEAL_TO_SIGNER, [data(&pal, 0x10), minimum, data(&pal, 0x18), 0]);
    check_eq!(seal(4), Status::BAD_PARAMETER.0, "sealing for a version above its own");
    check_eq!(seal(2), 0, "sealing");
    let length = read(&pal, 0x20);
    let blob = core::array::from_fn(|index| match index {
        0 => length,
        _ => read(&pal, 0x300 + 4 * (index as u64 - 1)),
    });
    check_eq!(pal.unregister(), 0, "unregistering");
    blob
}

/// Has the PAL be measured, and its signature verified.
fn ask_first(pal: &Pal, what: &str) {
    let start = rdtsc();
    let gap = longest(|| {
        check_eq!(command(pal, Command::PCR_READ, [0x100, data(pal, 0x700), 0, 0]), 0, "reading a register");
    });
    let ticks = rdtsc() - start;
    println!("the first command of a PAL that is {what}: {ticks} ticks, {gap} without an interrupt");
    check!(gap < LIMIT, "{gap} ticks without an interrupt");
}

/// A PAL under a header that is not its own, or not as it was signed, has no microTPM.
fn forged(blob: &[u32; 65]) {
    let pal = Pal::place(MODE, 1, second_code());
    let good = header(&pal, second_code(), FIRST);
    let mut changed = good;
    changed.signature[17] ^= 4;
    let later = SignedHeader { version: 9, ..good };
    let others = header(&pal, commands_of_32_bits(), FIRST);
    for (what, header) in
        [("a changed signature", changed), ("a raised version", later), ("another PAL's header", others)]
    {
        let pal = Pal::place(MODE, 1, second_code());
        check_eq!(register(&pal, &header), 0, "registering with {what}");
        put_blob(&pal, blob);
        for command in [Command::RANDOM, Command::PCR_READ, Command::SEAL, Command::SEAL_TO_SIGNER] {
            let refused = self::command(&pal, command, [0, data(&pal, 0x700), 0, 0]);
            check_eq!(refused, Status::SIGNATURE.0, "{what}: {command:?}");
        }
        check_eq!(unseal(&pal), Status::SIGNATURE.0, "{what}: unsealing");
        check_eq!(pal.unregister(), 0, "unregistering");
    }
}

fn unsigned(blob: &[u32; 65]) {
    let pal = Pal::place(MODE, 1, second_code());
    check_eq!(pal.register(&PARAMETERS), 0, "registering");
    ask_first(&pal, "not signed");
    put_blob(&pal, blob);
    check_eq!(unseal(&pal), Status::OTHER.0, "a PAL that nobody signed unseals");
    write(&pal, 0x14, 4);
    let seal = command(&pal, Command::SEAL_TO_SIGNER, [data(&pal, 0x10), 0, data(&pal, 0x18), 0]);
    check_eq!(seal, Status::NOT_SIGNED.0, "and has no signer to seal for");
    check_eq!(
        command(&pal, Command::LOG, [data(&pal, 0), 4, 0, 0]),
        Status::NOT_DEBUG.0,
        "and does not print"
    );
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// Headers that cannot be taken; the pages stay the process's.
fn unfit() {
    let pal = Pal::place(MODE, 1, second_code());
    let good = header(&pal, second_code(), FIRST);
    for (what, header, status) in [
        ("another stack", SignedHeader { stack_pages: 2, ..good }, Status::SIGNED_HEADER),
        ("no stack", SignedHeader { stack_pages: 0, ..good }, Status::SIGNED_HEADER),
        ("unknown flags", SignedHeader { flags: 1 << 31, ..good }, Status::FLAGS),
    ] {
        check_eq!(register(&pal, &header), status.0, "{what}");
    }
    let _ = write8(HEADER, 0);
    for (address, status) in [(HEADER, Status::SIGNED_HEADER), (0xffff_ff80, Status::BAD_ADDRESS)] {
        let refused = pal::register_signed(MODE, &pal.sections(), &PARAMETERS, pal.entry(), address);
        check_eq!(refused, status.0, "a header at {address:#x}");
    }
    check_eq!(read8(pal.data()), Ok(0x90), "the process has its pages");
}

fn prints() {
    let pal = Pal::place(MODE, 1, second_code());
    let signed = Signed { flags: DEBUG, ..FIRST };
    check_eq!(register(&pal, &header(&pal, second_code(), signed)), 0, "registering");
    let text = b"signed and printing\n[0 INFO] no ";
    for (offset, word) in (0x400..).step_by(4).zip(text.as_chunks().0) {
        write(&pal, offset, u32::from_le_bytes(*word));
    }
    let length = text.len() as u64;
    check_eq!(command(&pal, Command::LOG, [data(&pal, 0x400), length, 0, 0]), 0, "printing");
    let beyond = command(&pal, Command::LOG, [pal.entry() + 4 * PAGE - 4, 8, 0, 0]);
    check_eq!(beyond, Status::BAD_ADDRESS.0, "printing what is not the PAL's");
    check_eq!(pal.unregister(), 0, "unregistering");
}

fn register(pal: &Pal, header: &SignedHeader) -> u32 {
    for (at, byte) in (HEADER..).zip(header.to_bytes()) {
        let _ = write8(at, byte);
    }
    pal::register_signed(MODE, &pal.sections(), &PARAMETERS, pal.entry(), HEADER)
}

/// The header that a signer makes for a PAL of `code`.
fn header(pal: &Pal, code: Snippet, signed: Signed) -> SignedHeader {
    let key = SigningKey::from_bytes(&[signed.key; 32]);
    let mut header = SignedHeader {
        flags: signed.flags,
        product: signed.product,
        version: signed.version,
        stack_pages: 1,
        measurement: measured(pal, code, signed.flags),
        public_key: key.verifying_key().to_bytes(),
        signature: [0; 64],
    };
    header.signature = key.sign(&header.signed_bytes()).to_bytes();
    header
}

/// Register 0 of the SHA-256 bank: by the header, and the contents of each section.
fn measured(pal: &Pal, code: Snippet, flags: u32) -> [u8; 32] {
    let mut header = Sha256::new().chain_update(b"XMHF PAL");
    for number in [1, 1, 4, flags] {
        header.update(number.to_le_bytes());
    }
    header.update(pal.entry().to_le_bytes());
    header.update([4, 0, 0, 0, 5, 0, 0, 0]);
    for section in pal.sections() {
        let rights: u32 = if section.kind == 1 { 5 } else { 3 };
        header.update(section.kind.to_le_bytes());
        header.update(rights.to_le_bytes());
        header.update(section.start.to_le_bytes());
        header.update(PAGE.to_le_bytes());
    }
    for (kind, words) in PARAMETERS {
        header.update((kind as u64).to_le_bytes());
        header.update(words.to_le_bytes());
    }
    let mut register = follow([0; 32], header);
    for section in pal.sections() {
        let mut contents = Sha256::new();
        for at in 0..PAGE {
            let byte = match section.kind {
                1 if at < code.length() as u64 => read8(code.address() + at).unwrap_or(0),
                1 => 0,
                _ => 0x90,
            };
            contents.update([byte]);
        }
        register = follow(register, contents);
    }
    register
}

fn follow(register: [u8; 32], hash: Sha256) -> [u8; 32] {
    Sha256::new().chain_update(register).chain_update(hash.finalize()).finalize().into()
}

/// The longest stretch without an interrupt while `act` is done.
fn longest(act: impl FnOnce()) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static GAP: AtomicU64 = AtomicU64::new(0);
    trap::handle(
        TIMER,
        Some(|_| {
            let now = rdtsc();
            GAP.fetch_max(now - LAST.swap(now, Ordering::Relaxed), Ordering::Relaxed);
            apic::end_of_interrupt();
            true
        }),
    );
    apic::write(register::TIMER_DIVIDE, 0xb);
    apic::write(register::LVT_TIMER, 1 << 17 | u32::from(TIMER));
    LAST.store(rdtsc(), Ordering::Relaxed);
    apic::write(register::TIMER_INITIAL, PERIOD);
    act();
    apic::write(register::TIMER_INITIAL, 0);
    GAP.load(Ordering::Relaxed)
}

/// Describes an input buffer at 0x200 of 4 bytes, and an output buffer at 0x300.
fn buffers(pal: &Pal) {
    let [input, output, length] = [0x200, 0x300, 0x20].map(|offset| low(data(pal, offset)));
    let words = [(0x10, input), (0x14, 4), (0x18, output), (0x1c, length)];
    words.iter().for_each(|&(offset, word)| write(pal, offset, word));
}

/// Puts a blob at 0x300, to be opened to 0x600.
fn put_blob(pal: &Pal, blob: &[u32; 65]) {
    buffers(pal);
    for (offset, word) in (0x300..).step_by(4).zip(&blob[1..]) {
        write(pal, offset, *word);
    }
    write(pal, 0x10, low(data(pal, 0x300)));
    write(pal, 0x14, blob[0]);
    write(pal, 0x18, low(data(pal, 0x600)));
}

fn unseal(pal: &Pal) -> u32 {
    command(pal, Command::UNSEAL_OWN, [data(pal, 0x10), data(pal, 0x18), 0, 0])
}

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

fn call(pal: &Pal, [a, b, c, d, e]: [u64; 5]) -> u32 {
    let called = pal.call([a, b, c, d, e, 0, 0, 0, 0, 0]);
    check!(called.is_ok_and(|regs| regs.rflags & CF == 0), "the call of {a:#x} came back: {called:x?}");
    called.map_or(u32::MAX, |regs| regs.eax())
}

/// Does the same, in another way.
fn second_code() -> Snippet {
    snippet!(code32:
        "nop",
        "push edi",
        "push esi",
        "mov eax, [esp + 12]",
        "mov ecx, [esp + 16]",
        "mov edx, [esp + 20]",
        "mov esi, [esp + 24]",
        "mov edi, [esp + 28]",
        "cmp eax, -1",
        "je 2f",
        "cmp eax, -2",
        "je 3f",
        "vmcall",
        "jmp 4f",
        "2: mov eax, [ecx]",
        "jmp 4f",
        "3: mov [ecx], edx",
        "4: pop esi",
        "pop edi",
        "ret"
    )
}
