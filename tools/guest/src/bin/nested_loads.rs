//! Control merge: PAT, EFER and debug controls are loaded at entries and saved at exits by controls of their own.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, read_dr7, write_dr7, wrmsr_existing};
use guest::vmx::prelude::*;
use guest::vmx::verdict::end;
use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls};

guest!(main);

/// PAT and DR7 of L1, those in the VMCS, and those that L2 leaves.
const L1: [u64; 2] = [0x0007_0406_0007_0406, 0x400];
const VMCS: [u64; 2] = [0x0606_0406_0007_0406, 0x401];
const LEFT: [u64; 2] = [0x0404_0406_0007_0406, 0x404];

const SCE: u64 = 1;
const NXE: u64 = 1 << 11;

static SEEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

fn main() {
    enter_operation();
    let mut nested = Guest::new(end);
    let old = rdmsr_existing(Msr::IA32_PAT);
    for loads in [false, true] {
        for saves in [false, true] {
            entries_and_exits(&mut nested, loads, saves);
        }
    }
    switched_on_later(&mut nested);
    wrmsr_existing(Msr::IA32_PAT, old);
    for loads in [false, true] {
        for saves in [false, true] {
            for host_loads in [false, true] {
                extended_features(&mut nested, loads, saves, host_loads);
            }
        }
    }
    leave_operation();
}

/// L2: what it finds, and what it leaves.
extern "C" fn exchange() {
    SEEN[0].store(rdmsr_existing(Msr::IA32_PAT), Ordering::SeqCst);
    SEEN[1].store(read_dr7(), Ordering::SeqCst);
    wrmsr_existing(Msr::IA32_PAT, LEFT[0]);
    check_eq!(write_dr7(LEFT[1]), Ok(()), "DR7 in L2");
}

/// Three runs, between which L1 writes to no field: the value in the VMCS is loaded each time.
fn entries_and_exits(nested: &mut Guest, loads: bool, saves: bool) {
    let what = format_args!("loaded {loads}, saved {saves}");
    set_fields(nested, VMCS);
    set_controls(nested, loads, saves);
    for time in 0..3 {
        let in_vmcs = if saves && time > 0 { LEFT } else { VMCS };
        check_eq!(run(nested), if loads { in_vmcs } else { L1 }, "{what}: L2 at run {time}");
    }
    check_eq!(fields(nested), if saves { LEFT } else { VMCS }, "{what}: VMCS");
}

/// What was written while no entry loaded it is loaded once one does.
fn switched_on_later(nested: &mut Guest) {
    set_fields(nested, VMCS);
    set_controls(nested, false, false);
    check_eq!(run(nested), L1, "not loaded");
    set_controls(nested, true, false);
    check_eq!(run(nested), VMCS, "loaded from now on");
}

/// L2: what it finds in IA32_EFER, and a bit that it leaves there.
extern "C" fn exchange_efer() {
    let efer = rdmsr_existing(Msr::IA32_EFER);
    SEEN[0].store(efer, Ordering::SeqCst);
    wrmsr_existing(Msr::IA32_EFER, efer ^ NXE);
}

/// What no control loads goes on as it was, into L2 and out of it.
fn extended_features(nested: &mut Guest, loads: bool, saves: bool, host_loads: bool) {
    let what = format_args!("EFER loaded {loads}, saved {saves}, loaded at the exit {host_loads}");
    let l1 = rdmsr_existing(Msr::IA32_EFER);
    let (l2, host) = (l1 ^ SCE, l1 ^ SCE ^ NXE);
    nested.write(vmcs::GUEST_EFER, l2);
    nested.write(vmcs::HOST_EFER, host);
    let mut entry = EntryControls::from_bits_retain(nested.read(vmcs::ENTRY_CONTROLS));
    let mut exit = ExitControls::from_bits_retain(nested.read(vmcs::EXIT_CONTROLS));
    entry.set(EntryControls::LOAD_EFER, loads);
    exit.set(ExitControls::SAVE_EFER, saves);
    exit.set(ExitControls::LOAD_EFER, host_loads);
    nested.write(vmcs::ENTRY_CONTROLS, entry.bits());
    nested.write(vmcs::EXIT_CONTROLS, exit.bits());
    for time in 0..2 {
        wrmsr_existing(Msr::IA32_EFER, l1);
        nested.call(exchange_efer);
        check_eq!(nested.run(), ExitReason::VMCALL, "the end");
        let after = rdmsr_existing(Msr::IA32_EFER);
        let seen = SEEN[0].load(Ordering::SeqCst);
        let in_vmcs = if saves && time > 0 { l2 ^ NXE } else { l2 };
        let expected = if loads { in_vmcs } else { l1 };
        check_eq!(seen, expected, "{what}: L2 at run {time}");
        check_eq!(after, if host_loads { host } else { seen ^ NXE }, "{what}: L1 after run {time}");
        let saved = nested.read(vmcs::GUEST_EFER);
        check_eq!(saved, if saves { seen ^ NXE } else { l2 }, "{what}: VMCS after run {time}");
        nested.write(vmcs::GUEST_EFER, if saves { l2 ^ NXE } else { l2 });
    }
    wrmsr_existing(Msr::IA32_EFER, l1);
}

fn run(nested: &mut Guest) -> [u64; 2] {
    wrmsr_existing(Msr::IA32_PAT, L1[0]);
    check_eq!(write_dr7(L1[1]), Ok(()), "DR7 in L1");
    nested.call(exchange);
    check_eq!(nested.run(), ExitReason::VMCALL, "the end");
    check!(nested.has_ended(), "the end");
    check_eq!(read_dr7(), 0x400, "DR7 after an exit");
    SEEN.each_ref().map(|seen| seen.load(Ordering::SeqCst))
}

fn set_controls(nested: &mut Guest, loads: bool, saves: bool) {
    let load = EntryControls::LOAD_PAT | EntryControls::LOAD_DEBUG_CONTROLS;
    let save = ExitControls::SAVE_PAT | ExitControls::SAVE_DEBUG_CONTROLS;
    let mut entry = EntryControls::from_bits_retain(nested.read(vmcs::ENTRY_CONTROLS));
    let mut exit = ExitControls::from_bits_retain(nested.read(vmcs::EXIT_CONTROLS));
    entry.set(load, loads);
    exit.set(save, saves);
    nested.write(vmcs::ENTRY_CONTROLS, entry.bits());
    nested.write(vmcs::EXIT_CONTROLS, exit.bits());
}

fn set_fields(nested: &mut Guest, [pat, dr7]: [u64; 2]) {
    nested.write(vmcs::GUEST_PAT, pat);
    nested.write(vmcs::GUEST_DR7, dr7);
}

fn fields(nested: &Guest) -> [u64; 2] {
    [nested.read(vmcs::GUEST_PAT), nested.read(vmcs::GUEST_DR7)]
}
