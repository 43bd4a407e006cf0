//! What each processor has for nesting, and the way between its two VMCSs.
//!
//! UNSAFETY: frames of the pool become this state, and another VMCS is made current.
#![expect(unsafe_code, reason = "per-CPU frames, current VMCS")]

use super::bitmap::io::IoBitmaps;
use super::bitmap::msr::{BITMAPS, MsrBitmaps};
use super::entry::vmcs02;
use super::exit::prediction_barrier::PredictorBarrier;
use super::instruction::{Hardware, VpidScope};
use super::memory::ept02::cache::Named;
use super::memory::ept02::machine_cache as ept02;
use super::memory::missing_page::Note;
use super::memory::vpid::{Invvpid, VpidMap};
use super::performance_counters::PerformanceCounters;
use super::vmcs12::Vmcs12;
use super::vmcs12::shadow_vmcs::{Bitmaps, ShadowVmcs};
use super::{Facts, Nested, Operation};
use crate::features::features;
use crate::machine;
use crate::smp::cpus;
use crate::smp::percpu::{self, PerCpu};
use crate::vmx::controls::Controls;
use crate::vmx::enable::vmcs_of;
use crate::vmx::observers::observers;
use hw::bare::vmx::{self, CurrentVmcs};
use hw::bare::{Processor, guest_registers};
use platform::handoff::Handoff;
use spin::{Mutex, MutexGuard, Once};
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::vmx::ept::EptPointer;

/// Nesting on one processor.
#[derive(Debug)]
pub(super) struct NestedCpu {
    pub(super) nested: Nested,
    pub(super) hardware: NestedHardware,
    /// What an access in L2's stead lacked.
    pub(super) missing_page: Note,
}

/// A CPU's nesting, locked by that CPU.
pub(super) type State = MutexGuard<'static, NestedCpu>;

/// What one processor's hardware keeps for nesting.
#[derive(Debug)]
pub(super) struct NestedHardware {
    /// What the hypervisor needs while L2 runs.
    pub(super) l0_controls: Controls,
    /// Bitmaps that hold for L1.
    pub(super) l0_bitmaps: L0Bitmaps,
    /// Stands in for memory that L1 gives the processor and does not have.
    pub(super) scratch: HostPhysAddr,
    pub(super) msr_bitmaps: MsrBitmaps,
    pub(super) io_bitmaps: IoBitmaps,
    /// [`ept02::changes`] when addresses of L1's were last translated.
    pub(super) translated_at: u64,
    /// Pages of L1 that the processor writes for L2, past the tables.
    pub(super) unseen_writes: [Option<GuestPhysAddr>; 2],
    /// The VPIDs of L1's guests.
    pub(super) vpids: VpidMap,
    /// Between L2 and L1.
    pub(super) barrier: PredictorBarrier,
    /// What counts and records in L1 and L2.
    pub(super) counters: PerformanceCounters,
    /// Serves L1's VMREAD and VMWRITE where the processor can.
    pub(super) shadow: Option<ShadowVmcs>,
    vmcs01: HostPhysAddr,
    vmcs02: HostPhysAddr,
}

/// The bitmaps that hold for L1.
#[derive(Clone, Copy, Debug)]
pub(in crate::vmx) struct L0Bitmaps {
    /// The MSR bitmap.
    pub(in crate::vmx) msr: HostPhysAddr,
    /// I/O bitmap A, which B follows.
    pub(in crate::vmx) io: HostPhysAddr,
}

/// What a CPU has from the start, and what changes with its guest.
struct Slot {
    /// There once the CPU is set up.
    facts: Once<Facts>,
    state: Mutex<NestedCpu>,
}

struct Shared {
    cpus: &'static [Slot],
    /// Those of the bootstrap processor.
    facts: Facts,
}

static SHARED: Once<Shared> = Once::new();

impl NestedHardware {
    /// Makes the VMCS of L2 current.
    pub(super) fn select_l2(&self) -> CurrentVmcs {
        select(self.vmcs02)
    }

    /// Returns the VMCS that is current.
    pub(super) const fn current(&self) -> CurrentVmcs {
        // SAFETY: one of ours always is, between a VM exit and the next VM entry.
        unsafe { CurrentVmcs::new() }
    }

    /// Makes the VMCS of L1 current, which `vmcs12` tells of an exit.
    pub(super) fn return_to_l1(&mut self, vmcs12: &Vmcs12) -> CurrentVmcs {
        if let Some(shadow) = &mut self.shadow {
            // Before the VMCS of L1 is made current: to write the shadow VMCS is to make that current, and to clear
            // it leaves none.
            shadow.tell_exit(vmcs12);
        }
        self.select_l1()
    }

    /// Makes the VMCS of L1 current.
    pub(super) fn select_l1(&self) -> CurrentVmcs {
        select(self.vmcs01)
    }
}

impl Hardware for NestedHardware {
    fn fetch_guest_state(&mut self, vmcs12: &mut Vmcs12) {
        if let Some(facts) = facts() {
            vmcs02::copy_cold_guest_state(&self.select_l2(), vmcs12, &facts.capability);
        }
        // The instruction that asked is L1's, and is carried out on the VMCS of L1.
        self.select_l1();
    }

    fn fetch_shadow(&mut self, vmcs12: &mut Vmcs12) {
        if let Some(shadow) = &mut self.shadow {
            shadow.fetch(vmcs12);
            self.select_l1();
        }
    }

    fn invalidate_ept(&mut self, ept_pointer: Option<u64>) {
        ept02::invalidate(ept_pointer.map_or(Named::All, |pointer| Named::Single(EptPointer(pointer))));
    }

    fn invalidate_vpid(&mut self, scope: VpidScope) {
        self.vpids.invalidate(scope, drop_translations);
    }

    fn current_changed(&mut self, vmcs12: Option<&Vmcs12>) {
        if let Some(shadow) = &mut self.shadow
            && let Some(vmcs12) = vmcs12
        {
            shadow.hold(vmcs12);
        }
        // The fields are in place before the control lets L1 reach them. The control is in the VMCS of L1.
        let mut vmcs01 = self.select_l1();
        if let Some(shadow) = &mut self.shadow {
            shadow.switch(vmcs12.is_some(), &mut vmcs01);
        }
    }

    fn left_operation(&mut self) {
        ept02::leave(percpu::current());
    }
}

/// Executes INVVPID on this CPU.
pub(super) fn drop_translations(what: Invvpid) {
    // SAFETY: in VMX root operation, while an exit is handled.
    if unsafe { vmx::invvpid(what.kind, what.vpid, what.address) }.is_err() {
        // A type that this processor lacks is not offered to L1; all of them is what is left.
        if guest_registers::invalidate_translations().is_err() {
            panic!("INVVPID failed");
        }
    }
}

fn select(vmcs: HostPhysAddr) -> CurrentVmcs {
    // SAFETY: a frame of this CPU's own, that it has initialised.
    if unsafe { vmx::vmptrld(vmcs) }.is_err() {
        panic!("VMPTRLD of a VMCS of ours failed");
    }
    // SAFETY: just made current; host state is not written by its users.
    unsafe { CurrentVmcs::new() }
}

/// Builds what nesting needs on every CPU. Without, the guest has no VMX.
pub(in crate::vmx) fn prepare(handoff: &Handoff, l0_bitmaps: L0Bitmaps) {
    let (Ok(l0_controls), Ok(facts)) = (
        Controls::for_processor(&Processor, observers()),
        Facts::of_processor(&Processor, &Processor, features().physical_address_bits),
    ) else {
        return;
    };
    ept02::start(handoff.nested_pool, usize::from(handoff.nested_ept02));
    if !ept02::is_ready() {
        return;
    }
    let shadow_bitmaps = Bitmaps::make();
    let count = cpus::all().len();
    let frames = (count * size_of::<Slot>()).div_ceil(4096);
    let place = machine::with_frame_run(frames);
    let list = machine::region().virt(place, frames * 4096).cast::<Slot>();
    for (index, cpu) in cpus::all().iter().enumerate() {
        let vmcs02 = machine::with_frame_run(1);
        let hardware = NestedHardware {
            l0_controls,
            l0_bitmaps,
            scratch: machine::with_frame_run(1),
            msr_bitmaps: MsrBitmaps::new([(); BITMAPS].map(|()| machine::with_frame_run(1))),
            io_bitmaps: IoBitmaps::new(machine::with_frame_run(2)),
            translated_at: 0,
            unseen_writes: [None; 2],
            vpids: VpidMap::new(),
            barrier: PredictorBarrier::of(&Processor),
            counters: PerformanceCounters::default(),
            shadow: shadow_bitmaps.map(ShadowVmcs::new),
            vmcs01: vmcs_of(cpu),
            vmcs02,
        };
        let state = NestedCpu { nested: Nested::new(), hardware, missing_page: Note::default() };
        // SAFETY: the list has room for all CPUs.
        let slot = unsafe { list.add(index) };
        // SAFETY: fresh frames, aligned.
        unsafe { slot.write(Slot { facts: Once::new(), state: Mutex::new(state) }) };
    }
    // SAFETY: every element was written, and the frames are never freed.
    let cpus = unsafe { core::slice::from_raw_parts(list, count) };
    // Last: an exit that finds nesting finds all of it.
    SHARED.call_once(|| Shared { cpus, facts });
}

/// Initialises the VMCS of L2 with `write`, and makes that of L1 current again.
pub(in crate::vmx) fn set_up(cpu: &PerCpu, revision: u32, write: impl FnOnce(&mut CurrentVmcs)) {
    use hw::PhysMemory;
    let (Some(shared), Some(mut state)) = (SHARED.get(), of(cpu)) else { return };
    shared.cpus[cpu.index].facts.call_once(|| shared.facts.on(&Processor, &Processor));
    state.hardware.barrier = PredictorBarrier::of(&Processor);
    // The revision before VMCLEAR, which initialises the region, and VMCLEAR before VMPTRLD (SDM, "Format of the VMCS
    // Region"; "Software Use of Virtual-Machine Control Structures").
    machine::region().write(state.hardware.vmcs02, &revision.to_le_bytes());
    // SAFETY: a frame of this CPU's own with the revision.
    if unsafe { vmx::vmclear(state.hardware.vmcs02) }.is_err() {
        panic!("VMCLEAR of a VMCS of ours failed");
    }
    write(&mut state.hardware.select_l2());
    let mut vmcs01 = state.hardware.select_l1();
    if let Some(shadow) = &state.hardware.shadow {
        shadow.set_up(revision, &mut vmcs01);
        state.hardware.select_l1();
    }
}

/// Nesting on `cpu`, which executes this; `None` where the guest has no VMX.
pub(super) fn of(cpu: &PerCpu) -> Option<State> {
    let shared = SHARED.get()?;
    // Nobody but this CPU locks it: to wait would be to wait for ever.
    let Some(state) = shared.cpus[cpu.index].state.try_lock() else {
        panic!("the nesting of a CPU is locked twice")
    };
    Some(state)
}

/// Calls `act` on `cpu`, which executes this, without the lock: hypapps are called on the way, and their services
/// need it.
pub(super) fn unlocked<T>(state: State, cpu: &PerCpu, act: impl FnOnce() -> T) -> (State, T) {
    drop(state);
    let result = act();
    let Some(state) = of(cpu) else { unreachable!("nesting does not end") };
    (state, result)
}

/// Returns what the executing CPU, which is set up, can do for L1.
pub(super) fn facts() -> Option<&'static Facts> {
    SHARED.get()?.cpus[percpu::current().index].facts.get()
}

/// Returns whether L2 runs on `cpu`, which executes this.
pub(in crate::vmx) fn is_l2(cpu: &PerCpu) -> bool {
    of(cpu).is_some_and(|state| state.nested.operation == Operation::NonRoot)
}

/// Returns whether the guest of `cpu`, which executes this, is in VMX operation.
pub(in crate::vmx) fn is_in_operation(cpu: &PerCpu) -> bool {
    of(cpu).is_some_and(|state| state.nested.operation != Operation::Off)
}
