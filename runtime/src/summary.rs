//! The figures of a run, printed when the guest ends, for people and for the runner.

use crate::log;
use crate::machine::{self, Machine};
use crate::smp::cpus;
use core::sync::atomic::Ordering;

/// Prints the summary, whatever the log level.
pub(crate) fn print(machine: &Machine) {
    log::print_left_out();
    let handoff = machine.handoff;
    let cpus = cpus::all();
    let started = cpus.first().map_or(0, |cpu| cpu.first_entry.load(Ordering::Relaxed));
    let start_ticks = started.saturating_sub(handoff.times.bootloader);
    log::print(format_args!(
        "summary cpus={} hidden_bytes={} image_bytes={} ept_pages={} start_ticks={} guest_tsc={}",
        cpus.len(),
        handoff.region.length,
        machine::image_bytes(),
        machine::SECOND_LEVEL.lock().table_pages(),
        start_ticks,
        started,
    ));
    for cpu in cpus {
        for (cause, count) in cpu.exits() {
            let name = cpu.machine.vendor.exit_name(cause);
            log::print(format_args!("summary cpu={} exit=\"{name}\" count={count}", cpu.index));
        }
        let (nested, reflected) = cpu.nested_exits();
        if nested != 0 {
            let all: u64 = cpu.exits().map(|(_, count)| count).sum();
            log::print(format_args!(
                "summary cpu={} exits_level1={} exits_level2_own={} exits_level2_reflected={reflected}",
                cpu.index,
                all.saturating_sub(nested),
                nested.saturating_sub(reflected),
            ));
        }
    }
}
