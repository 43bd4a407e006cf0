//! Protections by hypercall: they hold at once on every CPU, end when they are lifted, and never touch the
//! hypervisor's memory.
//! cpus: 2
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::boot;
use guest::cpu::{rdmsr_existing, wrmsr};
use guest::memory::{FREE, read64, write8, write64};
use guest::run::USER_BASE;
use guest::{Fault, Mode, Regs, check, check_eq, guest, run, smp, snippet};
use x86::msr::Msr;

guest!(main);

const SET: u64 = 0xdead_beef;
const GET: u64 = 0xdead_bef0;
const OPEN: u64 = 0xdead_bef1;
const CLOSE: u64 = 0xdead_bef2;
const NOT_PRESENT: u64 = 1;
const READ_ONLY: u64 = 2 | 4 | 32;
const DATA: u64 = 2 | 8 | 32;
const CODE: u64 = 2 | 4 | 16;
const ALL: u64 = 2 | 8 | 16;
const PAGE: u64 = FREE + 0x20_3000;
const GP: Fault = Fault::GP;
/// What the other CPU saw: bit 0 its read faulted, bit 1 its write.
static OTHER: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    // RET, so that jumps into the page come back.
    check!(write8(PAGE, 0xc3).is_ok() && write64(PAGE + 8, 0x1234).is_ok(), "the page is memory");
    for (types, rights) in [(READ_ONLY, 1), (DATA, 3), (CODE, 5), (NOT_PRESENT, 0), (ALL, 7)] {
        for _ in 0..2 {
            check_eq!(set(PAGE >> 12, types), 0, "setting types {types}");
            check_eq!(get(PAGE >> 12), rights, "rights of types {types}");
            obeys(types, rights);
        }
        neighbours_are_free();
    }
    one_cpu_alone();
    refuses_nonsense();
    let default_type = rdmsr_existing(Msr::IA32_MTRR_DEF_TYPE);
    check_eq!(wrmsr(Msr::IA32_MTRR_DEF_TYPE, default_type), Err(GP), "this hypapp refuses MTRRs");
}

fn obeys(types: u64, rights: u64) {
    let (read, write) = (read64(PAGE + 8), write64(PAGE + 8, 0x1234));
    check_eq!(read, if rights & 1 != 0 { Ok(0x1234) } else { Err(GP) }, "read under types {types}");
    check_eq!(write, if rights & 2 != 0 { Ok(()) } else { Err(GP) }, "write under types {types}");
    let mut regs = Regs { rax: PAGE, ..Regs::default() };
    let jump = run(Mode::Kernel64, snippet!("call rax"), &mut regs);
    check_eq!(jump, if rights & 4 != 0 { Ok(()) } else { Err(GP) }, "call under types {types}");
    let mut regs = Regs { rax: USER_BASE + PAGE + 8, ..Regs::default() };
    let user = run(Mode::User64, snippet!("mov rbx, [rax]"), &mut regs);
    check_eq!(user.is_ok(), rights & 1 != 0, "read of ring 3 under types {types}");
    check!(smp::run_on(1, look), "the other CPU looks");
    let expected = u64::from(rights & 1 == 0) | u64::from(rights & 2 == 0) << 1;
    check_eq!(OTHER.load(Ordering::SeqCst), expected, "the other CPU under types {types}");
}

fn look() {
    let read = u64::from(read64(PAGE + 8).is_err());
    let write = u64::from(write64(PAGE + 16, 5).is_err());
    OTHER.store(read | write << 1, Ordering::SeqCst);
}

/// A view holds for the CPU that opened it; what it does not say comes from the protections of all.
fn one_cpu_alone() {
    let set_here =
        |types| call(Regs { rax: SET, rcx: PAGE >> 12, rdx: types, rsi: 1, ..Regs::default() }).rax;
    check_eq!(set_here(READ_ONLY), 4, "a CPU without a view has no protections of its own");
    for _ in 0..3 {
        check_eq!(call(Regs { rax: OPEN, ..Regs::default() }).rax, 0, "opening a view");
        check_eq!(set_here(NOT_PRESENT), 0, "hiding the page from this CPU");
        check_eq!(read64(PAGE + 8), Err(GP), "this CPU does not see the page");
        check!(smp::run_on(1, look), "the other CPU looks");
        check_eq!(OTHER.load(Ordering::SeqCst), 0, "the other CPU sees the page");
        neighbours_are_free();
        check_eq!(set_here(ALL), 0, "showing the page to this CPU");
        check_eq!(set(PAGE >> 12, NOT_PRESENT), 0, "hiding the page from all others");
        check_eq!(read64(PAGE + 8).is_ok(), true, "this CPU sees the page");
        check!(smp::run_on(1, look), "the other CPU looks");
        check_eq!(OTHER.load(Ordering::SeqCst), 3, "the other CPU does not");
        check_eq!(call(Regs { rax: CLOSE, ..Regs::default() }).rax, 0, "closing the view");
        check_eq!(read64(PAGE + 8), Err(GP), "without its view this CPU is like all");
        check_eq!(set(PAGE >> 12, ALL), 0, "showing the page to all");
        check_eq!(write64(PAGE + 8, 0x1234), Ok(()), "all is as before");
    }
}

fn neighbours_are_free() {
    for neighbour in [PAGE - 8, PAGE + 0x1000] {
        check!(write64(neighbour, 7).is_ok() && read64(neighbour) == Ok(7), "{neighbour:#x} is free");
    }
}

fn refuses_nonsense() {
    for types in [0, 2, 3, 4, 6, 2 | 4 | 8 | 16, 2 | 4 | 16 | 32, 1 | 2, 64, 2 | 8 | 16 | 64, !0, 1 << 63] {
        check_eq!(set(PAGE >> 12, types), 1, "types {types:#x} make no sense");
    }
    check_eq!(get(PAGE >> 12), 7, "nothing has changed");
    let reserved = |record: &&boot::Record| record.kind == 2 && record.base() >= 1 << 20;
    let hidden = boot::e820_24().iter().filter(reserved).find(|record| record.base() < 0xf000_0000);
    check!(hidden.is_some(), "there is hidden memory");
    if let Some(hidden) = hidden {
        for page in
            [hidden.base() >> 12, (hidden.end() >> 12) - 1, (hidden.base() + hidden.length() / 2) >> 12]
        {
            check_eq!(set(page, ALL), 2, "hypervisor page {page:#x}");
            check_eq!(get(page), 0, "rights of hypervisor page {page:#x}");
        }
    }
    for page in [1 << 36, 1 << 40, 1 << 52, u64::MAX >> 12, u64::MAX] {
        check_eq!(set(page, READ_ONLY), 2, "page {page:#x} is out of reach");
    }
}

fn set(page: u64, types: u64) -> u64 {
    call(Regs { rax: SET, rcx: page, rdx: types, ..Regs::default() }).rax
}

fn get(page: u64) -> u64 {
    call(Regs { rax: GET, rcx: page, ..Regs::default() }).rdx
}

fn call(mut regs: Regs) -> Regs {
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    regs
}
