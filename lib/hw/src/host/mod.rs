//! What stands for the real machine on a host, under the names of `bare`, so that what runs on the machine compiles and
//! runs there too.
//!
//! Each thread is a processor, a [`HostCpu`] that its test looks into by [`own`]. What does no privileged instruction is
//! the file of `bare` itself.
//!
//! UNSAFETY: keeps the contracts of `bare`, most of which a fake asks nothing for.
#![expect(unsafe_code, reason = "the contracts of the real machine")]

pub mod address_space;
#[path = "../bare/apic.rs"]
pub mod apic;
pub mod control_registers;
#[path = "../bare/device.rs"]
pub mod device;
pub mod exception_table;
pub mod guest_registers;
pub mod memory;
pub mod per_cpu;
pub mod processor;
#[path = "../bare/random.rs"]
pub mod random;
#[path = "../bare/region.rs"]
pub mod region;
#[cfg(feature = "count-vmcs-accesses")]
#[path = "../bare/vmcs_accesses.rs"]
pub mod vmcs_accesses;
pub mod vmx;

pub use processor::Processor;
pub use region::Region;

use crate::sim::{SimCpuid, SimMsrs, SimPorts, SimVmcs, SimXcrs};
use core::cell::RefCell;
use std::collections::BTreeMap;
use x86::address::HostPhysAddr;

/// What a thread has for a processor.
#[derive(Debug, Default)]
pub struct HostCpu {
    /// Its CPUID.
    pub cpuid: SimCpuid,
    /// Its MSRs.
    pub msrs: SimMsrs,
    /// Its extended control registers.
    pub xcrs: SimXcrs,
    /// Its ports.
    pub ports: SimPorts,
    /// VMCSs, by the address of their region.
    pub vmcss: BTreeMap<HostPhysAddr, SimVmcs>,
    /// The region of the current one.
    pub current_vmcs: Option<HostPhysAddr>,
    /// CR0.
    pub cr0: u64,
    /// CR4.
    pub cr4: u64,
    /// What it did and nothing above shows, oldest first.
    pub acts: Vec<Act>,
}

/// What a processor does that leaves no value behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// INVEPT of everything.
    InvalidateGuestPhysical,
    /// INVEPT of one pointer to tables.
    InvalidateTables(u64),
    /// INVVPID of a type, for an identifier and an address.
    InvalidateLinear(u64, u16, u64),
    /// WBINVD.
    WriteBack,
    /// The return stack buffer was filled.
    FillReturnStack,
    /// VERW.
    OverwriteBuffers,
    /// CR2 was loaded.
    SetCr2(u64),
    /// Bits of DR6 were set.
    SetDr6(u64),
    /// CR2 and the debug registers were reset.
    ResetDebugRegisters,
}

thread_local! {
    static OWN: RefCell<HostCpu> = RefCell::default();
}

/// Calls `act` on the executing thread's processor.
///
/// # Panics
///
/// Where `act` itself does something as that processor.
pub fn own<T>(act: impl FnOnce(&mut HostCpu) -> T) -> T {
    OWN.with_borrow_mut(act)
}

fn did(act: Act) {
    own(|cpu| cpu.acts.push(act));
}
