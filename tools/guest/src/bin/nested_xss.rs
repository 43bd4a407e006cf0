//! XSAVES and XRSTORS of a guest's guest leave where the XSS-exiting bitmap and IA32_XSS have a component of theirs.
//! model: sapphire_rapids
#![no_std]
#![no_main]

use guest::cpu::{cpuid, read_cr4, write_cr4, wrmsr_existing};
use guest::vmx::prelude::*;
use guest::vmx::{allocate, trial};
use guest::{Mode, Regs, needs, snippet};
use x86::msr::Msr;
use x86::vmx::controls::SecondaryControls;

guest!(main);

const IA32_XSS: Msr = Msr(0xda0);
const XSAVES: ExitReason = ExitReason(63);
const XRSTORS: ExitReason = ExitReason(64);
/// State of control-flow enforcement, of user mode and of supervisor mode.
const USER: u64 = 1 << 11;
const SUPERVISOR: u64 = 1 << 12;

fn main() {
    needs!(
        u64::from(cpuid(0xd, 1).ecx) & (USER | SUPERVISOR) == USER | SUPERVISOR,
        "supervisor state in XSAVE"
    );
    enter_operation();
    check_eq!(write_cr4(read_cr4() | 1 << 18), Ok(()), "OSXSAVE");
    let area = allocate();
    for (xss, bitmap, components) in [
        (USER, 0, USER),
        (USER, USER, USER),
        (USER, USER, 1),
        (USER, SUPERVISOR, USER),
        (0, USER, USER),
        (USER | SUPERVISOR, SUPERVISOR, SUPERVISOR | 1),
    ] {
        wrmsr_existing(IA32_XSS, xss);
        for (code, reason) in [(snippet!("xsaves [rdi]"), XSAVES), (snippet!("xrstors [rdi]"), XRSTORS)] {
            let mut nested = Guest::new(trial::perform);
            check!(nested.add_secondary(SecondaryControls::ENABLE_XSAVES), "XSAVES");
            nested.write(vmcs::XSS_EXITING_BITMAP, bitmap);
            let regs = Regs { rax: components, rdi: area, ..Regs::default() };
            trial::begin(&mut nested, Mode::Kernel64, code, regs);
            let is_wanted = xss & bitmap & components != 0;
            let expected = if is_wanted { reason } else { ExitReason::VMCALL };
            check_eq!(nested.run(), expected, "IA32_XSS {xss:#x}, bitmap {bitmap:#x}, of {components:#x}");
        }
    }
    wrmsr_existing(IA32_XSS, 0);
    check_eq!(write_cr4(read_cr4() & !(1 << 18)), Ok(()), "OSXSAVE");
    leave_operation();
}
