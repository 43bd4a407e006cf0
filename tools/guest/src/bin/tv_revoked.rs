//! A PAL that was written to is dead until it is unregistered, its pages are ordinary again, and nothing comes out.
//! hypapp: trustvisor
//! memory: 128
//! bare: no
#![no_std]
#![no_main]

use guest::canary::{self, Vault};
use guest::memory::{FREE, read64, write8, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::run::USER_BASE;
use guest::space::{Space, USER, WRITABLE, window};
use guest::{Regs, run};
use trustvisor::call::Failure;
use trustvisor::section::{SectionRecord, SectionType};

guest!(main);

const DEAD: Result<(u32, u64), guest::Fault> = Ok((Failure::DEAD.0, CF));
/// More PALs than there is memory for in the hypervisor, two pages each.
const MANY: u64 = 5600;

fn main() {
    for (what, offset) in [("its code", 0x800), ("its data", PAGE), ("its stack", 4 * PAGE - 8)] {
        for ring in [0, 3] {
            dead_after_a_write(what, offset, ring);
        }
    }
    registered_anew();
    used_for_something_else();
    of_a_process_that_is_gone();
    dead_ones_make_room();
}

fn dead_after_a_write(what: &str, offset: u64, ring: u64) {
    let vault = Vault::open(0);
    check!(vault.knows(), "a vault knows");
    if ring == 0 {
        check_eq!(write64(vault.at + offset, 0x77), Ok(()), "ring 0 writes to {what}");
    } else {
        let mut regs = Regs { rax: USER_BASE + vault.at + offset, rbx: 0x77, ..Regs::default() };
        check_eq!(
            run(Mode::User64, snippet!("mov [rax], rbx"), &mut regs),
            Ok(()),
            "ring 3 writes to {what}"
        );
    }
    canary::is_nowhere(what);
    check_eq!(read64(vault.at + offset), Ok(0x77), "the write to {what} went on");
    let left = (vault.at + PAGE..vault.at + 4 * PAGE).step_by(8).filter(|&at| at != vault.at + offset);
    check_eq!(left.filter(|&at| read64(at) != Ok(0)).count(), 0, "words that are left beside it");
    for _ in 0..2 {
        check_eq!(vault.answer(), DEAD, "a call after a write to {what}");
    }
    check_eq!(write64(vault.at + PAGE, 1), Ok(()), "the pages are ordinary");
    check_eq!(vault.answer(), DEAD, "a call after another write");
    check_eq!((vault.unregister(), vault.unregister()), (0, Status::NOT_REGISTERED.0), "unregistering");
    runs_plainly(vault.at, "what was a PAL's");
}

/// Code in the page runs as the process's own.
fn runs_plainly(at: u64, what: &str) {
    for (offset, byte) in (0..).zip([0xb8, 42, 0, 0, 0, 0xc3]) {
        check_eq!(write8(at + offset, byte), Ok(()), "writing to {what}");
    }
    let called = pal::call(Mode::User64, USER_BASE + at, [0; 10], pal::IF);
    check_eq!(called.map(|regs| (regs.rax, regs.rflags & CF)), Ok((42, 0)), "{what} runs");
}

fn registered_anew() {
    let vault = Vault::open(0);
    check_eq!(write64(vault.at + PAGE, 1), Ok(()), "a write");
    let again = Vault::open(0);
    check!(again.knows(), "a PAL that begins anew in the same pages");
    check_eq!((again.unregister(), again.unregister()), (0, Status::NOT_REGISTERED.0), "one PAL, not two");
    canary::is_nowhere("after a new beginning");
}

/// The page of the entry becomes other code: the system's, by another address.
fn used_for_something_else() {
    let vault = Vault::open(0);
    for offset in 0..16 {
        check_eq!(write8(vault.at + offset, 0xc3), Ok(()), "a write");
    }
    check_eq!(vault.answer(), DEAD, "a call");
    let mut regs = Regs { rax: vault.at + 8, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("call rax"), &mut regs), Ok(()), "ring 0 runs what it wrote");
    check_eq!(vault.unregister(), Status::NOT_REGISTERED.0, "the PAL is forgotten");
    canary::is_nowhere("after another use");
}

/// An address space with a PAL becomes another process's, which has other pages there, and the old ones elsewhere.
fn of_a_process_that_is_gone() {
    let space = Space::new(FREE + 0x4_0000);
    let [old, new] = [Vault::place(0), Vault::place(1)].map(|vault| vault.seen_at(window(8)));
    let show = |vault: &Vault| {
        for page in 0..4 {
            space.map(8 + page, vault.at + page * PAGE, USER | WRITABLE);
        }
    };
    show(&old);
    space.within(|| {
        check_eq!(old.register(), 0, "registering");
        old.keep();
    });
    show(&new);
    space.within(|| {
        check_eq!(new.register(), 0, "the next process's PAL");
        new.keep();
        check!(new.knows(), "the next process's PAL works");
    });
    check_eq!(
        canary::copies_in(old.at, old.at + 4 * PAGE),
        0,
        "the old pages are the system's, and hold nothing"
    );
    check_eq!(write64(old.at + PAGE, 9), Ok(()), "they can be written");
    check_eq!(space.within(|| new.unregister()), 0, "unregistering");
    canary::is_nowhere("after a change of processes");
}

/// PALs of processes that never come back do not use up the hypervisor's memory.
fn dead_ones_make_room() {
    for number in 0..MANY {
        let pal = Pal { at: PALS + 2 * PAGE * number, mode: Mode::User64 };
        let section = |kind: SectionType, start| SectionRecord { kind: kind as u32, pages: 1, start };
        let sections =
            [section(SectionType::Code, pal.entry()), section(SectionType::Stack, pal.entry() + PAGE)];
        let status = pal::register(Mode::User64, &sections, &[], pal.entry());
        if status != 0 || write64(pal.at, 0) != Ok(()) {
            check!(false, "PAL {number} of {MANY} is refused: {status}");
            return;
        }
    }
    let last = USER_BASE + PALS + 2 * PAGE * (MANY - 1);
    let status = pal::hypercall(Mode::User64, Command::UNREGISTER.0, [last, 0, 0, 0]);
    check_eq!(status, 0, "the last one is still there to be unregistered");
}
