//! Calls and starts the other CPUs, once, at boot (SDM, "Multiple-Processor (MP) Initialization").
//!
//! INIT and start-up IPI go to every CPU but this one, whatever the firmware lists. Each wakes in real mode in a
//! borrowed page below 1 MiB, says its local APIC ID and waits for its turn; then it climbs to long mode on the
//! hypervisor's page tables and is set up to run a guest, for good: it waits for the guest's own start-up IPI as one.
//!
//! UNSAFETY: code is placed in guest memory for the processor to execute.
#![expect(unsafe_code, reason = "application processor entry")]

use super::percpu::PerCpu;
use super::roster::{Full, Roster};
use crate::memory::host::{self, GuestFrames};
use crate::{exception, machine};
use arrayvec::ArrayVec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use hw::apic::{Command, Destination};
use hw::bare::address_space;
use hw::bare::processor::{time_stamp, wait_until};
use platform::handoff::CPU_CAPACITY;
use spin::Once;
use x86::address::HostPhysAddr;
use x86::paging::PAGE_BYTES;

/// The borrowed page: free memory on every PC at the time a boot loader runs.
const TRAMPOLINE_PAGE: u8 = 8;
const TRAMPOLINE: u64 = (TRAMPOLINE_PAGE as u64) << 12;
const STARTUP: Command = Command::Startup { vector: TRAMPOLINE_PAGE };
/// Offsets in the trampoline.
const GDTR: u64 = 24;
const PAGE_TABLES: u64 = 32;
const ENTRY_POINT: u64 = 40;
/// 1 while some CPU has the next three to itself.
const LOCK: u64 = 48;
/// 1 when `ANSWER` holds a local APIC ID that has not been read.
const IS_ANSWERED: u64 = 52;
const ANSWER: u64 = 56;
/// The local APIC ID of the CPU whose turn it is.
const TURN: u64 = 60;
/// An ID that no CPU has.
const NOBODY: u32 = u32::MAX;
/// A CPU that answered and has not come up after this many ticks never will.
const PATIENCE: u64 = 3_000_000_000;
/// Ticks between INIT and start-up IPI. The 10 ms that the SDM gives are for processors far older than any
/// that has what the hypervisor needs.
const INIT_DELAY: u64 = 1_000_000;
/// Ticks without an answer after the first start-up IPI, and after the second. A CPU that waits for one answers
/// within microseconds.
const SILENCE: [u64; 2] = [500_000, 1_500_000];
/// The same where listed CPUs have not answered: there is time for them.
const LONG_SILENCE: [u64; 2] = [2_000_000, 20_000_000];

/// Every CPU is up: no start-up IPI of ours is under way any more.
static IS_OVER: AtomicBool = AtomicBool::new(false);
static RUN: Once<fn(&'static PerCpu) -> !> = Once::new();
static STARTING: AtomicPtr<PerCpu> = AtomicPtr::new(core::ptr::null_mut());

/// A CPU that answered did not come up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuMissing {
    /// Its local APIC ID.
    pub(crate) apic_id: u32,
}

/// The borrowed page with the other CPUs in it; gives the page back on drop.
#[derive(Debug)]
pub(crate) struct Trampoline {
    _mapping: host::LowMemory,
    saved: &'static [u8],
}

impl Trampoline {
    /// Borrows the page.
    pub(crate) fn new() -> Self {
        let saved = machine::take_memory(PAGE_BYTES);
        read(0, saved);
        write(0, trampoline());
        let entry_point = xmhf_application_processor as *const () as u64;
        write(PAGE_TABLES, &host::page_tables().get().to_le_bytes());
        write(ENTRY_POINT, &entry_point.to_le_bytes());
        // Nobody's turn until all have answered and what they run is known.
        write(TURN, &NOBODY.to_le_bytes());
        Self { _mapping: host::LowMemory::map(HostPhysAddr::new(TRAMPOLINE)), saved }
    }

    /// Calls every other CPU into the page, those that do not answer of `listed` a second time and by name; each
    /// that answers then waits there for its turn.
    pub(crate) fn call(&self, roster: &mut Roster, listed: &[u32]) -> Result<(), Full> {
        let others = || [Destination::Others].into_iter();
        self.call_each(roster, others, SILENCE)?;
        let missing: ArrayVec<u32, CPU_CAPACITY> = roster.missing(listed).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.call_each(roster, || missing.iter().copied().map(Destination::Cpu), LONG_SILENCE)
    }

    /// Starts `run` on every CPU of `cpus`, which answered, and waits until each is ready to run its guest.
    pub(crate) fn start(
        self,
        cpus: &[&'static PerCpu],
        run: fn(&'static PerCpu) -> !,
    ) -> Result<(), CpuMissing> {
        RUN.call_once(|| run);
        cpus.iter().try_for_each(|cpu| {
            // Before its turn, at which the CPU takes this up.
            STARTING.store(core::ptr::from_ref(*cpu).cast_mut(), Ordering::SeqCst);
            write(TURN, &cpu.apic_id().to_le_bytes());
            let is_up = wait_until(PATIENCE, || cpu.is_ready.load(Ordering::SeqCst));
            if is_up { Ok(()) } else { Err(CpuMissing { apic_id: cpu.apic_id() }) }
        })
    }

    fn call_each<D: Iterator<Item = Destination>>(
        &self,
        roster: &mut Roster,
        destinations: impl Fn() -> D,
        silence: [u64; 2],
    ) -> Result<(), Full> {
        let send = |command| {
            for to in destinations() {
                // Whom this APIC cannot address does not answer.
                let _ = host::local_apic().send(to, command);
            }
        };
        send(Command::Init);
        wait_until(INIT_DELAY, || false);
        // Two, as the manual has it: a CPU that missed the first takes the second, any other drops it (SDM, "Typical
        // BSP Initialization Sequence").
        for ticks in silence {
            send(STARTUP);
            hear(roster, ticks)?;
        }
        Ok(())
    }
}

impl Drop for Trampoline {
    fn drop(&mut self) {
        write(0, self.saved);
    }
}

/// Takes note of answers until there has been none for `ticks`.
fn hear(roster: &mut Roster, ticks: u64) -> Result<(), Full> {
    let mut last = time_stamp();
    while time_stamp().wrapping_sub(last) < ticks {
        if word(IS_ANSWERED) == 0 {
            core::hint::spin_loop();
            continue;
        }
        roster.answer(word(ANSWER))?;
        // The answer is done with before the lock is given back: the next CPU writes over it.
        write(IS_ANSWERED, &[0; 4]);
        write(LOCK, &[0; 4]);
        last = time_stamp();
    }
    Ok(())
}

fn word(offset: u64) -> u32 {
    let mut bytes = [0; 4];
    read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn read(offset: u64, bytes: &mut [u8]) {
    if GuestFrames::read(HostPhysAddr::new(TRAMPOLINE + offset), bytes).is_err() {
        unreachable!("{NO_MEMORY}");
    }
}

fn write(offset: u64, bytes: &[u8]) {
    if GuestFrames::write(HostPhysAddr::new(TRAMPOLINE + offset), bytes).is_err() {
        unreachable!("{NO_MEMORY}");
    }
}

const NO_MEMORY: &str = "the window shows every page outside the hypervisor's region";

/// Lets every CPU wait for the guest's start-up IPI. Before that they stand in the hypervisor, where the second
/// of our own start-up IPIs is dropped; a waiting guest would take it for the guest's.
pub(crate) fn finish() {
    IS_OVER.store(true, Ordering::Release);
}

/// Stands until [`finish`], and forgets the borrowed page, which is the guest's again.
pub(crate) fn await_finish() {
    while !IS_OVER.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    address_space::invalidate_all();
}

/// First Rust code of an application processor, on its own stack.
extern "C" fn application_processor(cpu: &'static PerCpu) -> ! {
    // SAFETY: this CPU took its data from `STARTING`, once.
    unsafe { cpu.install() };
    // After the CPU's data, as handlers ask for it and run on the stacks that its task-state segment names.
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
    ".long 0, 0, 0, 0",                      // offsets {lock}, {is_answered}, {answer}, {turn}
    "4: cli",
    "xor ax, ax",
    "mov ds, ax",
    // The local APIC ID: of 32 bits where the processor says it, else of 8.
    "xor eax, eax",
    "cpuid",
    "cmp eax, 0xb",
    "jb 5f",
    "mov eax, 0xb",
    "xor ecx, ecx",
    "cpuid",
    "mov esi, edx",
    "test ebx, ebx",
    "jnz 6f",
    "5: mov eax, 1",
    "cpuid",
    "shr ebx, 24",
    "mov esi, ebx",
    "6: mov ecx, 1",
    "7: pause",
    "xor eax, eax",
    "lock cmpxchg dword ptr [{base} + {lock}], ecx",
    "jnz 7b",
    // The ID before the mark that it is there.
    "mov dword ptr [{base} + {answer}], esi",
    "mov dword ptr [{base} + {is_answered}], ecx",
    "8: pause",
    "cmp dword ptr [{base} + {turn}], esi",
    "jne 8b",
    "lgdt [{base} + {gdtr}]",
    // PAE and the tables, then LME, then paging, by which long mode begins (SDM, "Initializing IA-32e Mode").
    // Protection comes on with paging: no 32-bit code runs in between.
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
    lock = const LOCK,
    is_answered = const IS_ANSWERED,
    answer = const ANSWER,
    turn = const TURN,
    starting = sym STARTING,
    registers = const super::percpu::REGISTERS_OFFSET,
    entry = sym application_processor,
);
