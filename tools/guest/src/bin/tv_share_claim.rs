//! Pages that a process shared once and gave back are another process's; pages shared below a PAL's stack do not take its overflow.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::memory::{FREE, read32, write32, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::println;
use trustvisor::flags;
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::CompatibilityUser32;
const INTEGERS: [(ParameterType, u64); 1] = [(ParameterType::Integer, 0); 1];
const LISTS: u64 = FREE + 0x4_0000;
const PLAIN: u64 = PALS + 0x2_0000;

fn main() {
    claimed();
    overflow();
    refused();
}

/// A PAL that was registered as one that shares nothing.
fn refused() {
    let pal = Pal::place(MODE, 0, snippet!(code32: "ret"));
    let status = pal::register_with_flags(MODE, &pal.sections(), &INTEGERS, pal.entry(), flags::ABORTABLE);
    check_eq!(status, 0, "registering");
    check_eq!(share(pal.entry(), PLAIN, PAGE), Status::NO_SHARE.0, "sharing");
    check_eq!(pal.unregister(), 0, "unregistering");
    let unknown = pal::register_with_flags(MODE, &pal.sections(), &INTEGERS, pal.entry(), 1 << 31);
    check_eq!(unknown, Status::FLAGS.0, "a flag that is none");
}

fn share(entry: u64, start: u64, length: u64) -> u32 {
    let _ = write32(LISTS, start as u32).and(write32(LISTS + 8, length as u32));
    pal::hypercall(MODE, Command::SHARE.0, [entry, LISTS, LISTS + 8, 1])
}

fn claimed() {
    let pal = Pal::place(MODE, 0, snippet!(code32: "ret"));
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    check_eq!(share(pal.entry(), PLAIN, 4 * PAGE), 0, "sharing four pages");
    // The process unmaps the four pages. The system uses them for itself, and then for another process.
    for offset in (0..4 * PAGE).step_by(8) {
        check_eq!(write64(PLAIN + offset, 0), Ok(()), "the system writes");
    }
    let mut sections = Pal::place(MODE, 2, snippet!(code32: "ret")).sections();
    sections[1].start = PLAIN;
    let status = pal::register(MODE, &sections, &INTEGERS, sections[0].start);
    println!("another process's PAL over a page that somebody shared once: status {status}");
    check_eq!(status, 0, "registering it");
    let _ = pal::hypercall(MODE, Command::UNREGISTER.0, [sections[0].start, 0, 0, 0]);
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// A PAL that needs more stack than it has, and has a secret there.
fn overflow() {
    let pal = Pal::place(
        MODE,
        0,
        snippet!(code32:
            // Frames of 256 bytes, a secret in each.
            "mov ecx, 20",
            "2: sub esp, 256",
            "mov dword ptr [esp], 0x5ec2e7c0",
            "dec ecx",
            "jnz 2b",
            "add esp, 256 * 20",
            "xor eax, eax",
            "ret"
        ),
    );
    let section = |kind: SectionType, start| SectionRecord { kind: kind as u32, pages: 1, start };
    let sections = [
        section(SectionType::Code, pal.at),
        section(SectionType::Data, pal.at + PAGE),
        section(SectionType::Stack, pal.at + 8 * PAGE),
    ];
    for is_shared in [false, true] {
        for offset in (7 * PAGE..9 * PAGE).step_by(8) {
            let _ = write64(pal.at + offset, 0);
        }
        check_eq!(pal::register(MODE, &sections, &[], pal.entry()), 0, "registering");
        if is_shared {
            check_eq!(
                share(pal.entry(), pal.at + 7 * PAGE, PAGE),
                Status::STACK_GUARD.0,
                "sharing the page below the stack"
            );
        }
        let called = pal.call([0; 10]).map(|regs| (regs.eax(), regs.rflags & CF));
        let seen =
            (0..PAGE).step_by(4).filter(|at| read32(pal.at + 7 * PAGE + at) == Ok(0x5ec2_e7c0)).count();
        println!(
            "shared: {is_shared}; an overflow of the stack comes to {called:x?}; secrets that the process sees: {seen}"
        );
        check_eq!(seen, 0, "secrets of the PAL's stack");
        check_eq!(pal.unregister(), 0, "unregistering");
    }
}
