//! Stale translations: VPIDs of a hypervisor's guests: INVVPID of each type drops translations, and without VPID each entry and exit.
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::cpu::{rdmsr_existing, read_cr3, write_cr3};
use guest::memory::read64;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, trial, write};
use guest::{Mode, Regs, println, snippet};
use x86::msr::Msr;
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::controls::SecondaryControls;

guest!(main);

/// Linear address that only tables of this test translate.
const LINEAR: u64 = 1 << 39 | 1 << 38 | 0x1000;

/// The entry that translates [`LINEAR`], and two pages for it to lead to; the first holds 0, the second 1.
struct Place {
    entry: u64,
    pages: [u64; 2],
}

fn main() {
    enter_operation();
    let place = make_place();
    let ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    without_vpid(&mut nested, &place);
    with_vpids(&mut nested, &place);
    many(&mut nested, &place);
    nested.use_ept(&ept);
    with_vpids(&mut nested, &place);
    nested.remove(vmcs::SECONDARY_CONTROLS, SecondaryControls::ENABLE_VPID.bits());
    without_vpid(&mut nested, &place);
    write(read_cr3() & 0xf_ffff_f000 | 8, 0);
    leave_operation();
}

fn make_place() -> Place {
    let tables = [allocate(), allocate(), allocate()];
    let pages = [allocate(), allocate()];
    write(pages[1], 1);
    write(tables[2] + 8, pages[0] | 3);
    write(tables[1], tables[2] | 3);
    write(tables[0] + 8 * 256, tables[1] | 3);
    write(read_cr3() & 0xf_ffff_f000 | 8, tables[0] | 3);
    let _ = write_cr3(read_cr3());
    Place { entry: tables[2] + 8, pages }
}

impl Place {
    fn lead_to(&self, page: usize) {
        write(self.entry, self.pages[page] | 3);
    }
}

/// What the guest reads.
fn look(nested: &mut Guest) -> u64 {
    let regs = Regs { rdi: LINEAR, ..Regs::default() };
    trial::begin(nested, Mode::Kernel64, snippet!("mov rax, [rdi]"), regs);
    check_eq!(nested.run(), ExitReason::VMCALL, "the guest reads");
    trial::result().1.rax
}

/// Number 0000H is dropped at each entry and exit: of the guest, and of its hypervisor.
fn without_vpid(nested: &mut Guest, place: &Place) {
    for round in 0..6 {
        let page = round & 1;
        place.lead_to(page);
        check_eq!(look(nested), page as u64, "the guest's read in round {round}");
        check_eq!(read64(LINEAR), Ok(page as u64), "its hypervisor's read in round {round}");
    }
}

fn with_vpids(nested: &mut Guest, place: &Place) {
    if !nested.add_secondary(SecondaryControls::ENABLE_VPID) {
        println!("the processor has no VPID");
        return;
    }
    let capability = EptVpidCapability::from_bits_retain(rdmsr_existing(Msr(0x48c)));
    let types = [
        EptVpidCapability::INVVPID_ADDRESS,
        EptVpidCapability::INVVPID_SINGLE,
        EptVpidCapability::INVVPID_ALL,
        EptVpidCapability::INVVPID_RETAINING_GLOBALS,
    ];
    for (kind, bit) in (0..).zip(types) {
        if !capability.contains(bit) {
            println!("no INVVPID of type {kind}");
            continue;
        }
        for vpid in [1, 2, 0x1234, 0xffff] {
            nested.write(vmcs::VPID, vpid);
            for page in [0, 1, 0] {
                place.lead_to(page);
                let named = if kind == 2 { 0 } else { u64::from(vpid) };
                check_eq!(instruction::invvpid(kind, [named, LINEAR]), Ok(()), "INVVPID of type {kind}");
                check_eq!(look(nested), page as u64, "after INVVPID of type {kind} for {vpid:#x}");
            }
        }
    }
    check!(instruction::invvpid(1, [0, 0]).is_err(), "INVVPID of number 0");
}

/// More numbers than any cache of them holds; each guest has seen either page before, under another number.
fn many(nested: &mut Guest, place: &Place) {
    for round in 0..3 {
        for vpid in 1..200 {
            nested.write(vmcs::VPID, vpid);
            let page = (usize::from(vpid) + round) & 1;
            place.lead_to(page);
            check_eq!(instruction::invvpid(1, [vpid.into(), 0]), Ok(()), "INVVPID");
            check_eq!(look(nested), page as u64, "number {vpid} in round {round}");
        }
    }
}
