//! A stop: the hypervisor or the hardware is at fault. Everything known is printed, every CPU halts.
//!
//! UNSAFETY: reads its own stack as words.
#![expect(unsafe_code, reason = "backtrace")]

use crate::exception::Frame;
use crate::log::print_at_any_price as print;
use crate::memory::host;
use crate::smp::percpu;
use crate::{machine, vmx};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use hw::bare::apic::Command;
use hw::bare::processor::{cr2, halt};

static IS_STOPPING: AtomicBool = AtomicBool::new(false);
/// Words of stack that are searched for return addresses.
const BACKTRACE_WORDS: usize = 1024;
const BACKTRACE_DEPTH: usize = 32;

/// Reads an address that nothing is mapped at.
pub(crate) fn read_unmapped() -> u64 {
    // SAFETY: it faults, which stops the hypervisor; no value is ever read.
    unsafe { core::ptr::without_provenance::<u64>(0x1000).read_volatile() }
}

/// Whether some CPU has stopped the hypervisor.
pub(crate) fn is_stopping() -> bool {
    IS_STOPPING.load(Ordering::SeqCst)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let place = info.location().map_or("", core::panic::Location::file);
    let line = info.location().map_or(0, core::panic::Location::line);
    stop(format_args!("{} ({place}:{line})", info.message()), None)
}

/// Stops on an exception of the hypervisor's own.
pub(crate) fn stop_on_exception(frame: &Frame) -> ! {
    stop(
        format_args!(
            "exception {} in the hypervisor, error code {:#x}, rip {:#x}, cr2 {:#x}",
            frame.vector,
            frame.error_code,
            frame.rip,
            cr2()
        ),
        Some(frame),
    )
}

fn stop(reason: fmt::Arguments<'_>, frame: Option<&Frame>) -> ! {
    let is_first = !IS_STOPPING.swap(true, Ordering::SeqCst);
    if !machine::is_ready() {
        // Before the per-CPU data stands there is nothing more to say.
        print(format_args!("stop: runtime: {reason}"));
        halt();
    }
    let own = percpu::current();
    print(format_args!("stop: runtime: {reason}"));
    if !is_first {
        halt();
    }
    for cpu in machine::cpus().iter().filter(|cpu| cpu.index != own.index) {
        cpu.demand_attention();
        let _ = host::local_apic().send(cpu.apic_id, Command::Nmi);
    }
    print(format_args!("stop: cpu={} apic={:#x}", own.index, own.apic_id));
    if let Some(frame) = frame {
        print(format_args!("{frame:x?}"));
    }
    // SAFETY: the guest's registers lie on the top of this CPU's stack for as long as it runs.
    print(format_args!("guest registers {:x?}", unsafe { own.registers().read() }));
    let _ = vmx::dump(&mut Lines);
    backtrace(frame.map(|frame| frame.rsp));
    print(format_args!("stop: end of dump"));
    halt()
}

/// Prints what on the stack looks like return addresses: no frame pointers are kept.
fn backtrace(stack: Option<u64>) {
    let here = 0u64;
    let top = percpu::current().registers() as u64;
    // A stack that overflowed has its pointer in the guard page.
    let bottom = (top & !0xfff) + 0x1000 - host::MAIN_STACK_BYTES;
    let start = stack.unwrap_or((&raw const here) as u64).max(bottom) & !7;
    let end = top.min(start + BACKTRACE_WORDS as u64 * 8);
    let text = machine::text_range();
    let mut depth = 0;
    for address in (start..end).step_by(8) {
        // SAFETY: between the stack pointer and the top of this CPU's stack, aligned.
        let word = unsafe { (address as *const u64).read_volatile() };
        if text.contains(&word) && depth < BACKTRACE_DEPTH {
            print(format_args!("backtrace {word:#x}"));
            depth += 1;
        }
    }
}

/// Sends what is written to the consoles, by lines.
struct Lines;

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        crate::log::write_at_any_price(text);
        Ok(())
    }
}
