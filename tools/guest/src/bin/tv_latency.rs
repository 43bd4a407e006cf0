//! How long registering the most pages, giving them back and passing a large parameter keep interrupts waiting: never 100,000 ticks.
//! memory: 256
//! model: corei7_skylake_x
//! cmdline: log=warn
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::memory::{FREE, read64, write64};
use guest::pal::{self, CF, PAGE, PALS};
use guest::{Mode, check, check_eq, guest, latency, println, snippet};
use trustvisor::command::Command;
use trustvisor::parameter::{self, ParameterType};
use trustvisor::section::{self, SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
const LIMIT: u64 = 100_000;
/// Where the data of the PALs is, and a buffer of the process's.
const DATA: u64 = 0x100_0000;
const BUFFER: u64 = 0x300_0000;
/// Words of the buffer: 64 KiB.
const WORDS: u64 = 8 << 10;

fn main() {
    let _ = pal::Pal::place(MODE, 0, snippet!("mov rax, [rdi + 8 * 8191]", "inc qword ptr [rdi]", "ret"));
    most_pages();
    most_parameters();
    most_sections();
}

fn longest<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let (result, gap) = latency::longest(act);
    println!("bench interrupts_off_{what} ticks={gap}");
    check!(gap < LIMIT, "{what}: {gap} ticks without an interrupt");
    result
}

/// A page of code, one of stack, and `pages` of another type.
fn few_sections(kind: SectionType, pages: u64) -> [SectionRecord; 3] {
    let section = |kind: SectionType, start, pages: u64| SectionRecord {
        kind: kind as u32,
        pages: pages as u32,
        start: pal::user(MODE, start),
    };
    [
        section(SectionType::Code, PALS, 1),
        section(SectionType::Stack, PALS + PAGE, 1),
        section(kind, DATA, pages),
    ]
}

fn entry() -> u64 {
    pal::user(MODE, PALS)
}

fn unregister(what: &str) {
    let status = longest(what, || pal::hypercall(MODE, Command::UNREGISTER.0, [entry(), 0, 0, 0]));
    check_eq!(status, 0, "unregistering");
}

/// As many as a PAL can have, of which each has something in it.
fn most_pages() {
    for page in 0..4094 {
        let _ = write64(DATA + page * PAGE, page + 1);
    }
    let sections = few_sections(SectionType::Data, 4094);
    let status = longest("register", || pal::register(MODE, &sections, &[], entry()));
    check_eq!(status, 0, "registering");
    unregister("unregister");
}

/// A parameter that is copied in and out.
fn most_parameters() {
    for word in [0, WORDS - 1] {
        let _ = write64(BUFFER + 8 * word, 40 + word);
    }
    let sections = few_sections(SectionType::Parameters, WORDS * 8 / PAGE + 1);
    check_eq!(pal::register(MODE, &sections, &[(ParameterType::Pointer, WORDS)], entry()), 0, "registering");
    let mut arguments = [0; 10];
    arguments[0] = pal::user(MODE, BUFFER);
    let called = longest("call", || pal::call(MODE, entry(), arguments, pal::IF));
    let outcome = called.map(|regs| (regs.rax, regs.rflags & CF));
    check_eq!(outcome, Ok((40 + WORDS - 1, 0)), "what a call with the parameter returns");
    check_eq!(read64(BUFFER), Ok(41), "its first word behind the call");
    unregister("unregister_parameters");
}

/// As many as a PAL can have, each alone in its 2 MiB and with something in it, and as many parameters.
fn most_sections() {
    const APART: u64 = 2 << 20;
    let sections: [SectionRecord; section::CAPACITY] = core::array::from_fn(|index| {
        let (kind, at) = match index as u64 {
            0 => (SectionType::Code, PALS),
            1 => (SectionType::Stack, PALS + PAGE),
            2 => (SectionType::Parameters, PALS + 2 * PAGE),
            index => (SectionType::Data, DATA + index * APART),
        };
        if kind == SectionType::Data {
            (0..PAGE).step_by(8).for_each(|offset| _ = write64(at + offset, at + offset));
        }
        SectionRecord { kind: kind as u32, pages: 1, start: pal::user(MODE, at) }
    });
    let parameters = [(ParameterType::Integer, 0); parameter::CAPACITY];
    // Refused, but the lists are where they have to be: putting them there takes longer than all else.
    check!(pal::register(MODE, &sections, &parameters, 1) != 0, "registering with an entry nowhere");
    let arguments = [pal::user(MODE, FREE), 0, pal::user(MODE, FREE + PAGE), entry()];
    let status = longest("register_scattered", || pal::hypercall(MODE, Command::REGISTER.0, arguments));
    check_eq!(status, 0, "registering");
    unregister("unregister_scattered");
}
