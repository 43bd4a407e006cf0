//! EPT flags: a write that a hypervisor beneath makes in L2's stead is logged where it sets a dirty flag, and leaves for a
//! log that is full.
//! model: corei7_skylake_x
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::cpu::rdmsr_existing;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, read, trial, write};
use guest::{Mode, Regs, println, snippet};
use x86::msr::Msr;
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::controls::SecondaryControls;

guest!(main);

const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const FLAGS_ENABLED: u64 = 1 << 6;
const PAGE: u64 = 0x3000_1000;
const LAST: u16 = 511;
/// The index of a log without room.
const FULL: u16 = 512;
const ALL_CONTEXTS: u64 = 2;
/// A port that a hypervisor leaves to its guest, and the keyboard controller's, by which the machine is reset.
const PORTS: [u64; 2] = [0x60, 0x64];

fn main() {
    enter_operation();
    let capability = EptVpidCapability::from_bits_retain(rdmsr_existing(Msr::IA32_VMX_EPT_VPID_CAP));
    check!(capability.contains(EptVpidCapability::ACCESSED_DIRTY), "the model has accessed and dirty flags");
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    ept.map(PAGE, allocate(), 7);
    nested.write(vmcs::EPT_POINTER, ept.pointer() | FLAGS_ENABLED);
    check!(nested.add_secondary(SecondaryControls::ENABLE_PML), "the model has a page-modification log");
    let log = allocate();
    nested.write(vmcs::PML_ADDRESS, log);
    let entry = ept.entry(PAGE, 1);
    for port in PORTS {
        println!("port {port:#x}");
        let reason = input(&mut nested, entry, port, LAST, log);
        check_eq!(reason, ExitReason::VMCALL, "INS from {port:#x}");
        check!(read(entry) & DIRTY != 0, "dirty flag behind INS from {port:#x}");
        let index = u64::from(nested.read(vmcs::PML_INDEX));
        check!(index < u64::from(LAST), "index behind INS from {port:#x}: {index}");
        let logged = (index + 1..=LAST.into()).filter(|at| read(log + 8 * at) == PAGE).count();
        check_eq!(logged, 1, "times that INS from {port:#x} is logged");
        // The tables under which L2 runs are logged too: they need flags of their own first.
        let reason = input(&mut nested, entry, port, FULL, log);
        check_eq!(reason, ExitReason::PAGE_MODIFICATION_LOG_FULL, "INS from {port:#x} with a full log");
        check_eq!(read(entry) & DIRTY, 0, "dirty flag of an INS from {port:#x} that is not done");
    }
    nested.clear();
    leave_operation();
}

/// L2 has a byte from `port` put into a page that is not dirty.
fn input(nested: &mut Guest, entry: u64, port: u64, index: u16, log: u64) -> ExitReason {
    for at in 0..512 {
        write(log + 8 * at, 0);
    }
    nested.write(vmcs::PML_INDEX, index);
    write(entry, read(entry) & !(ACCESSED | DIRTY));
    check_eq!(instruction::invept(ALL_CONTEXTS, [0, 0]), Ok(()), "INVEPT");
    let regs = Regs { rdi: PAGE, rdx: port, ..Regs::default() };
    trial::begin(nested, Mode::Kernel64, snippet!("insb"), regs);
    nested.run()
}
