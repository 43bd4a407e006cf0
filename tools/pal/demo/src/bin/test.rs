//! `test N`: the hypercall TEST, which has the hypervisor log N. The exit status is what it returned.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a hypercall")]
// UNSAFETY: TEST touches no memory.

use pal_demo::arguments::{Arguments, number};
use pal_demo::say;
use xmhf_pal::hypercall;
use xmhf_pal::trustvisor::command::Command;

pal_demo::program!(main);

fn main(arguments: Arguments) -> u32 {
    let Some(c) = arguments.exactly().and_then(|[word]| number(word)) else {
        say!("usage: test N\n");
        return 1;
    };
    // SAFETY: TrustVisor is there.
    let status = unsafe { hypercall::call(Command::TEST, hypercall::Arguments { c, ..Default::default() }) };
    say!("{} = vmcall(TV_HC_TEST, {})\n", status.0, c);
    status.0
}
