//! NMI/INIT/SIPI: the monitor trap flag has an exit behind each instruction of a guest's guest, also behind one that the
//! hypervisor carries out for it.
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::trial;
use guest::{Mode, Regs, Snippet, snippet};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

/// Reset control of the chipset, which a write of zero leaves alone, and the port of diagnostics.
const RESET_CONTROL: u64 = 0xcf9;
const DIAGNOSTICS: u64 = 0x80;

fn main() {
    enter_operation();
    // Each first for something that the processor does by itself, then for something that the hypervisor watches.
    let [own, watched] = [Msr::IA32_LSTAR, Msr::IA32_FEATURE_CONTROL].map(|msr| u64::from(msr.0));
    alike("RDMSR", snippet!("rdmsr", "nop"), [own, watched].map(|rcx| Regs { rcx, ..Regs::default() }));
    let ports = [DIAGNOSTICS, RESET_CONTROL].map(|rdx| Regs { rdx, ..Regs::default() });
    alike("OUT", snippet!("out dx, al", "nop"), ports);
    leave_operation();
}

/// L2 passes as many boundaries with either registers.
fn alike(name: &str, code: Snippet, registers: [Regs; 2]) {
    let [own, watched] = registers.map(|registers| boundaries(code, registers));
    check!(own > 2, "{name}: {own} boundaries");
    check_eq!(watched, own, "{name}: boundaries with the hypervisor's help");
}

/// Exits for the monitor trap flag until L2's code has ended.
fn boundaries(code: Snippet, registers: Regs) -> usize {
    let mut nested = Guest::new(trial::perform);
    check!(nested.add_primary(PrimaryControls::MONITOR_TRAP_FLAG), "the processor has the flag");
    trial::begin(&mut nested, Mode::Kernel64, code, registers);
    let mut count = 0;
    while nested.run() == ExitReason::MONITOR_TRAP_FLAG {
        count += 1;
    }
    check!(nested.has_ended(), "the code ends");
    check_eq!(trial::result().0, Ok(()), "the code faults");
    count
}
