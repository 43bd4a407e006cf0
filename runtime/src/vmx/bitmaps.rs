//! The MSR and I/O bitmaps, which all CPUs share.
//!
//! UNSAFETY: frames of the pool become bitmaps that the processor reads.
#![expect(unsafe_code, reason = "bitmap frames")]

use super::nested;
use super::observers::{self, observers};
use crate::exit::msr;
use crate::exit::mtrr::VirtualMtrrs;
use crate::exit::unwatchable::unwatchable;
use crate::hypapp::Hypapp;
use crate::machine;
use crate::policies::Policies;
use crate::vmx::compartment;
use hw::bare::Processor;
use hw::{Msrs, PhysMemory};
use platform::handoff::Handoff;
use spin::Once;
use x86::address::HostPhysAddr;
use x86::msr::Msr;
use x86::vmx::bitmap::{IoBitmap, MsrBitmap, intercept_msr, intercept_port};
use x86::vmx::capability::Allowed;
use x86::vmx::controls::PrimaryControls;

/// What all CPUs' VMCSs share.
pub(super) struct Shared {
    pub(super) msr: HostPhysAddr,
    pub(super) io: HostPhysAddr,
    has_monitor_trap: bool,
}

static SHARED: Once<Shared> = Once::new();

/// Finds out what compartments need, and builds what all CPUs' VMCSs share: the MSR and I/O bitmaps.
pub(crate) fn prepare(handoff: &Handoff, hypapp: &dyn Hypapp, policies: &Policies) {
    observers::prepare();
    compartment::prepare();
    let frames = machine::with_frame_run(1);
    let io_frames = machine::with_frame_run(2);
    let msr_pointer = machine::region().virt(frames, size_of::<MsrBitmap>()).cast::<MsrBitmap>();
    let io_pointer = machine::region().virt(io_frames, size_of::<IoBitmap>()).cast::<IoBitmap>();
    // SAFETY: fresh zeroed frames that nobody else uses; bytes need no alignment.
    let msr_bitmap = unsafe { &mut *msr_pointer };
    for number in 0..=0x2ff {
        if VirtualMtrrs::covers(Msr(number)) {
            intercept_msr(msr_bitmap, Msr(number), true, true);
        }
    }
    for wanted in msr::intercepted() {
        intercept_msr(msr_bitmap, wanted.msr, wanted.read, wanted.write);
    }
    for msr in observers().intercepted() {
        intercept_msr(msr_bitmap, msr, false, true);
    }
    if let Some(msr) = unwatchable(hypapp.msrs()) {
        panic!(
            "the hypapp watches {msr:?}, which entries and exits load past it; leave it out of its `msrs`"
        );
    }
    for number in hypapp.msrs().iter().cloned().flatten() {
        intercept_msr(msr_bitmap, Msr(number), true, true);
    }
    // SAFETY: as above.
    let io_bitmap = unsafe { &mut *io_pointer };
    for port in policies.power.intercepted() {
        intercept_port(io_bitmap, port);
    }
    for port in hypapp.ports().iter().cloned().flatten() {
        intercept_port(io_bitmap, port);
    }
    let primary = Processor.read(Msr::IA32_VMX_PROCBASED_CTLS).unwrap_or_default();
    let has_monitor_trap = Allowed(primary).may_be_one() & PrimaryControls::MONITOR_TRAP_FLAG.bits() != 0;
    SHARED.call_once(|| Shared { msr: frames, io: io_frames, has_monitor_trap });
    if policies.cpuid.nested {
        // The bitmap of guests' guests is merged with their hypervisor's and kept, so no bit of it is set later.
        let nested_frame = machine::with_frame_run(1);
        let mut nested_bitmap = *msr_bitmap;
        intercept_msr(&mut nested_bitmap, Msr::IA32_APIC_BASE, true, true);
        machine::region().write(nested_frame, &nested_bitmap);
        nested::prepare(handoff, nested::L0Bitmaps { msr: nested_frame, io: io_frames });
    }
}

/// Makes reads of IA32_APIC_BASE exit on every CPU. Those that are in the guest meanwhile may go on without, as theirs is
/// what they made it.
pub(crate) fn intercept_apic_base() {
    let Some(shared) = SHARED.get() else { return };
    let mut bitmap: MsrBitmap = [0; _];
    machine::region().read(shared.msr, &mut bitmap);
    intercept_msr(&mut bitmap, Msr::IA32_APIC_BASE, true, true);
    machine::region().write(shared.msr, &bitmap);
}

/// Returns what [`prepare`] built.
pub(super) fn shared() -> Option<&'static Shared> {
    SHARED.get()
}

/// Returns whether the guest can be stepped.
pub(super) fn has_monitor_trap() -> bool {
    SHARED.get().is_some_and(|shared| shared.has_monitor_trap)
}
