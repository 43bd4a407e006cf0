//! VMCLEAR semantics: a guest's guest moves from processor to processor by VMCLEAR and VMPTRLD, and takes all it has.
//! cpus: 3
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{rdmsr_existing, read_dr7, vmcall, write_dr7, wrmsr_existing};
use guest::smp;
use guest::vmx::instruction::vmptrst;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, Failure};
use spin::Mutex;
use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls, SecondaryControls};

guest!(main);

const ROUNDS: u64 = 60;
const CPUS: u64 = 3;

/// The guest's guest while no processor has it.
static GUEST: Mutex<Option<Guest>> = Mutex::new(None);
static ROUND: AtomicU64 = AtomicU64::new(0);
/// What it counted, and what it found changed.
static COUNT: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(2), "three CPUs");
    let ept = Ept::identity();
    enter_operation();
    for cpu in [1, 2] {
        check!(smp::run_on(cpu, || _ = enter_operation()), "CPU {cpu} enters VMX operation");
    }
    for has_ept in [false, true] {
        let mut nested = Guest::new(count);
        if has_ept {
            nested.use_ept(&ept);
            check!(nested.add_secondary(SecondaryControls::ENABLE_VPID), "VPIDs");
            nested.write(vmcs::VPID, 7);
        }
        let entry = nested.read(vmcs::ENTRY_CONTROLS);
        nested.write(vmcs::ENTRY_CONTROLS, entry | EntryControls::LOAD_DEBUG_CONTROLS.bits());
        check!(nested.add_exit(ExitControls::SAVE_DEBUG_CONTROLS), "saving of debug controls");
        nested.clear();
        *GUEST.lock() = Some(nested);
        COUNT.store(0, Ordering::SeqCst);
        for round in 0..ROUNDS {
            ROUND.store(round, Ordering::SeqCst);
            // Not in turn, and now and then on the same one again.
            match round * round % CPUS {
                0 => turn(),
                cpu => {
                    check!(smp::run_on(guest::memory::low(cpu) as usize, turn), "a turn on CPU {cpu}");
                }
            }
        }
        check_eq!(COUNT.load(Ordering::SeqCst), ROUNDS, "rounds, EPT {has_ept}");
        check_eq!(LOST.load(Ordering::SeqCst), 0, "registers that a move changed, EPT {has_ept}");
    }
    for cpu in [1, 2] {
        check!(smp::run_on(cpu, leave_operation), "CPU {cpu} leaves VMX operation");
    }
    leave_operation();
}

/// One round on the processor that executes this.
fn turn() {
    let Some(mut nested) = GUEST.lock().take() else {
        check!(false, "the guest's guest is nowhere");
        return;
    };
    let round = ROUND.load(Ordering::SeqCst);
    check_eq!(vmptrst(), u64::MAX, "round {round}: no VMCS is current here");
    nested.adopt();
    if round > 0 {
        left_by(&nested, round);
    }
    check_eq!(resume(&mut nested), Err(Failure::Valid(5)), "round {round}: VMRESUME behind VMCLEAR");
    check_eq!(nested.run(), ExitReason::VMCALL, "round {round}");
    left_by(&nested, round + 1);
    nested.advance();
    nested.clear();
    *GUEST.lock() = Some(nested);
}

fn resume(nested: &mut Guest) -> Result<ExitReason, Failure> {
    let mut launched = Guest::current(nested.region, true);
    launched.registers = nested.registers;
    launched.enter()
}

/// What the guest's guest left in its registers is in its VMCS, wherever it ran.
fn left_by(nested: &Guest, round: u64) {
    check_eq!(nested.read(vmcs::GUEST_FS_BASE), mark(round), "FS base after {round} rounds");
    check_eq!(
        nested.read(vmcs::GUEST_SYSENTER_EIP),
        mark(round) + 1,
        "IA32_SYSENTER_EIP after {round} rounds"
    );
    check_eq!(
        nested.read(vmcs::GUEST_CR4) & TSD,
        if round % 2 == 1 { TSD } else { 0 },
        "CR4 after {round} rounds"
    );
}

const TSD: u64 = 1 << 2;

fn mark(round: u64) -> u64 {
    0x5500_0000 + (round << 12)
}

/// L2: changes registers of its own, leaves, and finds them as they were.
extern "C" fn count() {
    for round in 1..=ROUNDS {
        wrmsr_existing(Msr::IA32_FS_BASE, mark(round));
        wrmsr_existing(Msr::IA32_SYSENTER_EIP, mark(round) + 1);
        let cr4 = guest::cpu::read_cr4() ^ TSD;
        let _ = guest::cpu::write_cr4(cr4);
        let dr7 = 0x400 | (round % 4) << 2;
        let _ = write_dr7(dr7);
        COUNT.fetch_add(1, Ordering::SeqCst);
        vmcall();
        let is_there = rdmsr_existing(Msr::IA32_FS_BASE) == mark(round)
            && rdmsr_existing(Msr::IA32_SYSENTER_EIP) == mark(round) + 1
            && guest::cpu::read_cr4() == cr4
            && read_dr7() == dr7;
        LOST.fetch_add(u64::from(!is_there), Ordering::SeqCst);
    }
}
