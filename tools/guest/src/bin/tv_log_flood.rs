//! TEST, which any process may give, takes no time for long, and the lines that were left out are counted.
//! hypapp: trustvisor
//! bare: no
//! expect-hypervisor: test hypercall, rcx=
//! expect-hypervisor: 984 more lines of trustvisor
#![no_std]
#![no_main]

use guest::cpu::rdtsc;
use guest::pal;
use guest::{Mode, check, check_eq, guest, println};
use trustvisor::command::Command;

guest!(main);

const CALLS: u64 = 1000;
/// Behind the lines that come through.
const BURST: u64 = 16;

fn main() {
    let call = || {
        check_eq!(pal::hypercall(Mode::User64, Command::TEST.0, [0; 4]), 0, "TEST");
    };
    for _ in 0..BURST {
        call();
    }
    let start = rdtsc();
    for _ in BURST..CALLS {
        call();
    }
    let ticks = (rdtsc() - start) / (CALLS - BURST);
    println!("{ticks} ticks a call behind the first lines");
    check!(ticks < 6000, "{ticks} ticks for a line that nobody sees");
}
