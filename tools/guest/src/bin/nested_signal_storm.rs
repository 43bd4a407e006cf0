//! NMI/INIT/SIPI: a hypervisor with random wishes, struck by NMIs, INITs and start-up IPIs: what is forbidden stays so on
//! all CPUs.
//! cpus: 2
//! hypapp: verify
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest::cpu::{self, pause, rdtsc, wait, wait_until};
use guest::memory::read64;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, Random, allocate, instruction, state, write};
use guest::{Mode, Regs, apic, println, run, smp, snippet, trap};
use x86::msr::Msr;
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};

guest!(main);

const SET: u64 = 0xdead_beef;
const NOT_PRESENT: u64 = 1;
const ALL: u64 = 2 | 8 | 16;
const TICKS: u64 = 60_000_000;

static PAGE: AtomicU64 = AtomicU64::new(0);
/// Odd while the page is forbidden.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static ENTRIES: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);
static REFUSALS: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);
static REASONS: [AtomicU32; 80] = [const { AtomicU32::new(0) }; 80];

fn main() {
    check!(smp::start_others(1), "two CPUs");
    trap::handle(
        2,
        Some(|_| {
            NMIS.fetch_add(1, Ordering::SeqCst);
            true
        }),
    );
    PAGE.store(allocate(), Ordering::SeqCst);
    smp::begin_on(1, hypervise);
    let mut random = Random::new(0x1234_5678_9abc);
    let start = rdtsc();
    let target = smp::apic_id(1);
    while rdtsc() - start < TICKS {
        match random.below(6) {
            0 => apic::nmi(target),
            1 => apic::init(target),
            2 | 3 => apic::startup(target, 0x9a),
            _ => (),
        }
        set(NOT_PRESENT);
        GENERATION.fetch_add(1, Ordering::SeqCst);
        wait(20_000 + random.below(100_000));
        GENERATION.fetch_add(1, Ordering::SeqCst);
        set(ALL);
        wait(random.below(20_000));
    }
    IS_OVER.store(true, Ordering::SeqCst);
    for _ in 0..200 {
        apic::nmi(target);
        apic::startup(target, 0x9a);
        if wait_until(1_000_000, || smp::is_ready(1)) {
            break;
        }
    }
    check!(smp::is_ready(1), "the other CPU ends");
    check_eq!(VIOLATIONS.load(Ordering::SeqCst), 0, "reads of what is forbidden");
    println!(
        "entries={} failures={} refusals={} nmis={}",
        ENTRIES.load(Ordering::SeqCst),
        FAILURES.load(Ordering::SeqCst),
        REFUSALS.load(Ordering::SeqCst),
        NMIS.load(Ordering::SeqCst)
    );
    for (reason, count) in REASONS.iter().enumerate() {
        let count = count.load(Ordering::SeqCst);
        if count != 0 {
            println!("reason {reason}: {count}");
        }
    }
}

fn probe() {
    let page = PAGE.load(Ordering::SeqCst);
    let before = GENERATION.load(Ordering::SeqCst);
    let is_read = read64(page).is_ok();
    let after = GENERATION.load(Ordering::SeqCst);
    if is_read && before == after && before & 1 == 1 {
        VIOLATIONS.fetch_add(1, Ordering::SeqCst);
    }
}

extern "C" fn work() {
    for _ in 0..4 {
        probe();
        let _ = cpu::cpuid(1, 0);
        pause();
    }
}

fn hypervise() {
    enter_operation();
    let mut random = Random::new(0x9876_5432_1dcb);
    let region = guest::vmx::region();
    let ept = Ept::identity();
    let (bitmap, io, apic_page, log, area, exit_area) =
        (allocate(), guest::vmx::allocate_run(2), allocate(), allocate(), allocate(), allocate());
    let mut nested = Guest::at(region, work);
    nested.clear();
    while !IS_OVER.load(Ordering::SeqCst) {
        nested.load();
        state::write_controls();
        state::write_host();
        nested.call(work);
        nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
        nested.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
        nested.add_primary(PrimaryControls::USE_MSR_BITMAPS);
        wishes(&mut nested, &mut random, &ept, bitmap, io, apic_page, log, area, exit_area);
        for _ in 0..1 + random.below(4) {
            match nested.enter() {
                Err(_) => {
                    REFUSALS.fetch_add(1, Ordering::SeqCst);
                }
                Ok(reason) => {
                    ENTRIES.fetch_add(1, Ordering::SeqCst);
                    if reason.is_entry_failure() {
                        FAILURES.fetch_add(1, Ordering::SeqCst);
                    }
                    REASONS[usize::from(reason.basic()).min(79)].fetch_add(1, Ordering::SeqCst);
                    match reason.basic() {
                        10 | 12 | 40 => nested.advance(),
                        18 => nested.call(work),
                        _ => (),
                    }
                }
            }
            probe();
            restate(&mut nested, &mut random);
            if random.below(3) == 0 {
                cpu::iret();
            }
            if random.below(5) == 0 {
                let _ = instruction::invept(2, [0, 0]);
            }
        }
        nested.clear();
        probe();
    }
    cpu::iret();
}

fn restate(nested: &mut Guest, random: &mut Random) {
    if random.below(3) == 0 {
        nested.write(vmcs::GUEST_ACTIVITY, [0, 0, 1, 2, 3][random.index(5)]);
    }
    if random.below(3) == 0 {
        nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, [0, 0x8000_0202, 0x8000_0700][random.index(3)]);
    }
    if random.below(3) == 0 {
        nested.write(vmcs::GUEST_INTERRUPTIBILITY, [0, 0, 8, 1, 2, 8, 16, 1 << 20][random.index(8)]);
    }
    if random.below(6) == 0 {
        nested.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    }
}

#[expect(clippy::too_many_arguments, reason = "a test")]
fn wishes(
    nested: &mut Guest,
    random: &mut Random,
    ept: &Ept,
    bitmap: u64,
    io: u64,
    apic_page: u64,
    log: u64,
    area: u64,
    exit_area: u64,
) {
    let mut flip = || random.below(2) == 0;
    if flip() {
        nested.add_pin(PinBasedControls::NMI_EXITING);
        if flip() {
            nested.add_pin(PinBasedControls::VIRTUAL_NMIS);
            if flip() && flip() {
                nested.add_primary(PrimaryControls::NMI_WINDOW_EXITING);
            }
        }
    }
    if flip() {
        nested.add_pin(PinBasedControls::PREEMPTION_TIMER);
        nested.write(vmcs::PREEMPTION_TIMER, 200);
        if flip() {
            nested.add_exit(ExitControls::SAVE_PREEMPTION_TIMER);
        }
    }
    if flip() && flip() {
        nested.add_primary(PrimaryControls::MONITOR_TRAP_FLAG);
    }
    nested.write(vmcs::MSR_BITMAPS, bitmap);
    if flip() {
        nested.write(vmcs::IO_BITMAP_A, io);
        nested.write(vmcs::IO_BITMAP_B, io + 0x1000);
        nested.add_primary(PrimaryControls::USE_IO_BITMAPS);
    }
    if flip() {
        nested.use_ept(ept);
        if flip() {
            nested.add_secondary(SecondaryControls::UNRESTRICTED_GUEST);
        }
        if flip() {
            nested.write(vmcs::EPT_POINTER, ept.pointer() | 1 << 6);
            if flip() && nested.add_secondary(SecondaryControls::ENABLE_PML) {
                nested.write(vmcs::PML_ADDRESS, log);
                nested.write(vmcs::PML_INDEX, 511);
            }
        }
    }
    if flip() {
        nested.add_secondary(SecondaryControls::ENABLE_VPID);
        nested.write(vmcs::VPID, 7);
    }
    if flip() {
        nested.add_primary(PrimaryControls::USE_TPR_SHADOW);
        nested
            .write(vmcs::VIRTUAL_APIC_ADDRESS, if flip() { apic_page } else { PAGE.load(Ordering::SeqCst) });
        nested.write(vmcs::TPR_THRESHOLD, 0);
        if flip() && nested.add_secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES) {
            nested.write(vmcs::APIC_ACCESS_ADDRESS, 0xfee0_0000);
        }
    }
    if flip() {
        nested.write(vmcs::EXCEPTION_BITMAP, 1 << 13);
    }
    // Areas: registers that take these values.
    let list = [
        (Msr::IA32_PAT, 0x0007_0406_0007_0406),
        (Msr(0xc000_0102), 0x1000),
        (Msr(0x174), 0),
        (Msr(0x2ff), 0xc06),
        (Msr(0x175), 0x5000),
    ];
    for (page, is_exit) in [(area, false), (exit_area, true)] {
        if random.below(3) != 0 {
            continue;
        }
        let count = random.below(4);
        for index in 0..count {
            let (msr, value) = list[random.index(list.len())];
            write(
                page + 16 * index,
                if !is_exit && random.below(8) == 0 { 0x1234_5678 } else { u64::from(msr.0) },
            );
            write(page + 16 * index + 8, value);
        }
        if is_exit {
            nested.write(vmcs::EXIT_MSR_LOAD_ADDRESS, page);
            nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 0);
        } else {
            nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, page);
            nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, u32::try_from(count).unwrap_or(0));
        }
    }
    restate(nested, random);
}

fn set(types: u64) {
    let mut regs = Regs { rax: SET, rcx: PAGE.load(Ordering::SeqCst) >> 12, rdx: types, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the hypercall exists");
    check_eq!(regs.rax, 0, "protections {types}");
}
