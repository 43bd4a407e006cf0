//! First process of a Linux whose kernel has 32 bits: runs the PAL programs, tries PALs of its own, and switches the
//! machine off.
//!
//! Its words are those of `tools/initramfs`. Where there is no TrustVisor it only says that userspace is there.
#![no_std]
#![no_main]

mod keep;
mod kernel;
mod programs;

use pal_demo::arguments::Arguments;
use pal_demo::say;
use pal_demo::ticks::ticks;

/// What went wrong.
type Failure = &'static str;

// UNSAFETY: no other function has the name, as there is one program.
#[expect(unsafe_code, reason = "the name that the start looks for")]
#[unsafe(no_mangle)]
extern "Rust" fn program_main(_: Arguments) -> u32 {
    let userspace = ticks();
    kernel::quiet();
    let mounted = kernel::mount_proc();
    say!("xmhf-guest: userspace tsc={} cpus={}\n", userspace, kernel::cpus());
    if xmhf_pal::is_present() {
        perform("proc", || mounted);
        perform("pal_programs", programs::perform);
        perform("pal_keep", keep::perform);
        perform("pal_exit", keep::leave_behind);
        perform("pal_notary", programs::notary);
    }
    say!("xmhf-guest: done\n");
    kernel::power_off();
    0
}

fn perform(name: &str, action: impl FnOnce() -> Result<(), Failure>) {
    match action() {
        Ok(()) => say!("xmhf-guest: {name} ok\n"),
        Err(why) => say!("xmhf-guest: {name} failed: {why}\n"),
    }
}
