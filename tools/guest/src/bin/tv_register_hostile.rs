//! Registrations that make no sense, or name what is not the process's: each has its error code.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::boot;
use guest::canary::Vault;
use guest::cpu::{rdmsr, wrmsr};
use guest::memory::{FREE, read64, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::run::USER_BASE;
use guest::space::{EXECUTE_DISABLE, Space, USER, WRITABLE, window};
use trustvisor::section::{SectionRecord, SectionType};
use x86::msr::Msr;

guest!(main);

const MODE: Mode = Mode::User64;
/// EFER.NXE.
const EXECUTE_DISABLE_ENABLE: u64 = 1 << 11;
/// More PALs than there can be.
const MANY: u64 = 1600;

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
    rights_of_pages();
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

/// What the process itself may not do with a page, its PAL may not either.
fn rights_of_pages() {
    let _ = wrmsr(Msr::IA32_EFER, rdmsr(Msr::IA32_EFER).unwrap_or(0) | EXECUTE_DISABLE_ENABLE);
    let space = Space::new(FREE + 0x4_0000);
    let [code, data, parameters, stack] = [0, 1, 2, 3];
    let all = USER | WRITABLE;
    let cases = [
        ("all rights", code, all, 0),
        ("code that is not the process's to write", code, USER, Status::SECTION_NOT_MAPPED.0),
        ("code that cannot be executed", code, all | EXECUTE_DISABLE, Status::SECTION_NOT_MAPPED.0),
        ("the system's code", code, WRITABLE, Status::SECTION_NOT_MAPPED.0),
        ("data that cannot be executed", data, all | EXECUTE_DISABLE, 0),
        ("read-only data", data, USER, Status::SECTION_NOT_MAPPED.0),
        ("the system's data", data, WRITABLE, Status::SECTION_NOT_MAPPED.0),
        ("read-only parameters", parameters, USER, Status::SECTION_NOT_MAPPED.0),
        ("a read-only stack", stack, USER, Status::SECTION_NOT_MAPPED.0),
        ("the system's stack", stack, WRITABLE, Status::SECTION_NOT_MAPPED.0),
    ];
    let vault = Vault::place(0).seen_at(window(0));
    for (what, page, rights, expected) in cases {
        (0..4).for_each(|page| space.map(page, vault.at + page * PAGE, all));
        space.map(page, vault.at + page * PAGE, rights);
        let status = space.within(|| vault.register());
        check_eq!(status, expected, "{what}");
        if status == 0 {
            check_eq!(space.within(|| vault.unregister()), 0, "{what}: unregistering");
        }
    }
    (0..4).for_each(|page| space.map(page, vault.at + page * PAGE, all));
    space.map(stack, vault.at + data * PAGE, all);
    check_eq!(space.within(|| vault.register()), Status::SECTION_OVERLAP.0, "a page by two addresses");
    space.unmap(stack);
    check_eq!(space.within(|| vault.register()), Status::SECTION_NOT_MAPPED.0, "a page that is not there");
    the_tables_themselves(&space, &vault);
}

/// The system hides its own page table from itself: the window is gone, and a write brings it back.
fn the_tables_themselves(space: &Space, vault: &Vault) {
    (0..4).for_each(|page| space.map(page, vault.at + page * PAGE, USER | WRITABLE));
    let tables = space.entry(0) & !0xfff;
    space.map(1, tables, USER | WRITABLE);
    check_eq!(space.within(|| vault.register()), 0, "a page table as data");
    let gone = space.within(|| read64(window(2))).map_err(|fault| fault.vector);
    check_eq!(gone, Err(14), "what the table mapped");
    space.map(2, PALS, USER | WRITABLE);
    check!(space.within(|| read64(window(2))).is_ok(), "what was written to it since");
    space.map(0, vault.at, USER | WRITABLE);
    check_eq!(space.within(|| vault.unregister()), 0, "unregistering");
}

/// Registers PALs of two pages until there is no room, which is an error and no more; then all of it comes back.
fn until_memory_is_out() {
    let place = |number: u64| USER_BASE + PALS + 2 * PAGE * number;
    let section = |kind: SectionType, start| SectionRecord { kind: kind as u32, pages: 1, start };
    let register = |number: u64| {
        let start = place(number);
        let sections = [section(SectionType::Code, start), section(SectionType::Stack, start + PAGE)];
        pal::register(MODE, &sections, &[], start)
    };
    let unregister = |number| pal::hypercall(MODE, Command::UNREGISTER.0, [place(number), 0, 0, 0]);
    let registered = (0..MANY).take_while(|&number| register(number) == 0).count() as u64;
    guest::println!("{registered} PALs registered");
    check!((1100..1200).contains(&registered), "{registered} registrations");
    check_eq!(register(registered), Status::QUOTA.0, "one more");
    for number in [0, registered / 2, registered - 1] {
        check_eq!(read64(place(number) - USER_BASE + PAGE), Ok(0), "PAL {number} is hidden");
    }
    let left = (0..registered).filter(|&number| unregister(number) != 0).count();
    check_eq!(left, 0, "PALs that are not unregistered");
    let end = PALS + 2 * PAGE * registered;
    let closed = (PALS..end).step_by(4096).filter(|&page| write64(page, 5) != Ok(())).count();
    check_eq!(closed, 0, "pages that are not the guest's again");
    check_eq!((register(0), unregister(0)), (0, 0), "memory is back");
}
