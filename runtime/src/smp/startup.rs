//! Starts the application processors, once, at boot (SDM, "Multiple-Processor (MP) Initialization").
//!
//! Each wakes in real mode in a borrowed page below 1 MiB, climbs to long mode on the hypervisor's page
//! tables and sets up its own VMX. From then on it never leaves VMX operation: it waits for the guest's
//! own start-up IPI as a guest.
//!
//! UNSAFETY: code is placed in guest memory for the processor to execute.
#![expect(unsafe_code, reason = "application processor entry")]

use super::percpu::PerCpu;
use crate::exception;
use crate::memory::host;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use hw::bare::apic::Command;
use hw::bare::processor::wait_until;
use spin::Once;
use x86::address::HostPhysAddr;

/// The borrowed page: free memory on every PC at the time a boot loader runs.
const TRAMPOLINE_PAGE: u8 = 8;
const TRAMPOLINE: u64 = (TRAMPOLINE_PAGE as u64) << 12;
const PAGE: usize = 4096;
/// Offsets in the trampoline.
const GDTR: u64 = 24;
const PAGE_TABLES: u64 = 32;
const ENTRY_POINT: u64 = 40;
/// A CPU that has not come up after this many ticks is not there.
const PATIENCE: u64 = 3_000_000_000;
/// Ticks between INIT and start-up IPI. The 10 ms that the SDM gives are for processors far older than any
/// that has what the hypervisor needs.
const INIT_DELAY: u64 = 1_000_000;
/// Ticks between the two start-up IPIs.
const STARTUP_DELAY: u64 = 1_000_000;

/// Every CPU is up: no start-up IPI of ours is under way any more.
static IS_OVER: AtomicBool = AtomicBool::new(false);
static RUN: Once<fn(&'static PerCpu) -> !> = Once::new();
static STARTING: AtomicPtr<PerCpu> = AtomicPtr::new(core::ptr::null_mut());

/// A CPU that the firmware lists did not come up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuMissing {
    /// Its local APIC ID.
    pub(crate) apic_id: u32,
}

/// Has every CPU of `cpus` execute `run`, and waits until each is ready to run its guest.
pub(crate) fn start(cpus: &[&'static PerCpu], run: fn(&'static PerCpu) -> !) -> Result<(), CpuMissing> {
    RUN.call_once(|| run);
    if cpus.is_empty() {
        return Ok(());
    }
    let low = host::LowMemory::map(HostPhysAddr::new(TRAMPOLINE));
    let mut saved = [0; PAGE];
    low.read(HostPhysAddr::new(TRAMPOLINE), &mut saved);
    low.write(HostPhysAddr::new(TRAMPOLINE), trampoline());
    let entry_point = xmhf_application_processor as *const () as u64;
    low.write(HostPhysAddr::new(TRAMPOLINE + PAGE_TABLES), &host::page_tables().get().to_le_bytes());
    low.write(HostPhysAddr::new(TRAMPOLINE + ENTRY_POINT), &entry_point.to_le_bytes());
    let result = cpus.iter().try_for_each(|cpu| start_one(cpu));
    low.write(HostPhysAddr::new(TRAMPOLINE), &saved);
    result
}

/// Lets every CPU wait for the guest's start-up IPI. Before that they stand in the hypervisor, where the second
/// of our own start-up IPIs is dropped; a waiting guest would take it for the guest's.
pub(crate) fn finish() {
    IS_OVER.store(true, Ordering::Release);
}

/// Stands until [`finish`].
pub(crate) fn await_finish() {
    while !IS_OVER.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

fn start_one(cpu: &'static PerCpu) -> Result<(), CpuMissing> {
    let missing = CpuMissing { apic_id: cpu.apic_id };
    STARTING.store(core::ptr::from_ref(cpu).cast_mut(), Ordering::SeqCst);
    let apic = host::local_apic();
    let startup = Command::Startup { vector: TRAMPOLINE_PAGE };
    apic.send(cpu.apic_id, Command::Init).map_err(|_| missing)?;
    wait_until(INIT_DELAY, || false);
    apic.send(cpu.apic_id, startup).map_err(|_| missing)?;
    if !wait_until(STARTUP_DELAY, || is_ready(cpu)) {
        apic.send(cpu.apic_id, startup).map_err(|_| missing)?;
    }
    if wait_until(PATIENCE, || is_ready(cpu)) { Ok(()) } else { Err(missing) }
}

fn is_ready(cpu: &PerCpu) -> bool {
    cpu.is_ready.load(Ordering::SeqCst)
}

/// First Rust code of an application processor, on its own stack.
extern "C" fn application_processor(cpu: &'static PerCpu) -> ! {
    // SAFETY: this CPU took its data from `STARTING`, once.
    unsafe { cpu.install() };
    exception::load();
    match RUN.get() {
        Some(run) => run(cpu),
        None => unreachable!("`start` says what CPUs run before it starts them"),
    }
}

fn trampoline() -> &'static [u8] {
    let start = &raw const xmhf_trampoline_start;
    let end = &raw const xmhf_trampoline_end;
    // SAFETY: both labels bound the trampoline in the image.
    let length = unsafe { end.offset_from_unsigned(start) };
    // SAFETY: as above; the code is constant.
    unsafe { core::slice::from_raw_parts(start, length) }
}

unsafe extern "C" {
    static xmhf_trampoline_start: u8;
    static xmhf_trampoline_end: u8;
    fn xmhf_application_processor() -> !;
}

global_asm!(
    // Copied to TRAMPOLINE: every address in it is computed from there.
    ".pushsection .rodata.trampoline, \"a\"",
    ".balign 16",
    ".global xmhf_trampoline_start",
    ".global xmhf_trampoline_end",
    "xmhf_trampoline_start:",
    ".code16",
    "jmp 4f",
    ".balign 8",
    "3: .quad 0",
    ".quad 0x00af9b000000ffff",
    ".word 15",                              // offset {gdtr}
    ".long {base} + (3b - xmhf_trampoline_start)",
    ".balign 8",
    ".quad 0",                               // offset {page_tables}
    ".quad 0",                               // offset {entry_point}
    "4: cli",
    "xor ax, ax",
    "mov ds, ax",
    "lgdt [{base} + {gdtr}]",
    "mov eax, 0x20",                         // CR4.PAE
    "mov cr4, eax",
    "mov eax, [{base} + {page_tables}]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900",                         // EFER.LME, EFER.NXE
    "wrmsr",
    "mov eax, 0x80010021",                   // CR0: PG, WP, NE, PE
    "mov cr0, eax",
    ".byte 0x66, 0xea",                      // far jump to the 64-bit segment
    ".long {base} + (2f - xmhf_trampoline_start)",
    ".word 0x08",
    ".code64",
    "2: mov rax, [{base} + {entry_point}]",
    "jmp rax",
    "xmhf_trampoline_end:",
    ".popsection",
    ".pushsection .text.application_processor, \"ax\"",
    ".global xmhf_application_processor",
    "xmhf_application_processor:",
    "xor eax, eax",
    "mov ss, ax",
    "mov rdi, [rip + {starting}]",
    "mov rsp, [rdi + {registers}]",
    "and rsp, -16",
    "xor ebp, ebp",
    "call {entry}",
    "ud2",
    ".popsection",
    base = const TRAMPOLINE,
    gdtr = const GDTR,
    page_tables = const PAGE_TABLES,
    entry_point = const ENTRY_POINT,
    starting = sym STARTING,
    registers = const super::percpu::REGISTERS_OFFSET,
    entry = sym application_processor,
);
