//! A PAL with another entry, other parameters or another word size is another PAL: it opens nothing of the first one's.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::memory::{FREE, open_low_memory_to_users, read8, read32, write8, write32, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::println;
use trustvisor::parameter::ParameterType::{self, Integer, Pointer};

guest!(main);

const MODE: Mode = Mode::CompatibilityUser32;
/// What the PAL was made for: what to do, a password, a buffer.
const HONEST: [(ParameterType, u64); 3] = [(Integer, 0), (Integer, 0), (Pointer, 64)];
const CREATE: u64 = 0;
const OPEN: u64 = 1;
const TELL: u64 = 2;
const PIN: u64 = 4711;
/// The process's buffer, a copy of it that the process shares, and the lists of that.
const BUFFER: u64 = PALS + 0x2_0000;
const SHARED: u64 = PALS + 0x3_0000;
const LISTS: u64 = FREE + 0x4_0000;

fn main() {
    // Code, data, parameters and stack from 0x300000 on.
    let pal = Pal { at: PALS, mode: MODE };
    place(&pal);
    check_eq!(pal.register(&HONEST), 0, "registering");
    check_eq!(call(&pal, [CREATE, PIN, BUFFER]), Ok((0, 0)), "a secret is drawn, and sealed with its PIN");
    let length = read32(BUFFER).unwrap_or(0);
    check!(length > 40, "the blob has {length} bytes");
    let secret = call(&pal, [TELL, 0, BUFFER]).map(|(secret, _)| secret);
    check_eq!(secret, Ok(0), "without its PIN the PAL tells nothing");
    let blob: [u32; 64] = core::array::from_fn(|index| read32(BUFFER + 4 * index as u64).unwrap_or(0));
    check_eq!(pal.unregister(), 0, "unregistering");

    // Its owner, who knows the PIN.
    place(&pal);
    put(BUFFER, &blob);
    check_eq!(pal.register(&HONEST), 0, "registering anew");
    check_eq!(call(&pal, [OPEN, 0, BUFFER]), Ok((0, 0)), "the blob opens");
    let _ = write32(BUFFER, PIN as u32);
    let secret = call(&pal, [TELL, 0, BUFFER]).map_or(0, |(secret, _)| secret);
    println!("the PAL tells its secret to who knows the PIN: {secret:#x}");
    check!(secret != 0, "the secret");
    check_eq!(pal.unregister(), 0, "unregistering");

    other_entry(&pal, &blob, secret);
    other_parameters(&pal, &blob, secret);
    other_words();
}

/// The system registers the same sections, with an entry behind the check of the password.
fn other_entry(pal: &Pal, blob: &[u32; 64], secret: u32) {
    place(pal);
    put(BUFFER, blob);
    let entry = pal.entry() + (checked().length() - 2) as u64;
    check_eq!(pal::register(MODE, &pal.sections(), &HONEST, entry), 0, "registering with another entry");
    let told = pal::call(MODE, entry, [3, 0, BUFFER, 0, 0, 0, 0, 0, 0, 0], pal::IF);
    let told = told.map_or(0, |regs| regs.eax());
    println!("entered at {entry:#x} the PAL tells {told:#x}");
    check!(told != secret, "another entry opens what was sealed");
    let _ = pal::hypercall(MODE, Command::UNREGISTER.0, [entry, 0, 0, 0]);
}

/// The system registers the same sections, with an integer for the pointer: it may name the PAL's own memory.
fn other_parameters(pal: &Pal, blob: &[u32; 64], secret: u32) {
    place(pal);
    put(SHARED, blob);
    check_eq!(pal.register(&[(Integer, 0); 3]), 0, "registering with other parameters");
    let _ = write32(LISTS, SHARED as u32).and(write32(LISTS + 8, PAGE as u32));
    let shared = pal::hypercall(MODE, Command::SHARE.0, [pal.entry(), LISTS, LISTS + 8, 1]);
    check_eq!(shared, 0, "sharing");
    let opened = call(pal, [OPEN, 0, SHARED]);
    // The PIN is compared with itself.
    let told = call(pal, [TELL, 0, pal.data() + 0x44]).map_or(0, |(told, _)| told);
    println!("with an integer for the pointer: opened {opened:x?}, the PAL tells {told:#x}");
    check!(told != secret, "other parameters open what was sealed");
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// The same bytes are other instructions in a process of the other word size.
fn other_words() {
    let pal = Pal::place(MODE, 1, both());
    let value = |base: u64| -> [u32; 8] {
        core::array::from_fn(|index| read32(base + 4 * index as u64).unwrap_or(0))
    };
    check_eq!(pal.register(&[(Integer, 0), (Pointer, 8)]), 0, "registering from 32 bits");
    let narrow = pal.call([0, BUFFER, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.eax(), regs.rflags & CF));
    let of_narrow = value(BUFFER);
    check_eq!(pal.unregister(), 0, "unregistering");
    for offset in (PAGE..4 * PAGE).step_by(8) {
        let _ = write64(pal.at + offset, 0x9090_9090_9090_9090);
    }
    for offset in 0..32 {
        let _ = write8(BUFFER + offset, 0);
    }
    let mut parameters = [(Integer, 0); 7];
    parameters[6] = (Pointer, 4);
    open_low_memory_to_users(true);
    let registered = pal::register(Mode::User64, &pal.sections(), &parameters, pal.entry());
    open_low_memory_to_users(true);
    let wide = pal::call(Mode::User64, pal.entry(), [0, 0, 0, 0, 0, 0, BUFFER, 0, 0, 0], pal::IF)
        .map(|regs| (regs.eax(), regs.rflags & CF));
    let of_wide = value(BUFFER);
    let _ = pal::hypercall(Mode::User64, Command::UNREGISTER.0, [pal.entry(), 0, 0, 0]);
    open_low_memory_to_users(false);
    println!("from 32 bits: {narrow:x?} {of_narrow:x?}");
    println!("from 64 bits: {registered} {wide:x?} {of_wide:x?}");
    check!(of_narrow != of_wide, "register 0 is the same for either word size");
}

fn place(pal: &Pal) {
    let _ = Pal::place(MODE, 0, checked());
    let code = unchecked();
    let start = pal.at + (checked().length() - 2) as u64;
    for offset in 0..code.length() as u64 {
        let _ = write8(start + offset, read8(code.address() + offset).unwrap_or(0));
    }
}

fn put(at: u64, words: &[u32; 64]) {
    for (at, word) in (at..).step_by(4).zip(words) {
        let _ = write32(at, *word);
    }
}

fn call(pal: &Pal, [what, password, buffer]: [u64; 3]) -> Result<(u32, u64), guest::Fault> {
    pal.call([what, password, buffer, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.eax(), regs.rflags & CF))
}

/// 0: draws a secret and seals it with the PIN. 1: opens the blob. 2: tells the secret to who knows the PIN. 3: both,
/// for who knows a password.
fn checked() -> Snippet {
    snippet!(code32:
        "mov edi, [esp + 12]",
        "cmp dword ptr [esp + 4], 1",
        "je 3f",
        "cmp dword ptr [esp + 4], 2",
        "je 4f",
        "cmp dword ptr [esp + 4], 3",
        "je 5f",
        // Four random bytes at 0x301040, the PIN behind them.
        "mov dword ptr [0x301080], 4",
        "mov eax, 9",
        "mov ecx, 0x301040",
        "mov edx, 0x301080",
        "push edi",
        "vmcall",
        "pop edi",
        "mov eax, [esp + 8]",
        "mov [0x301044], eax",
        "mov dword ptr [0x301010], 0x301040",
        "mov dword ptr [0x301014], 8",
        // Register 0 as it is.
        "mov dword ptr [0x301020], 0x00014001",
        "lea ecx, [edi + 4]",
        "mov [0x301018], ecx",
        "mov [0x30101c], edi",
        "mov eax, 10",
        "mov ecx, 0x301010",
        "mov edx, 0x301020",
        "mov esi, 0x301018",
        "vmcall",
        "ret",
        "3: lea ecx, [edi + 4]",
        "mov [0x301010], ecx",
        "mov ecx, [edi]",
        "mov [0x301014], ecx",
        "mov dword ptr [0x301018], 0x301040",
        "mov dword ptr [0x30101c], 0x301080",
        "mov eax, 11",
        "mov ecx, 0x301010",
        "mov edx, 0x301018",
        "mov esi, 0x301090",
        "vmcall",
        "ret",
        "4: mov eax, [edi]",
        "cmp eax, [0x301044]",
        "jne 9f",
        "mov eax, [0x301040]",
        "ret",
        "9: xor eax, eax",
        "ret",
        "5: cmp dword ptr [esp + 8], 0x5ec2e7c0",
        "jne 9b"
    )
}

fn unchecked() -> Snippet {
    snippet!(code32:
        "mov edi, [esp + 12]",
        "lea ecx, [edi + 4]",
        "mov [0x301010], ecx",
        "mov ecx, [edi]",
        "mov [0x301014], ecx",
        "mov dword ptr [0x301018], 0x301040",
        "mov dword ptr [0x30101c], 0x301080",
        "mov eax, 11",
        "mov ecx, 0x301010",
        "mov edx, 0x301018",
        "mov esi, 0x301090",
        "vmcall",
        "mov eax, [0x301040]",
        "ret"
    )
}

/// Gives register 0 of the larger bank, and 1 where it is code of 32 bits.
fn both() -> Snippet {
    snippet!(code32:
        "mov eax, 7",
        "mov ecx, [esp + 4]",
        "or ecx, 0x100",
        "mov edx, [esp + 8]",
        "vmcall",
        ".byte 0x40",
        "nop",
        "ret"
    )
}
