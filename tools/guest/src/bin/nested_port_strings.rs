//! Emulation against intercepts: string I/O on pages that a guest's guest does not have is its hypervisor's violation.
#![no_std]
#![no_main]

use guest::vmx::instruction::invept;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, ept_violation, trial, write};
use guest::{Mode, Regs, snippet};

guest!(main);

/// System control port A, which the hypervisor watches for the reset that it can bring about.
const PORT: u64 = 0x92;
/// Pages of the guest's that lie nowhere else, one behind the other.
const PAGES: u64 = 0x3000_0000;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    let memory = allocate();
    let value = u64::from(guest::cpu::in8(0x92));
    for offset in 0..512 {
        write(memory + 8 * offset, value * 0x0101_0101_0101_0101);
    }
    ept.map(PAGES, memory, 7);
    ept.unmap(PAGES + 0x1000);
    nested.use_ept(&ept);
    for (code, access) in [(snippet!("rep insb"), 0x182), (snippet!("rep outsb"), 0x181)] {
        let start = PAGES + 0xffd;
        let regs = Regs { rdx: PORT, rsi: start, rdi: start, rcx: 5, ..Regs::default() };
        trial::begin(&mut nested, Mode::Kernel64, code, regs);
        check_eq!(nested.run(), ExitReason::EPT_VIOLATION, "exit");
        check_eq!(ept_violation(&nested), access, "qualification");
        check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), PAGES + 0x1000, "guest-physical address");
        check_eq!(nested.read(vmcs::GUEST_LINEAR_ADDRESS), PAGES + 0x1000, "guest-linear address");
        check_eq!(nested.registers.rcx, 2, "elements that are left");
        ept.map(PAGES + 0x1000, memory, 7);
        check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
        check_eq!(nested.run(), ExitReason::VMCALL, "the rest");
        let (result, regs) = trial::result();
        check_eq!((result, regs.rcx), (Ok(()), 0), "all elements");
        ept.unmap(PAGES + 0x1000);
        check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
    }
    leave_operation();
}
