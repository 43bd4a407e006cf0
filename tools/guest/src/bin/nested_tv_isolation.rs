//! A PAL of a guest's guest: its hypervisor reads zeros, and whatever it does to its tables is harmless.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::canary;
use guest::memory::{read64, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, write};
use guest::{Fault, Regs, run};
use trustvisor::call::Failure;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const INTEGERS: [(ParameterType, u64); 3] = [(ParameterType::Integer, 0); 3];
/// What the secret is hidden behind on its way into the PAL.
const KEY: u64 = 0x5ec2_e7c0_de00_5ec2;
const HIDDEN: u64 = 0x1234_5678_9abc_def0;
const SECRET: u64 = KEY ^ HIDDEN;
const STORE: u64 = 1;
const LOAD: u64 = 2;
/// A page of the guest's guest that nothing else uses.
const ALIAS: u64 = 0x3000_1000;
const RIGHTS: u64 = 7;
const SEARCHED: (u64, u64) = (0x20_0000, 0x280_0000);

/// What the guest's guest does next, and what came of it.
static STEP: AtomicU64 = AtomicU64::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);
const BEGIN: u64 = 0;
const CALL: u64 = 1;
const LOOK: u64 = 2;
const OVERWRITE: u64 = 3;
const END: u64 = 4;

fn main() {
    enter_operation();
    let mut nested = Guest::new(act);
    let pal = the_pal();
    check_eq!(step(&mut nested, BEGIN), 0, "registering without EPT");
    hypervisor_sees_nothing(&mut nested, &pal);
    check_eq!(step(&mut nested, END), 0, "unregistering");
    let mut ept = Ept::identity();
    nested.use_ept(&ept);
    check_eq!(step(&mut nested, BEGIN), 0, "registering with EPT");
    hypervisor_sees_nothing(&mut nested, &pal);
    tables_change(&mut nested, &mut ept, &pal);
    structures(&mut nested, &ept, &pal);
    a_write_revokes(&mut nested, &pal);
    leave_operation();
}

fn the_pal() -> Pal {
    Pal { at: pal::PALS, mode: Mode::User64 }
}

extern "C" fn act() {
    pal::bear_offset(true);
    let pal = the_pal();
    let ask = |what| {
        let words = [what, HIDDEN, pal.entry() + PAGE, 0, 0, 0, 0, 0, 0, 0];
        pal.call(words).map_or(u64::MAX, |regs| regs.rax)
    };
    let result = match STEP.load(Ordering::SeqCst) {
        BEGIN => {
            u64::from(Pal::place(Mode::User64, 0, canary::telling()).register(&INTEGERS)) << 32 | ask(STORE)
        }
        CALL => ask(LOAD),
        LOOK => [pal.at, pal.data(), pal.data() + 8, ALIAS]
            .into_iter()
            .fold(0, |all, at| all | read64(at).unwrap_or(0)),
        OVERWRITE => u64::from(write64(pal.data(), 9).is_err()),
        _ => pal.unregister().into(),
    };
    RESULT.store(result, Ordering::SeqCst);
    pal::bear_offset(false);
}

/// Has the guest's guest do `what`, without an exit.
fn step(nested: &mut Guest, what: u64) -> u64 {
    let reason = begin(nested, what);
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "step {what} ends with {}", reason.name());
    RESULT.load(Ordering::SeqCst)
}

fn begin(nested: &mut Guest, what: u64) -> ExitReason {
    STEP.store(what, Ordering::SeqCst);
    nested.call(act);
    let reason = nested.run();
    pal::bear_offset(false);
    reason
}

fn invalidate() {
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
}

fn hypervisor_sees_nothing(nested: &mut Guest, pal: &Pal) {
    for address in (pal.at..pal.at + 4 * PAGE).step_by(1016) {
        check_eq!(read64(address), Ok(0), "the hypervisor reads at {address:#x}");
    }
    check_eq!(step(nested, CALL), SECRET, "the PAL has its secret");
    check_eq!(canary::copies_in(SEARCHED.0, SEARCHED.1), 0, "copies of the secret");
    for address in [pal.at, pal.at + 3, pal.data()] {
        let mut regs = Regs { rax: address, rflags: pal::IF, ..Regs::default() };
        check_eq!(
            run(Mode::Kernel64, snippet!("call rax"), &mut regs),
            Err(Fault::GP),
            "it calls {address:#x}"
        );
    }
    // In the same address space, at the same entry: but no process of the guest's guest.
    check_eq!(pal.call([LOAD; 10]).map(|_| ()), Err(Fault::GP), "a process of its own calls");
    check_eq!(pal.register(&INTEGERS), Status::PAGE_TAKEN.0, "a process of its own registers the pages");
    check_eq!(pal.unregister(), Status::NOT_REGISTERED.0, "a process of its own unregisters");
    check_eq!(step(nested, CALL), SECRET, "the PAL goes on");
}

/// The hypervisor takes pages from its guest, gives it others, and gives them back.
fn tables_change(nested: &mut Guest, ept: &mut Ept, pal: &Pal) {
    ept.map(ALIAS, pal.data(), RIGHTS);
    invalidate();
    check_eq!(step(nested, LOOK), 0, "what the guest's guest sees, by another address too");
    let other = allocate();
    for target in [None, Some(other), Some(pal.at)] {
        for offset in [PAGE, 2 * PAGE, 3 * PAGE] {
            match target {
                None => ept.unmap(pal.at + offset),
                Some(target) => ept.map(pal.at + offset, target, RIGHTS),
            }
        }
        invalidate();
        check_eq!(step(nested, CALL), SECRET, "a PAL has its own pages, whatever the tables say");
    }
    for offset in [PAGE, 2 * PAGE, 3 * PAGE] {
        ept.map(pal.at + offset, pal.at + offset, RIGHTS);
    }
    // Another function where the entry was: a function like any other.
    write(other, 0xc300_0000_55b8);
    ept.map(pal.at, other, RIGHTS);
    invalidate();
    check_eq!(step(nested, CALL), 0x55, "another page where the entry was");
    ept.map(pal.at, pal.data(), RIGHTS);
    invalidate();
    check_eq!(step(nested, CALL), u64::MAX, "the PAL's data where the entry was");
    ept.map(pal.at, pal.at, 3);
    invalidate();
    check_eq!(begin(nested, CALL), ExitReason::EPT_VIOLATION, "an entry that may not be fetched");
    check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), pal.at, "its address");
    ept.map(pal.at, pal.at, RIGHTS);
    invalidate();
    check_eq!(step(nested, CALL), SECRET, "the entry is back");
}

/// The hypervisor names the PAL's pages where the processor takes a page.
fn structures(nested: &mut Guest, ept: &Ept, pal: &Pal) {
    check!(instruction::vmptrld(pal.data()).is_err(), "VMPTRLD of a page without the revision");
    check_eq!(instruction::vmclear(pal.data()), Ok(()), "VMCLEAR of the page");
    nested.load();
    check_eq!(step(nested, CALL), SECRET, "after VMCLEAR");
    nested.write(vmcs::EPT_POINTER, pal.data() | 0x1e);
    check_eq!(begin(nested, CALL), ExitReason::EPT_VIOLATION, "tables in the PAL's page");
    nested.write(vmcs::EPT_POINTER, ept.pointer());
    let bitmap = nested.read(vmcs::MSR_BITMAPS);
    nested.write(vmcs::MSR_BITMAPS, pal.data());
    check_eq!(step(nested, CALL), SECRET, "with an MSR bitmap in the PAL's page");
    nested.write(vmcs::MSR_BITMAPS, bitmap);
    if nested.add_primary(PrimaryControls::USE_TPR_SHADOW) {
        nested.write(vmcs::VIRTUAL_APIC_ADDRESS, pal.data());
        nested.write(vmcs::TPR_THRESHOLD, 0);
        check_eq!(step(nested, CALL), SECRET, "with a virtual APIC in the PAL's page");
        nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_TPR_SHADOW.bits());
    }
    check_eq!(step(nested, LOOK), 0, "what the guest's guest sees");
    check_eq!(canary::copies_in(SEARCHED.0, SEARCHED.1), 0, "copies of the secret");
}

fn a_write_revokes(nested: &mut Guest, pal: &Pal) {
    check_eq!(write64(pal.data() + 8, 7), Ok(()), "the hypervisor writes");
    check_eq!(read64(pal.data() + 8), Ok(7), "the write went on");
    is_gone(pal, 8);
    check_eq!(step(nested, END), 0, "unregistering what is gone");
    check_eq!(step(nested, END), Status::NOT_REGISTERED.0.into(), "nothing is registered");
    check_eq!(step(nested, BEGIN), 0, "registering once more");
    check_eq!(step(nested, OVERWRITE), 0, "the guest's guest writes");
    check_eq!(read64(pal.data()), Ok(9), "its write went on");
    is_gone(pal, 0);
    check_eq!(step(nested, CALL), u64::from(Failure::DEAD.0), "a call of what is gone");
    check_eq!(step(nested, END), 0, "unregistering that");
}

/// Zeros where the PAL could write, but at `offset` of its data.
fn is_gone(pal: &Pal, offset: u64) {
    for address in (pal.data()..pal.at + 4 * PAGE).step_by(8) {
        if address != pal.data() + offset && read64(address) != Ok(0) {
            check!(false, "something is left at {address:#x}");
            return;
        }
    }
    check_eq!(canary::copies_in(SEARCHED.0, SEARCHED.1), 0, "copies of the secret after all");
}
