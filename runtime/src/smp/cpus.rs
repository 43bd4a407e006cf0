//! All CPUs of the machine.
//!
//! UNSAFETY: builds the per-CPU data in frames of the pool.
#![expect(unsafe_code, reason = "frames become per-CPU data")]

use super::percpu::{self, PerCpu, VENDOR_FRAMES};
use crate::machine::{self, Machine};
use crate::memory::host;
use spin::Once;

/// The bootstrap processor, until all CPUs are known.
static BOOTSTRAP: Once<&'static PerCpu> = Once::new();
static CPUS: Once<&'static [&'static PerCpu]> = Once::new();

/// Makes the data of the executing CPU, the bootstrap processor, whose local APIC has the ID `apic_id`.
pub(crate) fn create_bootstrap(machine: &'static Machine, apic_id: u32) -> &'static PerCpu {
    BOOTSTRAP.call_once(|| create_cpu(machine, 0, apic_id))
}

/// Makes the data of the CPUs beside `bootstrap`: of all `apic_ids`, `count` of them, but the first, which is that
/// one's.
pub(crate) fn create_others(bootstrap: &'static PerCpu, count: usize, apic_ids: impl Iterator<Item = u32>) {
    let bytes = count * size_of::<&PerCpu>();
    let list = machine::region()
        .virt(machine::with_frame_run(bytes.div_ceil(4096)), bytes)
        .cast::<&'static PerCpu>();
    let mut written = 0;
    for (index, apic_id) in apic_ids.take(count).enumerate() {
        let cpu = if index == 0 { bootstrap } else { create_cpu(bootstrap.machine, index, apic_id) };
        // SAFETY: the list has room for `count` CPUs.
        let slot = unsafe { list.add(index) };
        // SAFETY: as above.
        unsafe { slot.write(cpu) };
        written = index + 1;
    }
    // SAFETY: so many elements were written.
    let list = unsafe { core::slice::from_raw_parts(list, written) };
    CPUS.call_once(|| list);
}

fn create_cpu(machine: &'static Machine, index: usize, apic_id: u32) -> &'static PerCpu {
    const { assert!(size_of::<PerCpu>() <= PER_CPU_FRAMES * 4096) };
    let place = machine::with_frame_run(PER_CPU_FRAMES);
    let place = machine::region().virt(place, size_of::<PerCpu>()).cast::<PerCpu>();
    let stacks = machine::with_frames(|frames| host::map_stacks(index, frames));
    let vendor_frames = [(); VENDOR_FRAMES].map(|()| machine::with_frame_run(1));
    // SAFETY: fresh zeroed frames, page-aligned, never freed; the stacks were mapped for this CPU.
    unsafe { PerCpu::create(place, machine, index, apic_id, stacks, vendor_frames) }
}

const PER_CPU_FRAMES: usize = 2;

/// Everything is known that a dump wants.
pub(crate) fn is_ready() -> bool {
    percpu::is_installed()
}

/// Returns all CPUs, the bootstrap processor first and, before the others have been called, alone.
pub(crate) fn all() -> &'static [&'static PerCpu] {
    let bootstrap = || BOOTSTRAP.get().map(core::slice::from_ref);
    CPUS.get().copied().or_else(bootstrap).unwrap_or_default()
}
