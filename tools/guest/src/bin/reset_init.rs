//! INIT to the bootstrap processor: it starts the firmware anew, as after a reset.
//! resets: yes
//! cpus: 2
#![no_std]
#![no_main]

use guest::{apic, check, guest, reset, smp};

guest!(main);

fn main() {
    reset::expect(|| {
        check!(smp::start_others(1), "start of the other CPU");
        smp::begin_on(1, || apic::init(0));
    });
}
