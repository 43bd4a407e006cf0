//! The address space in force, and the stack, on the real machine.
//!
//! UNSAFETY: loads CR3, and writes below the stack pointer.
#![expect(unsafe_code, reason = "address spaces")]

use super::split;
use crate::machine::{self, RegionMemory, VIRTUAL_BASE};
use crate::memory::host;
use crate::smp::percpu;
use core::arch::asm;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use hw::bare::{Processor, address_space};
use platform::handoff::SCRATCH_OFFSET;
use x86::address::HostPhysAddr;

/// Root of the tables that have private memory; 0 where there is none.
static OPEN_ROOT: AtomicU64 = AtomicU64::new(0);

/// Private memory is mapped on the executing CPU until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Open {
    /// Whether this value's drop closes it.
    closes: bool,
    /// It stays on its CPU.
    not_send: PhantomData<*const ()>,
}

/// Memory that the hypervisor keeps for good, zeroed, and mapped only while a CPU has it [`open`]. For
/// [`Hypapp::init`](crate::hypapp::Hypapp::init), once: later CPUs may have translations of the plain tables.
pub fn take(bytes: usize) -> &'static mut [u8] {
    assert!(OPEN_ROOT.load(Ordering::Relaxed) == 0, "private memory is taken once");
    let memory = machine::take_memory(bytes.next_multiple_of(4096));
    let start = memory.as_ptr() as u64;
    let range = start..start + memory.len() as u64;
    let root = machine::with_frames(|frames| split(&RegionMemory, host::page_tables(), range, frames));
    // Before the memory is given away: translations from before still lead to it.
    address_space::invalidate_all();
    OPEN_ROOT.store(root.get(), Ordering::Release);
    memory
}

/// Maps private memory on the executing CPU, behind barriers against what the guest taught the processor.
pub fn open() -> Open {
    let root = OPEN_ROOT.load(Ordering::Acquire);
    let closes = root != 0 && address_space::root().get() != root;
    if closes {
        let cpu = percpu::current();
        // Before the load: once private memory is mapped, what the guest taught the processor could reach it.
        cpu.crossing.begin(&Processor);
        load(HostPhysAddr::new(root));
        // What it leaves behind is dropped before the guest goes on.
        if cpu.crossing.wants_end() {
            cpu.demand_attention();
        }
    }
    Open { closes, not_send: PhantomData }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.closes {
            host::close_guest_window();
            // Translations are not global: the load drops the window's too.
            load(host::page_tables());
        }
    }
}

fn load(root: HostPhysAddr) {
    // SAFETY: both roots map the image, the stacks and the per-CPU data alike; they differ in private memory alone,
    // which nothing but a hypapp between `open` and its end has references to: an access elsewhere faults, and stops.
    unsafe { address_space::load(root) }
}

/// Zeroes what functions that have returned left on the executing CPU's stack.
#[inline(never)]
pub fn wipe_stack() {
    let here = 0u8;
    let main = percpu::current().main_stack();
    // Until its first entry the bootstrap processor runs on the stack that the secure loader left it.
    let bottom =
        if main.contains(&((&raw const here) as u64)) { main.start } else { VIRTUAL_BASE + SCRATCH_OFFSET };
    // SAFETY: from the lowest word of the stack in use to the stack pointer nothing is in use: there is no red zone,
    // and NMIs and faults have stacks of their own. The block itself uses none.
    unsafe {
        asm!(
            "mov rcx, rsp",
            "sub rcx, rdi",
            "shr rcx, 3",
            "rep stosq",
            inout("rdi") bottom => _, in("rax") 0u64, out("rcx") _,
            options(nostack),
        );
    }
}
