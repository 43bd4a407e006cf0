//! A PAL seals as much as it may while a process holds and has torn all the memory that it can: the microTPM has its own.
//! memory: 1024
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::memory::{read8, write8, write64};
use guest::pal::{self, CF, PAGE, PALS};
use guest::{Mode, Snippet, check, check_eq, guest, snippet};
use trustvisor::command::Command;
use trustvisor::parameter::ParameterType::Integer;
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
const NARROW: Mode = Mode::CompatibilityUser32;
const SMALL: u64 = 0x100_0000;
const LARGE: u64 = 0x800_0000;
/// What the PAL's secret is hidden behind.
const HIDDEN: u64 = 0x1357_9bdf;

fn main() {
    victim();
    let mut count = 0;
    while register(SMALL + count * 2 * PAGE, 2) == 0 {
        count += 1;
    }
    for number in (0..count).step_by(2) {
        let entry = pal::user(MODE, SMALL + number * 2 * PAGE);
        let _ = pal::hypercall(MODE, Command::UNREGISTER.0, [entry, 0, 0, 0]);
    }
    let mut start = LARGE;
    for number in 0..400 {
        if register(start, 256) != 0 {
            check!(number > 0, "PALs of 256 pages");
            break;
        }
        start += 256 * PAGE;
    }
    let called = pal::call(NARROW, PALS, [HIDDEN, 0, 0, 0, 0, 0, 0, 0, 0, 0], pal::IF);
    let called = called.map(|regs| (regs.eax(), regs.rflags & CF));
    check_eq!(called, Ok((0, 0)), "sealing, with all taken that one process may take");
    check_eq!(pal::hypercall(NARROW, Command::UNREGISTER.0, [PALS, 0, 0, 0]), 0, "unregistering");
}

fn victim() {
    let code = code();
    for offset in 0..code.length() as u64 {
        let _ = write8(PALS + offset, read8(code.address() + offset).unwrap_or(0));
    }
    for offset in (PAGE..16 * PAGE).step_by(8) {
        let _ = write64(PALS + offset, 0);
    }
    let section = |kind: SectionType, start, pages| SectionRecord { kind: kind as u32, pages, start };
    let sections = [
        section(SectionType::Code, PALS, 1),
        section(SectionType::Data, PALS + PAGE, 10),
        section(SectionType::Parameters, PALS + 11 * PAGE, 1),
        section(SectionType::Stack, PALS + 12 * PAGE, 1),
    ];
    check_eq!(pal::register(NARROW, &sections, &[(Integer, 0)], PALS), 0, "registering the victim");
}

fn register(start: u64, pages: u64) -> u32 {
    let section = |kind: SectionType, start, pages: u64| SectionRecord {
        kind: kind as u32,
        pages: pages as u32,
        start: pal::user(MODE, start),
    };
    let sections = [
        section(SectionType::Code, start, 1),
        section(SectionType::Stack, start + PAGE, 1),
        section(SectionType::Data, start + 2 * PAGE, pages - 2),
    ];
    let count = if pages == 2 { 2 } else { 3 };
    pal::register(MODE, &sections[..count], &[], sections[0].start)
}

/// Seals 16 KiB, with a secret in EBX and EBP.
fn code() -> Snippet {
    snippet!(code32:
        "mov ebx, [esp + 4]",
        "xor ebx, 0x5ec2e7c0",
        "mov ebp, ebx",
        "mov dword ptr [0x301010], 0x302000",
        "mov dword ptr [0x301014], 16384",
        "mov dword ptr [0x301018], 0x306000",
        "mov dword ptr [0x30101c], 0x301020",
        "mov eax, 10",
        "mov ecx, 0x301010",
        "xor edx, edx",
        "mov esi, 0x301018",
        "vmcall",
        "xor ebx, ebx",
        "xor ebp, ebp",
        "ret"
    )
}
