//! First Rust code of the bootstrap processor: tables, then the guest's story, then the verdict.

#![expect(unsafe_code, reason = "boot entry: called by assembly, calls the guest by symbol")]
// UNSAFETY: the entry is reached once, with the state that boot.S prepares.

use core::arch::global_asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::{apic, check, console, legacy, power, println, smp, trap};

global_asm!(include_str!("asm/boot.S"));
global_asm!(include_str!("asm/trap.S"));
global_asm!(include_str!("asm/legacy.S"));
global_asm!(include_str!("asm/vmx.S"));

unsafe extern "C" {
    fn guest_main();
}

#[unsafe(no_mangle)]
extern "C" fn guest_start() -> ! {
    console::initialise();
    trap::initialise();
    legacy::initialise();
    smp::initialise_cpu(0);
    apic::initialise();
    // SAFETY: defined by `guest!` as a safe function of this signature.
    unsafe { guest_main() };
    check::verdict();
    power::off()
}

static PANICKED: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if PANICKED.swap(true, Ordering::SeqCst) {
        power::off_at_once();
    }
    console::break_lock();
    let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
    println!("FAIL {}: panic at {file}:{line}: {}", check::name(), info.message());
    power::off()
}
