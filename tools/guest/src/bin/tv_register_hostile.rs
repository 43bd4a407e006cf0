//! Registrations that make no sense, or name what is not the process's: each has its error code.
//! hypapp: trustvisor
//! memory: 64
//! bare: no
#![no_std]
#![no_main]

use guest::boot;
use guest::memory::{FREE, read64, write64};
use guest::pal::{self, PAGE, PALS, Pal};
use guest::run::USER_BASE;
use guest::{Mode, check, check_eq, guest, snippet};
use trustvisor::command::Command;
use trustvisor::parameter::ParameterType;
use trustvisor::section::{SectionRecord, SectionType};
use trustvisor::status::Status;

guest!(main);

const MODE: Mode = Mode::User64;

fn main() {
    let pal = Pal::place(MODE, 0, snippet!("mov eax, 7", "ret"));
    let sections = pal.sections();
    let with = |index: usize, section: SectionRecord| {
        let mut changed = sections;
        changed[index] = section;
        pal::register(MODE, &changed, &[], pal.entry())
    };
    let data =
        |start: u64, pages: u32| with(1, SectionRecord { kind: SectionType::Data as u32, pages, start });
    sizes_and_addresses(&data);
    check_eq!(data(pal.entry(), 1), Status::SECTION_OVERLAP.0, "a section twice");
    check_eq!(with(1, SectionRecord { kind: 9, ..sections[1] }), Status::SECTION_TYPE.0, "type 9");
    check_eq!(with(3, SectionRecord { kind: 2, ..sections[3] }), Status::SECTION_MISSING.0, "no stack");
    check_eq!(pal::register(MODE, &[], &[], pal.entry()), Status::SECTION_COUNT.0, "no section");
    check_eq!(
        pal::register(MODE, &[sections[0]; 65], &[], pal.entry()),
        Status::SECTION_COUNT.0,
        "65 sections"
    );
    let integer = (ParameterType::Integer, 0);
    check_eq!(pal.register(&[integer; 65]), Status::PARAMETER_COUNT.0, "65 parameters");
    check_eq!(
        pal.register(&[(ParameterType::Pointer, u64::MAX / 8)]),
        Status::PARAMETER_SIZE.0,
        "a huge parameter"
    );
    for entry in [0, pal.entry() - 1, pal.entry() + PAGE, u64::MAX, 1 << 63] {
        check_eq!(pal::register(MODE, &sections, &[], entry), Status::ENTRY_NOT_CODE.0, "entry {entry:#x}");
    }
    lists_anywhere();
    what_is_not_memory(&data);
    others_pages(&pal);
    check_eq!(pal.register(&[integer; 64]), 0, "64 parameters");
    check_eq!(pal.call([0; 10]).map(|regs| regs.rax), Ok(7), "after all that a PAL works");
    check_eq!(pal.unregister(), 0, "unregistering");
    until_memory_is_out();
}

fn sizes_and_addresses(data: &impl Fn(u64, u32) -> u32) {
    let free = USER_BASE + PALS + 64 * PAGE;
    for pages in [0, 4097, u32::MAX] {
        check_eq!(data(free, pages), Status::SECTION_SIZE.0, "{pages} pages");
    }
    let bad = [0, free + 1, free + 8, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX - 4095, u64::MAX];
    for start in bad {
        check_eq!(data(start, 1), Status::SECTION_ADDRESS.0, "start {start:#x}");
    }
    check_eq!(data((1 << 47) - PAGE, 2), Status::SECTION_ADDRESS.0, "over the end");
    check_eq!(data((1 << 47) - PAGE, 1), Status::SECTION_NOT_MAPPED.0, "nothing mapped");
    check_eq!(data(PALS + 64 * PAGE, 1), Status::SECTION_NOT_MAPPED.0, "the kernel's address");
}

fn lists_anywhere() {
    for address in [0, 1, 4, 0x8000, 1 << 46, 1 << 47, 1 << 63, u64::MAX, u64::MAX - 7] {
        for registers in [[address, 0, USER_BASE + FREE, 0], [USER_BASE + FREE, 0, address | 1 << 45, 0]] {
            let status = pal::hypercall(MODE, Command::REGISTER.0, registers);
            check!(status != 0 && status != u32::MAX, "lists at {registers:x?}: {status}");
        }
        let status = pal::hypercall(MODE, Command::UNREGISTER.0, [address, 0, 0, 0]);
        check_eq!(status, Status::NOT_REGISTERED.0, "unregistering {address:#x}");
    }
    let status = pal::hypercall(Mode::Kernel64, Command::REGISTER.0, [FREE, 0, FREE + PAGE, PALS]);
    check_eq!(status, Status::NOT_A_PROCESS.0, "from ring 0");
}

/// The hypervisor's region, the local APIC, the video memory, and beyond all memory.
fn what_is_not_memory(data: &impl Fn(u64, u32) -> u32) {
    let reserved = |record: &&boot::Record| record.kind == 2 && record.base() >= 1 << 20;
    let hidden = boot::e820_24().iter().filter(reserved).find(|record| record.base() < 0xf000_0000);
    check!(hidden.is_some(), "there is hidden memory");
    let hidden = hidden.map_or(0, boot::Record::base);
    for (what, address) in [
        ("the hypervisor", hidden),
        ("the local APIC", 0xfee0_0000),
        ("video memory", 0xb_8000),
        ("no memory", 0xc000_0000),
    ] {
        check_eq!(data(USER_BASE + address, 1), Status::PAGE_NOT_MEMORY.0, "{what}");
    }
}

fn others_pages(pal: &Pal) {
    check_eq!(pal.register(&[]), 0, "registering");
    let other = Pal::place(MODE, 1, snippet!("ret"));
    let mut sections = other.sections();
    for taken in pal.sections() {
        sections[1].start = taken.start;
        check_eq!(
            pal::register(MODE, &sections, &[], other.entry()),
            Status::PAGE_TAKEN.0,
            "another PAL's page"
        );
        // Reading the lists from a PAL's pages finds zeros.
        let status = pal::hypercall(MODE, Command::REGISTER.0, [taken.start, 0, 0, other.entry()]);
        check_eq!(status, Status::SECTION_COUNT.0, "lists in a PAL's page");
    }
    check_eq!(pal.unregister(), 0, "unregistering");
}

/// Registers until there is no room, which is an error and no more; then all of it comes back.
fn until_memory_is_out() {
    let pal = |number: u64| Pal { at: PALS + (4 + number) * 4 * PAGE, mode: MODE };
    let end =
        boot::e820_24().iter().filter(|r| r.kind == 1).map(|r| r.end()).max().unwrap_or(0).min(0x300_0000);
    let most = (end - PALS) / (4 * PAGE) - 8;
    let registered = (0..most).take_while(|&number| pal(number).register(&[]) == 0).count() as u64;
    guest::println!("{registered} PALs registered, of at most {most}");
    check!(registered >= 1000, "{registered} registrations");
    for number in [0, registered / 2, registered - 1] {
        check_eq!(read64(pal(number).data()), Ok(0), "PAL {number} is hidden");
    }
    for number in 0..registered {
        if pal(number).unregister() != 0 {
            check!(false, "PAL {number} is not unregistered");
            return;
        }
    }
    check_eq!(write64(pal(0).at, 5), Ok(()), "memory is back");
    check_eq!(pal(0).register(&[]), 0, "and can be registered again");
    check_eq!(pal(0).unregister(), 0, "and unregistered");
}
