//! Processors: per-CPU data, start by INIT-SIPI-SIPI, jobs.

#![expect(unsafe_code, reason = "per-CPU blocks found from the stack pointer, descriptor and task registers")]
// UNSAFETY: each CPU touches the cells of its own block only; what others touch is atomic.

use core::arch::asm;
use core::cell::Cell;
use core::mem::transmute;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::trap::{self, Frame};
use crate::{apic, cpu};

/// Most processors that a guest can use.
pub const CAPACITY: usize = 8;
/// A good while: ticks after which another CPU counts as lost.
pub const PATIENCE: u64 = 200_000_000;

const BLOCK_SIZE: usize = 0x8000;
const USER_STACK: usize = 0x1000;
const NESTED_STACK: usize = 0x4000;

/// What a processor has of its own.
#[repr(C)]
#[derive(Debug)]
pub struct Cpu {
    tss: Cell<[u32; 26]>,
    /// Stack pointer at the innermost snippet's start; 0 outside.
    pub(crate) resume_rsp: Cell<u64>,
    /// How that snippet ended.
    pub(crate) outcome: Cell<Frame>,
    /// Times that this CPU arrived here.
    arrivals: AtomicUsize,
    apic_id: AtomicU32,
    job: AtomicUsize,
    jobs_done: AtomicUsize,
}

#[repr(C, align(0x8000))]
struct Block {
    cpu: Cpu,
    stacks: Cell<[u8; BLOCK_SIZE - size_of::<Cpu>()]>,
}

const _: () = assert!(size_of::<Block>() == BLOCK_SIZE);

struct Blocks([Block; CAPACITY]);

// SAFETY: see the module's note.
unsafe impl Sync for Blocks {}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.cpu_blocks")]
static cpu_blocks: Blocks = Blocks(
    [const {
        Block {
            cpu: Cpu {
                tss: Cell::new([0; 26]),
                resume_rsp: Cell::new(0),
                outcome: Cell::new(Frame::ZERO),
                arrivals: AtomicUsize::new(0),
                apic_id: AtomicU32::new(0),
                job: AtomicUsize::new(0),
                jobs_done: AtomicUsize::new(0),
            },
            stacks: Cell::new([0; BLOCK_SIZE - size_of::<Cpu>()]),
        }
    }; CAPACITY],
);

unsafe extern "C" {
    static gdt: [Cell<u64>; 32];
    static ap_arrivals: AtomicU32;
    static ap_entry_state: EntryState;
    static ap_trampoline: u8;
}

/// Page number for a start-up IPI that leads to a CPU waiting for jobs.
pub fn startup_vector() -> u8 {
    (&raw const ap_trampoline as usize >> 12) as u8
}

/// Number of CPUs that have arrived since the last [`forget_arrivals`], this one included.
pub fn arrived() -> u32 {
    // SAFETY: defined in boot.S as an aligned word.
    unsafe { ap_arrivals.load(Ordering::SeqCst) }
}

/// Lets the next CPU to arrive be number 1 again. Those that had arrived are to have been sent INIT.
pub fn forget_arrivals() {
    // SAFETY: as above.
    unsafe { ap_arrivals.store(1, Ordering::SeqCst) };
    for block in &cpu_blocks.0[1..] {
        block.cpu.job.store(0, Ordering::SeqCst);
    }
}

/// Sends INIT and two start-up IPIs to every other CPU and waits until `others` have arrived.
pub fn start_others(others: u32) -> bool {
    apic::init_others();
    cpu::wait(1_000_000);
    forget_arrivals();
    apic::startup_others(startup_vector());
    cpu::wait(20_000);
    apic::startup_others(startup_vector());
    cpu::wait_until(PATIENCE, || arrived() > others && (1..=others as usize).all(is_ready))
}

/// As [`start_others`] for CPUs of the local APIC IDs from 1 on, one by one: under VMX, Bochs drops what a
/// broadcast would have brought the CPUs behind the first.
pub fn start_each(others: u32) -> bool {
    (1..=others).for_each(apic::init);
    cpu::wait(1_000_000);
    forget_arrivals();
    (1..=others).all(|id| {
        apic::startup(id, startup_vector());
        cpu::wait_until(PATIENCE, || arrived() > id && is_ready(id as usize))
    })
}

/// Whether CPU `number` waits for a job.
pub fn is_ready(number: usize) -> bool {
    cpu_blocks.0[number].cpu.job.load(Ordering::SeqCst) == READY
}

/// APIC ID of CPU `number` that has arrived.
pub fn apic_id(number: usize) -> u32 {
    cpu_blocks.0[number].cpu.apic_id.load(Ordering::SeqCst)
}

/// How often CPU `number` arrived at all.
pub fn arrivals(number: usize) -> usize {
    cpu_blocks.0[number].cpu.arrivals.load(Ordering::SeqCst)
}

/// Gives CPU `number` a job without waiting for its end.
pub fn begin_on(number: usize, job: fn()) {
    cpu_blocks.0[number].cpu.job.store(job as usize, Ordering::SeqCst);
}

/// Has CPU `number` do `job`; `false` where it did not end in time.
pub fn run_on(number: usize, job: fn()) -> bool {
    let before = cpu_blocks.0[number].cpu.jobs_done.load(Ordering::SeqCst);
    begin_on(number, job);
    cpu::wait_until(PATIENCE, || {
        cpu_blocks.0[number].cpu.jobs_done.load(Ordering::SeqCst) != before && is_ready(number)
    })
}

/// State of the CPU that arrived last, at its first instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "register names")]
pub struct EntryState {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub ebp: u32,
    pub esp: u32,
    pub cr0: u32,
    pub cr4: u32,
    pub cr3: u32,
    pub cs: u16,
    pub ss: u16,
    pub efer: u32,
    reserved: u16,
    pub idt_limit: u16,
    pub idt_base: u32,
}

/// State of the CPU that arrived last, at its first instruction.
pub fn entry_state() -> EntryState {
    // SAFETY: boot.S lays it out like this; the CPU that wrote it has gone on.
    unsafe { (&raw const ap_entry_state).read_volatile() }
}

/// Whether `rsp` lies in the stack that a guest of this guest runs on.
pub fn is_nested_stack(rsp: u64) -> bool {
    (USER_STACK as u64 + 1..=NESTED_STACK as u64).contains(&(rsp & (BLOCK_SIZE as u64 - 1)))
}

/// Number of the CPU that executes this.
pub fn number() -> usize {
    (core::ptr::from_ref(Cpu::current()) as usize - &raw const cpu_blocks as usize) / BLOCK_SIZE
}

/// Registers of the local APIC that [`apic_state`] tells.
pub const APIC_STATE: [u32; 12] = {
    use apic::register::{
        DFR, ISR, LDR, LVT_ERROR, LVT_LINT0, LVT_LINT1, LVT_TIMER, SPURIOUS, TIMER_CURRENT, TIMER_DIVIDE,
        TIMER_INITIAL, TPR,
    };
    [
        SPURIOUS,
        TPR,
        LDR,
        DFR,
        LVT_TIMER,
        LVT_LINT0,
        LVT_LINT1,
        LVT_ERROR,
        TIMER_INITIAL,
        TIMER_CURRENT,
        TIMER_DIVIDE,
        ISR + 0x20,
    ]
};

static ARRIVING_APIC: [AtomicU32; APIC_STATE.len()] = [const { AtomicU32::new(0) }; APIC_STATE.len()];

/// The registers [`APIC_STATE`] of the CPU that arrived last, before it set up its local APIC; it was in
/// xAPIC mode.
pub fn apic_state() -> [u32; APIC_STATE.len()] {
    core::array::from_fn(|index| ARRIVING_APIC[index].load(Ordering::SeqCst))
}

/// A quadword of the global descriptor table, by selector; 0x50, 0x58 and 0x60 are free for tests.
pub fn descriptor(selector: u16) -> &'static Cell<u64> {
    // SAFETY: the table of boot.S has 32 quadwords.
    unsafe { &gdt[usize::from(selector >> 3)] }
}

const READY: usize = 1;

impl Cpu {
    /// The block of the CPU that executes this: every stack lies in its block.
    pub(crate) fn current() -> &'static Self {
        let rsp: usize;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack)) };
        let block = (rsp & !(BLOCK_SIZE - 1)) as *const Block;
        // SAFETY: all stacks of 64-bit mode lie in `cpu_blocks`.
        unsafe { &(*block).cpu }
    }

    /// Top of the small stack that ring 3 gets.
    pub(crate) fn user_stack_top(&self) -> u64 {
        core::ptr::from_ref(self) as u64 + USER_STACK as u64
    }

    /// Top of the stack that a guest of this guest gets (`crate::vmx`).
    pub(crate) fn nested_stack_top(&self) -> u64 {
        core::ptr::from_ref(self) as u64 + NESTED_STACK as u64
    }

    /// Base of this CPU's task-state segment.
    pub(crate) fn tss_base(&self) -> u64 {
        self.tss.as_ptr() as u64
    }

    /// Where the task-state segment keeps RSP0 (SDM, "64-Bit Task State Segment").
    pub(crate) fn rsp0(&self) -> *mut u64 {
        self.tss.as_ptr().cast::<u32>().wrapping_add(1).cast()
    }
}

/// Loads the task register of CPU `number`, which is this one.
pub(crate) fn initialise_cpu(number: usize) {
    let cpu = Cpu::current();
    let base = cpu.tss.as_ptr() as u64;
    let mut tss = [0; 26];
    tss[25] = 104 << 16;
    cpu.tss.set(tss);
    let selector = (0x70 + 16 * number) as u16;
    descriptor(selector).set(0x0000_8900_0000_0067 | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56);
    descriptor(selector + 8).set(base >> 32);
    // SAFETY: that descriptor was just made.
    unsafe { asm!("ltr {:x}", in(reg) selector, options(nostack)) };
    trap::load_idt(0xfff);
}

#[unsafe(no_mangle)]
extern "C" fn guest_ap_start(number: usize) -> ! {
    initialise_cpu(number);
    let cpu = Cpu::current();
    cpu.resume_rsp.set(0);
    if !apic::is_x2apic() {
        for (place, register) in ARRIVING_APIC.iter().zip(APIC_STATE) {
            place.store(apic::read(register), Ordering::SeqCst);
        }
    }
    apic::initialise();
    cpu.apic_id.store(apic::id(), Ordering::SeqCst);
    cpu.arrivals.fetch_add(1, Ordering::SeqCst);
    loop {
        cpu.job.store(READY, Ordering::SeqCst);
        let job = loop {
            match cpu.job.load(Ordering::SeqCst) {
                READY => cpu::pause(),
                job => break job,
            }
        };
        if job != 0 {
            // SAFETY: only `begin_on` stores anything else than READY and 0, namely a `fn()`.
            let job = unsafe { transmute::<usize, fn()>(job) };
            job();
        }
        cpu.jobs_done.fetch_add(1, Ordering::SeqCst);
    }
}
