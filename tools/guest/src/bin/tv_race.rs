//! Two CPUs at the same PAL at the same moment: one of them comes first, whatever they do, and nothing comes out.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses below 4 GiB, selectors, and patterns of bytes"
)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest::canary::{self, Vault};
use guest::cpu::{pause, wait, wait_until};
use guest::memory::{FREE, read64, write32, write64};
use guest::pal::{self, CF, PAGE, PALS};
use guest::run::USER_BASE;
use guest::space::{Space, USER, WRITABLE, window};
use guest::{Mode, boot, check, check_eq, guest, smp};
use trustvisor::call::Failure;
use trustvisor::command::Command;
use trustvisor::status::Status;

guest!(main);

const ROUNDS: u64 = 60;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };
/// A PAL in the window, whose data page another CPU exchanges.
const MOVED: Vault = Vault { at: PALS + 8 * PAGE, entry: window(0) };
const SPACE: Space = Space::at(FREE + 0x4_0000);
static ARRIVED: AtomicU64 = AtomicU64::new(0);
static GATE: AtomicU64 = AtomicU64::new(0);
/// EAX and CF of the other CPU.
static THERE: AtomicU32 = AtomicU32::new(0);
static CARRY: AtomicU64 = AtomicU64::new(0);
/// What the other CPU exchanges goes on until this is set.
static IS_OVER: AtomicU64 = AtomicU64::new(0);
static EXCHANGES: AtomicU64 = AtomicU64::new(0);
/// The first page of the hypervisor's.
static HIDDEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    both_write();
    both_unregister();
    both_register();
    one_calls_one_writes();
    one_registers_one_writes();
    canary::is_nowhere("after races for one PAL");
    let victim = Vault::open(1);
    tables_change_under_a_registration(&victim);
    lists_change_under_a_registration(&victim);
    check_eq!(victim.unregister(), 0, "unregistering");
    canary::is_nowhere("after all");
}

/// Has both CPUs begin at the same moment, but for a delay of this one's.
fn together<T>(delay: u64, there: fn(), here: impl FnOnce() -> T) -> T {
    ARRIVED.store(0, Ordering::SeqCst);
    GATE.store(0, Ordering::SeqCst);
    smp::begin_on(1, there);
    check!(wait_until(smp::PATIENCE, || ARRIVED.load(Ordering::SeqCst) == 1), "the other CPU comes");
    GATE.store(1, Ordering::SeqCst);
    wait(delay);
    let result = here();
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU comes back");
    result
}

fn meet() {
    ARRIVED.store(1, Ordering::SeqCst);
    while GATE.load(Ordering::SeqCst) == 0 {
        pause();
    }
}

/// Neither write is lost by what the other leads to.
fn both_write() {
    for round in 0..ROUNDS {
        let vault = Vault::open(0);
        let write = || {
            meet();
            check_eq!(write64(VAULT.at + 3 * PAGE + 8, 0x22), Ok(()), "the other CPU's write");
        };
        let written = together(round * 97 % 5000, write, || write64(VAULT.at + PAGE + 8, 0x11));
        check_eq!(written, Ok(()), "round {round}: a write");
        let words = [read64(VAULT.at + PAGE + 8), read64(VAULT.at + 3 * PAGE + 8)];
        check_eq!(words, [Ok(0x11), Ok(0x22)], "round {round}: what both wrote");
        check_eq!(canary::copies_in(PALS, PALS + 4 * PAGE), 0, "round {round}: what is left");
        check_eq!(vault.answer(), Ok((Failure::DEAD.0, CF)), "round {round}: a call");
        check_eq!(vault.unregister(), 0, "round {round}: unregistering");
    }
}

fn both_unregister() {
    for round in 0..ROUNDS {
        let _ = Vault::open(0);
        let unregister = || {
            meet();
            THERE.store(VAULT.unregister(), Ordering::SeqCst);
        };
        let here = together(round * 53 % 3000, unregister, || VAULT.unregister());
        let there = THERE.load(Ordering::SeqCst);
        let mut both = [here, there];
        both.sort_unstable();
        check_eq!(both, [0, Status::NOT_REGISTERED.0], "round {round}: one of them unregisters");
        check_eq!(canary::copies_in(PALS, PALS + 4 * PAGE), 0, "round {round}: what is left");
    }
}

fn both_register() {
    for round in 0..ROUNDS {
        let vault = Vault::place(0);
        let register = || {
            meet();
            THERE.store(VAULT.register(), Ordering::SeqCst);
        };
        let here = together(round * 89 % 4000, register, || vault.register());
        let there = THERE.load(Ordering::SeqCst);
        let mut both = [here, there];
        both.sort_unstable();
        check_eq!(both, [0, Status::ALREADY_REGISTERED.0], "round {round}: one of them registers");
        vault.keep();
        check!(vault.knows(), "round {round}: the PAL works");
        check_eq!(vault.unregister(), 0, "round {round}: unregistering");
    }
}

fn one_calls_one_writes() {
    let mut ends = [0; 3];
    for round in 0..ROUNDS {
        let vault = Vault::open(0);
        let call = || {
            meet();
            let answer = VAULT.held(2000);
            THERE.store(answer.map_or(0, |(eax, _)| eax), Ordering::SeqCst);
            CARRY.store(answer.map_or(99, |(_, carry)| carry), Ordering::SeqCst);
        };
        let written = together(round * 331 % 20_000, call, || write64(VAULT.at + PAGE + 32, 0x11));
        check_eq!(written, Ok(()), "round {round}: a write");
        let there = (THERE.load(Ordering::SeqCst), CARRY.load(Ordering::SeqCst));
        let known = [(1, 0), (Failure::REVOKED.0, CF), (Failure::DEAD.0, CF)];
        match known.iter().position(|known| *known == there) {
            Some(index) => ends[index] += 1,
            None => {
                check!(false, "round {round}: the call ended with {there:x?}");
            }
        }
        check_eq!(canary::copies_in(PALS, PALS + 4 * PAGE), 0, "round {round}: what is left");
        check_eq!(vault.unregister(), 0, "round {round}: unregistering");
    }
    guest::println!("calls that returned, were stopped, came too late: {ends:?}");
    check!(ends[1] > 0, "calls that were stopped");
}

fn one_registers_one_writes() {
    for round in 0..ROUNDS {
        let vault = Vault::place(0);
        let write = || {
            meet();
            check_eq!(write64(VAULT.at + PAGE + 8, 0x22), Ok(()), "the other CPU's write");
        };
        let status = together(round * 7, write, || vault.register());
        check_eq!(status, 0, "round {round}: registering");
        let answer = vault.answer();
        let is_known = [Ok((0, 0)), Ok((Failure::DEAD.0, CF))].contains(&answer);
        check!(is_known, "round {round}: a call under {answer:x?}");
        check_eq!(vault.unregister(), 0, "round {round}: unregistering");
    }
}

/// What is checked is what is used, whatever the page tables say a moment later.
fn tables_change_under_a_registration(victim: &Vault) {
    let _ = Space::new(SPACE.cr3());
    let hidden = boot::e820_24().iter().filter(|r| r.kind == 2 && r.base() >= 1 << 20);
    HIDDEN.store(
        hidden.map(boot::Record::base).find(|&base| base < 0xf000_0000).unwrap_or(0),
        Ordering::SeqCst,
    );
    let _ = Vault::place(2);
    for page in 0..4 {
        SPACE.map(page, MOVED.at + page * PAGE, USER | WRITABLE);
    }
    SPACE.within(|| check_eq!((MOVED.register(), MOVED.unregister()), (0, 0), "the tables as they are"));
    let seen =
        under(exchange_pages, || SPACE.within(|| MOVED.register()), || SPACE.within(|| MOVED.unregister()));
    let known = [
        0,
        Status::SECTION_NOT_MAPPED.0,
        Status::PAGE_NOT_MEMORY.0,
        Status::PAGE_TAKEN.0,
        Status::SECTION_OVERLAP.0,
    ];
    check!(seen.iter().all(|status| known.contains(status)), "statuses under changing tables: {seen:?}");
    check!(seen.contains(&0) && seen.iter().any(|&status| status != 0), "some of each: {seen:?}");
    pages_are_ordinary();
    check!(victim.knows(), "the other PAL goes on");
    canary::is_nowhere("after changes of tables");
}

fn exchange_pages() {
    let hidden = HIDDEN.load(Ordering::SeqCst);
    let data = MOVED.at + PAGE;
    let mappings = [
        (data, USER | WRITABLE),
        (hidden, USER | WRITABLE),
        (0xfee0_0000, USER | WRITABLE),
        (data + 8 * PAGE, USER | WRITABLE),
        (VAULT.at + 5 * PAGE, USER | WRITABLE),
        (data, USER),
        (data, WRITABLE),
        (MOVED.at, USER | WRITABLE),
    ];
    exchange(|round| match mappings.get(round % (mappings.len() + 1)) {
        Some(&(page, rights)) => SPACE.map(1, page, rights),
        None => SPACE.unmap(1),
    });
    SPACE.map(1, data, USER | WRITABLE);
}

fn exchange(change: impl Fn(usize)) {
    for round in 0.. {
        if IS_OVER.load(Ordering::SeqCst) != 0 {
            break;
        }
        change(round);
        wait(round as u64 % 7 * 300);
        EXCHANGES.fetch_add(1, Ordering::SeqCst);
    }
}

/// Registers while the other CPU is at `there`, and gives each status that came; what is registered is unregistered.
fn under(
    there: fn(),
    register: impl Fn() -> u32,
    unregister: impl Fn() -> u32,
) -> arrayvec::ArrayVec<u32, 64> {
    IS_OVER.store(0, Ordering::SeqCst);
    EXCHANGES.store(0, Ordering::SeqCst);
    smp::begin_on(1, there);
    check!(wait_until(smp::PATIENCE, || EXCHANGES.load(Ordering::SeqCst) > 10), "the other CPU is at it");
    let mut seen = arrayvec::ArrayVec::new();
    for round in 0..400 {
        let status = register();
        if !seen.contains(&status) {
            let _ = seen.try_push(status);
        }
        let gone = if status == 0 { unregister() } else { 0 };
        if gone != 0 {
            check!(false, "round {round}: unregistering: {gone}");
            break;
        }
        wait(round % 16 * 50);
    }
    IS_OVER.store(1, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU comes back");
    seen
}

/// Every page that a registration may have met can be written, and reads as what was written.
fn pages_are_ordinary() {
    for page in (MOVED.at..MOVED.at + 16 * PAGE).step_by(PAGE as usize) {
        check_eq!((write64(page, page), read64(page)), (Ok(()), Ok(page)), "page {page:#x}");
    }
}

/// The lists themselves change while they are read.
fn lists_change_under_a_registration(victim: &Vault) {
    let vault = Vault::place(0);
    check_eq!((vault.register(), vault.unregister()), (0, 0), "the lists as they are");
    let register = || {
        let lists = [USER_BASE + FREE, 0, USER_BASE + FREE + PAGE, VAULT.entry];
        pal::hypercall(Mode::User64, Command::REGISTER.0, lists)
    };
    let seen = under(exchange_lists, register, || VAULT.unregister());
    let is_known = |status: &u32| *status == 0 || (21..=36).contains(status);
    check!(seen.iter().all(is_known), "statuses under changing lists: {seen:?}");
    check!(seen.contains(&0) && seen.len() > 2, "some of each: {seen:?}");
    check!(victim.knows(), "the other PAL goes on");
    check_eq!((vault.register(), vault.unregister()), (0, 0), "the lists as they were");
    pages_are_ordinary();
}

fn exchange_lists() {
    let section = |index: u64, field: u64| FREE + 8 + 16 * index + field;
    let start = VAULT.entry + PAGE;
    exchange(|round| {
        let _ = match round % 10 {
            0 => write32(FREE, 4),
            1 => write32(FREE, u32::MAX),
            2 => write32(FREE, 3),
            3 => write32(section(1, 4), u32::MAX),
            4 => write32(section(1, 4), 1),
            5 => write64(section(1, 8), VAULT.entry),
            6 => write64(section(1, 8), u64::MAX - 4095),
            7 => write64(section(1, 8), VAULT.entry + 5 * PAGE),
            8 => write64(section(1, 8), start),
            _ => write32(section(1, 0), 9).and_then(|()| write32(section(1, 0), 2)),
        };
    });
    for done in [write32(FREE, 4), write32(section(1, 4), 1), write64(section(1, 8), start)] {
        check_eq!(done, Ok(()), "the list as it was");
    }
}
