//! How long each command of a PAL's microTPM keeps interrupts waiting: never 100,000 ticks.
//! model: corei7_skylake_x
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::{read8, write8, write32};
use guest::pal::{self, CF, PAGE, PALS};
use guest::{Mode, Snippet, check, check_eq, guest, latency, println, snippet};
use trustvisor::command::Command;
use trustvisor::parameter::ParameterType::Integer;
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

/// Descriptions of buffers have 32 bits, which is where this mode's PALs are.
const MODE: Mode = Mode::CompatibilityUser32;
const LIMIT: u64 = 100_000;
/// The PAL's data, with descriptions of buffers in its first page.
const DATA: u64 = PALS + PAGE;
const DATA_PAGES: u32 = 4;
const RESULT: u64 = DATA + PAGE;

/// Descriptions: a value by address.
const WORDS: [(u64, u64); 12] = [
    // Random bytes; room for the key, the signature and the composite.
    (DATA, 32),
    (DATA + 0x10, 300),
    (DATA + 0x14, 256),
    (DATA + 0x18, 300),
    // Input and output of sealing; composite and signature of a quote.
    (DATA + 0x20, DATA + 0x800),
    (DATA + 0x24, 64),
    (DATA + 0x28, RESULT),
    (DATA + 0x2c, DATA + 0x1c),
    (DATA + 0x38, RESULT),
    (DATA + 0x3c, DATA + 0x14),
    (DATA + 0x30, RESULT + 0x100),
    (DATA + 0x34, DATA + 0x18),
];

fn main() {
    place();
    let sections = [
        section(SectionType::Code, PALS, 1),
        section(SectionType::Data, DATA, DATA_PAGES),
        section(SectionType::Parameters, DATA + 8 * PAGE, 1),
        section(SectionType::Stack, DATA + 9 * PAGE, 1),
    ];
    check_eq!(pal::register(MODE, &sections, &[(Integer, 0); 5], PALS), 0, "registering");
    // All registers of the SHA-256 bank.
    let selection = DATA + 0x40;
    longest("measure", Command::PCR_READ, [0, RESULT, 0, 0]);
    longest("pcr_extend", Command::PCR_EXTEND, [0x101, DATA, 0, 0]);
    longest("random", Command::RANDOM, [RESULT, DATA, 0, 0]);
    longest("seal", Command::SEAL, [DATA + 0x20, 0, DATA + 0x28, 0]);
    longest("key", Command::ID_GETPUB, [RESULT, DATA + 0x10, 0, 0]);
    longest("quote", Command::QUOTE, [selection, DATA + 0x38, DATA + 0x80, DATA + 0x30]);
    check_eq!(pal::hypercall(MODE, Command::UNREGISTER.0, [PALS, 0, 0, 0]), 0, "unregistering");
}

fn longest(what: &str, Command(command): Command, [ecx, edx, esi, edi]: [u64; 4]) {
    let arguments = [command.into(), ecx, edx, esi, edi, 0, 0, 0, 0, 0];
    let start = guest::cpu::rdtsc();
    let (called, gap) = latency::longest(|| pal::call(MODE, PALS, arguments, pal::IF));
    println!("{what}: {} ticks", guest::cpu::rdtsc() - start);
    println!("bench interrupts_off_microtpm_{what} ticks={gap}");
    let outcome = called.map(|regs| (regs.eax(), regs.rflags & CF));
    check_eq!(outcome, Ok((0, 0)), "what the command {what} returns");
    check!(gap < LIMIT, "{what}: {gap} ticks without an interrupt");
}

fn section(kind: SectionType, start: u64, pages: u32) -> SectionRecord {
    SectionRecord { kind: kind as u32, pages, start }
}

fn place() {
    let code = code();
    for (at, from) in (PALS..).zip(code.address()..code.address() + code.length() as u64) {
        let _ = write8(at, read8(from).unwrap_or(0));
    }
    for at in (DATA..DATA + 10 * PAGE).step_by(4) {
        let _ = write32(at, 0);
    }
    WORDS.iter().for_each(|&(at, word)| _ = write32(at, guest::memory::low(word)));
    let _ = write32(DATA + 0x40, 0x00ff_8001);
}

fn code() -> Snippet {
    snippet!(code32:
        "push esi",
        "push edi",
        "mov eax, [esp + 12]",
        "mov ecx, [esp + 16]",
        "mov edx, [esp + 20]",
        "mov esi, [esp + 24]",
        "mov edi, [esp + 28]",
        "vmcall",
        "pop edi",
        "pop esi",
        "ret"
    )
}
