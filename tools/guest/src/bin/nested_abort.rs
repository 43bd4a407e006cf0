//! VMX abort: an exit that cannot save or load MSRs says so in the VMCS and shuts the processor down, which resets the
//! machine here.
//! bare: no
//! resets: yes
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::{allocate, read, revision, verdict, write};
use guest::{cmos, console, cpu, println, smp};
use x86::msr::Msr;

guest!(main);

/// A page of memory that outlives the reset, as neither firmware nor boot loader get there.
const REGION: u64 = 0x280_0000;
/// What no processor writes to the VMX-abort indicator.
const NONE: u64 = 0x5a5a_0000;
/// Number of boots so far, above this.
const BOOTS: u8 = 0xb0;
/// "There was a failure in saving guest MSRs"; "in loading host MSRs" (SDM, "VMX Aborts").
const INDICATORS: [u64; 3] = [1, 4, 4];
/// A bit of IA32_DEBUGCTL that processors with RTM alone have, which no model here is.
const RTM_DEBUG: u64 = 1 << 15;

/// Without a hypervisor beneath, what a processor that has shut down does to its machine is the board's business.
fn main() {
    let boots = cmos::read(cmos::SCRATCH).saturating_sub(BOOTS);
    let indicator = |boot: u8| INDICATORS.get(usize::from(boot));
    if let Some(before) = boots.checked_sub(1).and_then(indicator) {
        let expected = u64::from(revision()) | before << 32;
        check_eq!(read(REGION), expected, "revision and VMX-abort indicator after boot {boots}");
    }
    let Some(indicator) = indicator(boots) else {
        cmos::write(cmos::SCRATCH, 0);
        return;
    };
    cmos::write(cmos::SCRATCH, BOOTS + boots + 1);
    println!("boot {} is to end by VMX abort {indicator}", boots + 1);
    console::drain();
    abort(boots);
    cpu::wait(smp::PATIENCE);
    cmos::write(cmos::SCRATCH, 0);
    check!(false, "the machine was not reset");
}

fn abort(boot: u8) {
    enter_operation();
    write(REGION, u64::from(revision()) | NONE << 32);
    let mut nested = Guest::at(REGION, verdict::end);
    let area = allocate();
    // Registers that neither area may name: those of the local APIC, and what VMCS fields alone load.
    let store = (vmcs::EXIT_MSR_STORE_ADDRESS, vmcs::EXIT_MSR_STORE_COUNT);
    let load = (vmcs::EXIT_MSR_LOAD_ADDRESS, vmcs::EXIT_MSR_LOAD_COUNT);
    let ((address, count), msr, value) = match boot {
        0 => (store, Msr::X2APIC_FIRST, 0),
        1 => (load, Msr::IA32_FS_BASE, 0),
        // What the processor's own VM entry would refuse in the hypervisor's stead.
        _ => (load, Msr::IA32_DEBUGCTL, RTM_DEBUG),
    };
    write(area, msr.0.into());
    write(area + 8, value);
    nested.write(address, area);
    nested.write(count, 1);
    let _ = nested.enter();
}
