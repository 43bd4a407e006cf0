//! A PAL's secret: zeros for ring 0 and by every mapping, gone after a write, and nowhere else in memory.
//! hypapp: trustvisor
//! bare: no
//! expect-hypervisor: devices can read and change PALs
#![no_std]
#![no_main]

use guest::canary;
use guest::memory::{read64, write64};
use guest::pal::prelude::*;
use guest::pal::{self, PALS};
use guest::run::USER_BASE;
use guest::{Fault, Regs, run};
use x86::msr::Msr;

guest!(main);

const INTEGERS: [(ParameterType, u64); 3] = [(ParameterType::Integer, 0); 3];
/// What the secret is hidden behind on its way into the PAL.
const KEY: u64 = 0x5ec2_e7c0_de00_5ec2;
const HIDDEN: u64 = 0x1234_5678_9abc_def0;
const STORE: u64 = 1;
const LOAD: u64 = 2;
/// The memory that is searched.
const SEARCHED: (u64, u64) = (0x20_0000, 0x280_0000);

fn main() {
    let pal = Pal::place(Mode::User64, 0, canary::telling());
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    check_eq!(ask(&pal, STORE), Ok(0), "storing");
    nothing_to_see(&pal);
    check_eq!(canary::copies_in(SEARCHED.0, SEARCHED.1), 0, "copies of the secret");
    check_eq!(ask(&pal, LOAD), Ok(KEY ^ HIDDEN), "the PAL has its secret");
    after_an_mtrr_write(&pal);
    no_way_in(&pal);
    a_write_revokes(&pal);
}

fn ask(pal: &Pal, what: u64) -> Result<u64, Fault> {
    let data = pal.entry() + PAGE;
    pal.call([what, HIDDEN, data, 0, 0, 0, 0, 0, 0, 0]).map(|regs| regs.rax)
}

fn nothing_to_see(pal: &Pal) {
    for address in (pal.at..pal.at + 4 * PAGE).step_by(1016) {
        check_eq!(read64(address), Ok(0), "ring 0 reads at {address:#x}");
        let mut regs = Regs { rax: USER_BASE + address, ..Regs::default() };
        check_eq!(run(Mode::User64, snippet!("mov rbx, [rax]"), &mut regs), Ok(()), "ring 3 reads");
        check_eq!(regs.rbx, 0, "ring 3 reads zeros");
    }
}

/// The other mapping, another privilege level, another address of the entry's page.
fn no_way_in(pal: &Pal) {
    for address in [pal.at, pal.at + 3, pal.at + PAGE, pal.at + 3 * PAGE] {
        let mut regs = Regs { rax: address, rflags: pal::IF, ..Regs::default() };
        check_eq!(
            run(Mode::Kernel64, snippet!("call rax"), &mut regs),
            Err(Fault::GP),
            "ring 0 calls {address:#x}"
        );
    }
    for offset in [1, 4, PAGE, 2 * PAGE] {
        let call = pal::call(Mode::User64, pal.entry() + offset, [LOAD; 10], pal::IF).map(|_| ());
        check_eq!(call, Err(Fault::GP), "ring 3 calls {offset:#x} behind the entry");
    }
    check_eq!(ask(pal, LOAD), Ok(KEY ^ HIDDEN), "the PAL goes on");
}

fn after_an_mtrr_write(pal: &Pal) {
    let msr = Msr::IA32_MTRR_DEF_TYPE;
    let value = guest::cpu::rdmsr(msr).unwrap_or(0);
    check_eq!(guest::cpu::wrmsr(msr, value ^ 6), Ok(()), "another default type");
    check_eq!(ask(pal, LOAD), Ok(KEY ^ HIDDEN), "a call under other memory types");
    check_eq!(read64(pal.data()), Ok(0), "still hidden");
    check_eq!(guest::cpu::wrmsr(msr, value), Ok(()), "the type of before");
    // The PAL's own pages become uncacheable, then write-combining.
    let (base, mask) = (Msr(0x200 + 2 * 7), Msr(0x201 + 2 * 7));
    let old = [base, mask].map(guest::cpu::rdmsr);
    for kind in [0, 1] {
        let set = guest::cpu::wrmsr(base, pal.at & !0xffff | kind);
        check_eq!(set.and(guest::cpu::wrmsr(mask, 0xf_ffff_0800)), Ok(()), "type {kind} for the PAL's pages");
        check_eq!(ask(pal, LOAD), Ok(KEY ^ HIDDEN), "a call under type {kind}");
        check_eq!(read64(pal.data()), Ok(0), "hidden under type {kind}");
    }
    for (msr, value) in [mask, base].into_iter().zip(old.into_iter().rev()) {
        check_eq!(guest::cpu::wrmsr(msr, value.unwrap_or(0)), Ok(()), "the range of before");
    }
    check_eq!(ask(pal, LOAD), Ok(KEY ^ HIDDEN), "a call after that");
}

fn a_write_revokes(pal: &Pal) {
    check_eq!(write64(pal.at + 8, 7), Ok(()), "ring 0 writes to the code");
    check_eq!(read64(pal.at + 8), Ok(7), "the write went on");
    for address in (pal.data()..pal.at + 4 * PAGE).step_by(8) {
        if read64(address) != Ok(0) {
            check!(false, "something is left at {address:#x}");
            return;
        }
    }
    check_eq!(canary::copies_in(SEARCHED.0, SEARCHED.1), 0, "copies of the secret after all");
    check_eq!((pal.unregister(), pal.unregister()), (0, Status::NOT_REGISTERED.0), "unregistering");
    let again = Pal::place(Mode::User64, 0, canary::telling());
    check_eq!(again.register(&INTEGERS), 0, "the pages are free");
    check_eq!((ask(&again, LOAD), again.unregister()), (Ok(0x9090_9090_9090_9090), 0), "and begin anew");
    check!(again.at == PALS, "the same pages");
}
