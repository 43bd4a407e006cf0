//! A guest on a machine of memory and threads: its exits, what a hypapp asks for, and what the boot leaves.

mod boot;
mod exits;
mod service;

use crate::hypapp::HypercallAnswer;
use crate::memory::guest::Privilege;
use crate::memory::range::GuestRange;
use crate::services::{self, Scope, pages};
use crate::vmx::fixture::{TestCpu, read, script};
use hw::host::{Act, own};
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::paging::Rights;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs;

/// Returns where the guest goes on, and the event that it takes there.
fn entry(cpu: &TestCpu) -> (u64, u32) {
    (cpu.get(vmcs::GUEST_RIP), cpu.get(vmcs::ENTRY_INTERRUPTION_INFORMATION))
}
