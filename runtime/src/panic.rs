//! A stop: the hypervisor or the hardware is at fault. Everything known is printed, what was secret is zeroed, every CPU
//! halts.
//!
//! UNSAFETY: reads its own stack as words.
#![expect(unsafe_code, reason = "backtrace")]

use crate::log::print_at_any_price as print;
use crate::memory::host;
use crate::reset::scrub::{self, Last};
use crate::smp::{cpus, percpu};
use crate::{machine, stop};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use hw::apic::{Command, Destination};
use hw::bare::memory;
use hw::bare::processor::{halt, wait_until};

/// The CPU that stopped first.
static STOPPED: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Ticks after which a CPU that does not come is given up.
const PATIENCE: u64 = 200_000_000;
/// Words above the stack pointer that are searched for return addresses; a guard page is half of them.
const BACKTRACE_WORDS: u64 = 1024;
/// Lines of the log that a dump ends with.
const LOG_LINES: usize = 16;
const BACKTRACE_DEPTH: usize = 32;

/// Reads an address that nothing is mapped at.
pub(crate) fn read_unmapped() -> u64 {
    // SAFETY: it faults, which stops the hypervisor; no value is ever read.
    unsafe { core::ptr::without_provenance::<u64>(0x1000).read_volatile() }
}

#[cfg_attr(target_os = "none", panic_handler)]
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "a host has a handler of its own"))]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let place = info.location().map_or("", core::panic::Location::file);
    let line = info.location().map_or(0, core::panic::Location::line);
    stop(format_args!("{} ({place}:{line})", info.message()), None)
}

/// Stops for `reason`, an exception of the hypervisor's own. `frame` is what it pushed, `stack` where it struck.
pub(crate) fn stop_on_exception(reason: fmt::Arguments<'_>, stack: u64, frame: &dyn fmt::Debug) -> ! {
    stop(reason, Some((stack, frame)))
}

fn stop(reason: fmt::Arguments<'_>, exception: Option<(u64, &dyn fmt::Debug)>) -> ! {
    let is_first = stop::begin();
    if !cpus::is_ready() {
        // Before the per-CPU data stands there is nothing more to say.
        print(format_args!("stop: runtime: {reason}"));
        halt();
    }
    let own = percpu::current();
    print(format_args!("stop: runtime: {reason}"));
    // The dump itself failed here: nothing is left to say.
    if !is_first && STOPPED.load(Ordering::SeqCst) == own.index {
        scrub::leave_at_once(Last::Halt);
    }
    if !is_first {
        stop::stand_still();
    }
    STOPPED.store(own.index, Ordering::SeqCst);
    for cpu in cpus::all().iter().filter(|cpu| cpu.index != own.index) {
        cpu.demand_attention();
        let _ = host::local_apic().send(Destination::Cpu(cpu.apic_id()), Command::Nmi);
    }
    print(format_args!("stop: cpu={} apic={:#x}", own.index, own.apic_id()));
    // What a compartment's software has in its registers is a secret, and ours may still have it.
    let is_secret = own.is_in_compartment();
    if let Some((_, frame)) = exception.filter(|_| !is_secret) {
        print(format_args!("{frame:x?}"));
    }
    if is_secret {
        print(format_args!("registers are a compartment's, and not shown"));
    } else {
        // SAFETY: the guest's registers lie on the top of this CPU's stack for as long as it runs.
        print(format_args!("guest registers {:x?}", unsafe { own.registers().read() }));
    }
    let _ = own.machine.vendor.dump(&mut Lines, !is_secret);
    backtrace(exception.map(|(stack, _)| stack));
    crate::log::print_last_lines(LOG_LINES);
    print(format_args!("stop: end of dump"));
    let running = cpus::all().iter().filter(|cpu| cpu.index != own.index);
    let running = running.filter(|cpu| cpu.is_running()).count();
    // Before memory is zeroed under them.
    wait_until(PATIENCE, || stop::standing() >= running);
    scrub::leave(Last::Halt)
}

/// Prints what on the stack looks like return addresses: no frame pointers are kept.
fn backtrace(stack: Option<u64>) {
    let here = 0u64;
    let start = stack.unwrap_or((&raw const here) as u64) & !7;
    let text = machine::text_range();
    // A stack that overflowed has its pointer in the guard page, and a pointer gone wild shows anything.
    let words = (0..BACKTRACE_WORDS).filter_map(|index| probe(start.wrapping_add(8 * index)));
    for word in words.filter(|word| text.contains(word)).take(BACKTRACE_DEPTH) {
        print(format_args!("backtrace {word:#x}"));
    }
}

/// Returns the word at `address` in the hypervisor's address space; `None` where nothing is mapped.
pub(crate) fn probe(address: u64) -> Option<u64> {
    let mut bytes = [0; size_of::<u64>()];
    // SAFETY: of devices only VGA memory and the local APIC are mapped, whose reads change nothing; a word that
    // is being written may be read torn.
    unsafe { memory::try_read(address as *const u8, &mut bytes) }.ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// Sends what is written to the consoles, by lines.
struct Lines;

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        crate::log::write_at_any_price(text);
        Ok(())
    }
}
