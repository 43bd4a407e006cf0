//! What cannot be shared with a PAL has an error code each; what is shared is the process's too, and never another PAL's.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses below 4 GiB, selectors, and patterns of bytes"
)]

use guest::boot;
use guest::canary::{self, Vault};
use guest::memory::{FREE, read64, write32, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use trustvisor::call::Failure;

guest!(main);

/// Lists of 32 bits, and addresses that fit them.
const MODE: Mode = Mode::CompatibilityUser32;
const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
const ADDRESSES: u64 = FREE + 0x4_0000;
const LENGTHS: u64 = ADDRESSES + 0x1000;
/// A page to share.
const PLAIN: u64 = PALS + 0x2_0000;

fn main() {
    let vault = Vault::open(1);
    let pal = Pal::place(
        MODE,
        0,
        snippet!(code32: "mov edx, [esp + 4]", "mov eax, [esp + 8]", "xchg eax, [edx]", "ret"),
    );
    check_eq!(share(&pal, &[(PLAIN, PAGE)]), Status::NOT_REGISTERED.0, "sharing with none");
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    refused(&pal, &vault);
    shared(&pal);
    check_eq!(pal.unregister(), 0, "unregistering");
    dead(&vault);
    check!(vault.knows(), "the other PAL goes on");
    check_eq!(vault.unregister(), 0, "unregistering");
    canary::is_nowhere("after all");
}

fn share(pal: &Pal, pieces: &[(u64, u64)]) -> u32 {
    for (index, &(start, length)) in (0..).zip(pieces) {
        let _ = write32(ADDRESSES + 4 * index, start as u32).and(write32(LENGTHS + 4 * index, length as u32));
    }
    call(pal, ADDRESSES, LENGTHS, pieces.len() as u64)
}

fn call(pal: &Pal, addresses: u64, lengths: u64, count: u64) -> u32 {
    pal::hypercall(MODE, Command::SHARE.0, [pal.entry(), addresses, lengths, count])
}

fn refused(pal: &Pal, vault: &Vault) {
    let one = |start, length| share(pal, &[(start, length)]);
    for count in [0, 65, 0x8000_0000, 0xffff_ffff] {
        check_eq!(call(pal, ADDRESSES, LENGTHS, count), Status::SECTION_COUNT.0, "{count} pieces");
    }
    for list in [0xffff_fffd_u64, 0xffff_ffff] {
        let statuses = [call(pal, list, LENGTHS, 1), call(pal, ADDRESSES, list, 1)];
        check!(statuses.iter().all(|&status| status != 0), "lists at {list:#x}: {statuses:?}");
    }
    for length in [1, 4095, 4097] {
        check_eq!(one(PLAIN, length), Status::SECTION_SIZE.0, "{length} bytes");
    }
    check_eq!(one(PLAIN, 0), Status::SECTION_SIZE.0, "nothing");
    check_eq!(one(PLAIN, 0xffff_f000), Status::SECTION_SIZE.0, "everything");
    for start in [0, PLAIN + 1, PLAIN + 8] {
        check_eq!(one(start, PAGE), Status::SECTION_ADDRESS.0, "a piece at {start:#x}");
    }
    check_eq!(one(0xffff_f000, 2 * PAGE), Status::SECTION_ADDRESS.0, "over the end");
    check_eq!(share(pal, &[(PLAIN, PAGE); 2]), Status::SECTION_OVERLAP.0, "a piece twice");
    check_eq!(one(pal.data(), PAGE), Status::SECTION_OVERLAP.0, "the PAL's own data");
    for page in 0..4 {
        check_eq!(one(vault.at + page * PAGE, PAGE), Status::PAGE_TAKEN.0, "page {page} of another PAL");
    }
    let hidden = boot::e820_24().iter().filter(|r| r.kind == 2 && r.base() >= 1 << 20);
    let hidden = hidden.map(boot::Record::base).find(|&base| base < 0xf000_0000).unwrap_or(0);
    for (what, start) in [("the hypervisor", hidden), ("the APIC", 0xfee0_0000), ("video memory", 0xb_8000)] {
        check_eq!(one(start, PAGE), Status::PAGE_NOT_MEMORY.0, "{what}");
    }
    check_eq!((write64(PLAIN, 3), read64(PLAIN)), (Ok(()), Ok(3)), "nothing was taken");
}

fn shared(pal: &Pal) {
    check_eq!(share(pal, &[(PLAIN, PAGE)]), 0, "sharing a page");
    let swap =
        |value| pal.call([PLAIN, value, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.rax, regs.rflags & CF));
    check_eq!((write64(PLAIN, 17), swap(18), read64(PLAIN)), (Ok(()), Ok((17, 0)), Ok(18)), "both see it");
    check_eq!(share(pal, &[(PLAIN, PAGE)]), Status::SECTION_OVERLAP.0, "sharing it again");
    let other = Vault::place(2);
    let mut sections = other.sections();
    sections[1].start = pal::user(Mode::User64, PLAIN);
    let status = pal::register(Mode::User64, &sections, &[], other.entry);
    check_eq!(status, 0, "another PAL's section over it");
    check_eq!(swap(19), Ok((u64::from(Failure::BAD_POINTER.0), CF)), "the page is that one's now");
    check_eq!(read64(PLAIN), Ok(0), "the page is hidden");
    check_eq!(other.unregister(), 0, "unregistering the other PAL");
    check_eq!((write64(PLAIN, 18), swap(19)), (Ok(()), Ok((18, 0))), "the PAL goes on");
}

/// A PAL that was revoked takes nothing, and what was its entry's page can be shared.
fn dead(vault: &Vault) {
    let pal = Pal::place(MODE, 2, snippet!(code32: "ret"));
    let gone = Pal::place(MODE, 3, snippet!(code32: "ret"));
    check_eq!((pal.register(&INTEGERS), gone.register(&INTEGERS)), (0, 0), "registering");
    check_eq!(write64(gone.data(), 1), Ok(()), "a write");
    check_eq!(share(&gone, &[(PLAIN, PAGE)]), Status::DEAD.0, "sharing with a dead PAL");
    check_eq!(share(&pal, &[(gone.at, PAGE)]), 0, "sharing what was a PAL's");
    check_eq!(pal.unregister(), 0, "unregistering");
    check!(vault.knows(), "the other PAL");
}
