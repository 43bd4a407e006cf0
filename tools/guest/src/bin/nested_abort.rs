//! VMX abort: an exit that cannot load the hypervisor's MSRs shuts the processor down, which here resets the machine.
//! bare: no
//! resets: yes
#![no_std]
#![no_main]

use guest::vmx::{Guest, allocate, enter_operation, verdict, vmcs, write};
use guest::{guest, reset};
use x86::msr::Msr;

guest!(main);

/// Without a hypervisor beneath, what a processor that has shut down does to its machine is the board's business.
fn main() {
    reset::expect(|| {
        enter_operation();
        let mut nested = Guest::new(verdict::end);
        let area = allocate();
        write(area, Msr::IA32_FS_BASE.0.into());
        nested.write(vmcs::EXIT_MSR_LOAD_ADDRESS, area);
        nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 1);
        let _ = nested.enter();
    });
}
