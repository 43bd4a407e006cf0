//! Features L1 may switch on: entries and exits load the supervisor's state of control-flow enforcement.
//! model: sapphire_rapids
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{cpuid, rdmsr_existing, read_cr0, read_cr4, write_cr0, wrmsr_existing};
use guest::memory::{FREE, read64, write64};
use guest::space::{BYTES, Space, window};
use guest::vmx::prelude::*;
use guest::vmx::verdict::{Entry, GUEST_STATE, HOST_STATE, end, try_values};
use guest::vmx::{allocate, capability, nmi, read, write};
use guest::{needs, snippet};
use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls, PinBasedControls};

guest!(main);

const LOADS: u32 = EntryControls::LOAD_CET_STATE.bits();
const EXIT_LOADS: u32 = ExitControls::LOAD_CET_STATE.bits();
const REGISTERS: [Msr; 2] = [Msr::IA32_S_CET, Msr::IA32_INTERRUPT_SSP_TABLE_ADDR];
/// No legacy treatment, and tracking without it: values without effect while CR4.CET is 0.
const OF_L1: [u64; 2] = [0x10, 0x5000];
const OF_L2: [u64; 2] = [0x14, 0x6000];
const OF_HOST: [u64; 2] = [0x30, 0x7000];
const SHADOW_STACK: u64 = 1;
/// Accessed, dirty and not writable: a page of a supervisor's shadow stack.
const SHADOW_PAGE: u64 = 1 << 5 | 1 << 6;
const TABLES: u64 = FREE + 0x40_0000;
const PAGE: u64 = TABLES + BYTES;
const TOP: u64 = window(0) + 0x800;

fn main() {
    let features = cpuid(7, 0);
    needs!(features.ecx & 1 << 7 != 0, "shadow stacks");
    needs!(features.edx & 1 << 20 != 0, "tracking of branches");
    enter_operation();
    check_eq!(capability(Msr::IA32_VMX_TRUE_ENTRY_CTLS).may_be_one() & LOADS, LOADS, "offered for entries");
    check_eq!(capability(Msr::IA32_VMX_TRUE_EXIT_CTLS).may_be_one() & EXIT_LOADS, EXIT_LOADS, "for exits");
    let mut nested = Guest::new(end);
    what_is_loaded(&mut nested);
    areas_come_last(&mut nested);
    written_in_l2(&mut nested);
    not_loaded_by_failure(&mut nested);
    nmi::initialise();
    nmi::blocked(struck_early);
    nested.load();
    shadow_stack(&mut nested);
    refused(&mut nested);
    leave_operation();
}

fn registers() -> [u64; 2] {
    REGISTERS.map(rdmsr_existing)
}

fn set_registers(values: [u64; 2]) {
    REGISTERS.into_iter().zip(values).for_each(|(register, value)| wrmsr_existing(register, value));
}

fn set_controls(nested: &mut Guest, entry: u32, exit: u32) {
    nested.remove(vmcs::ENTRY_CONTROLS, LOADS);
    nested.remove(vmcs::EXIT_CONTROLS, EXIT_LOADS);
    nested.write(vmcs::ENTRY_CONTROLS, nested.read(vmcs::ENTRY_CONTROLS) | entry);
    nested.write(vmcs::EXIT_CONTROLS, nested.read(vmcs::EXIT_CONTROLS) | exit);
    nested.write(vmcs::HOST_S_CET, OF_HOST[0]);
    nested.write(vmcs::HOST_INTERRUPT_SSP_TABLE, OF_HOST[1]);
}

fn set_guest(nested: &mut Guest, [s_cet, table]: [u64; 2], ssp: u64) {
    nested.write(vmcs::GUEST_S_CET, s_cet);
    nested.write(vmcs::GUEST_INTERRUPT_SSP_TABLE, table);
    nested.write(vmcs::GUEST_SSP, ssp);
}

fn saved(nested: &Guest) -> [u64; 2] {
    [nested.read(vmcs::GUEST_S_CET), nested.read(vmcs::GUEST_INTERRUPT_SSP_TABLE)]
}

/// Each control by itself; what no control loads goes through. Exits save in any case.
fn what_is_loaded(nested: &mut Guest) {
    for (entry, exit) in [(0, 0), (LOADS, 0), (0, EXIT_LOADS), (LOADS, EXIT_LOADS)] {
        set_registers(OF_L1);
        set_controls(nested, entry, exit);
        set_guest(nested, OF_L2, 0x2000);
        nested.write(vmcs::HOST_SSP, 0x3000);
        nested.call(end);
        check_eq!(nested.run(), ExitReason::VMCALL, "entry {entry:#x}, exit {exit:#x}");
        let in_l2 = if entry == 0 { OF_L1 } else { OF_L2 };
        check_eq!(saved(nested), in_l2, "saved, entry {entry:#x}, exit {exit:#x}");
        let in_l1 = if exit == 0 { in_l2 } else { OF_HOST };
        check_eq!(registers(), in_l1, "behind the exit, entry {entry:#x}, exit {exit:#x}");
        if entry != 0 {
            check_eq!(nested.read(vmcs::GUEST_SSP), 0x2000, "SSP saved, exit {exit:#x}");
        }
        // What L1 has is L2's at an entry that loads nothing.
        set_controls(nested, 0, 0);
        nested.call(end);
        check_eq!(nested.run(), ExitReason::VMCALL, "an entry that loads nothing");
        if entry | exit != 0 {
            let ssp = if exit == 0 { 0x2000 } else { 0x3000 };
            check_eq!(nested.read(vmcs::GUEST_SSP), ssp, "SSP of L1, entry {entry:#x}, exit {exit:#x}");
        }
    }
}

/// MSR areas are loaded behind the state.
fn areas_come_last(nested: &mut Guest) {
    let [entry_area, exit_area] = [allocate(), allocate()];
    for (area, value) in [(entry_area, 0x8000), (exit_area, 0x9000)] {
        write(area, Msr::IA32_INTERRUPT_SSP_TABLE_ADDR.0.into());
        write(area + 8, value);
    }
    set_controls(nested, LOADS, EXIT_LOADS);
    set_guest(nested, OF_L2, 0x2000);
    nested.write(vmcs::ENTRY_MSR_LOAD_ADDRESS, entry_area);
    nested.write(vmcs::EXIT_MSR_LOAD_ADDRESS, exit_area);
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 1);
    nested.call(end);
    check_eq!(nested.run(), ExitReason::VMCALL, "with areas");
    check_eq!(saved(nested), [OF_L2[0], 0x8000], "the entry's area counts");
    check_eq!(registers(), [OF_HOST[0], 0x9000], "the exit's area counts");
    nested.write(vmcs::ENTRY_MSR_LOAD_COUNT, 0);
    nested.write(vmcs::EXIT_MSR_LOAD_COUNT, 0);
}

static BITMAP: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// L2: writes its registers behind a write to its hypervisor's bitmap.
extern "C" fn write_registers() {
    let bitmap = BITMAP.load(Ordering::SeqCst);
    write(bitmap, read(bitmap));
    set_registers(OF_HOST);
    for (seen, value) in SEEN.iter().zip(registers()) {
        seen.store(value, Ordering::SeqCst);
    }
}

/// What L2 writes stays, also where a hypervisor beneath carries it out.
fn written_in_l2(nested: &mut Guest) {
    BITMAP.store(nested.read(vmcs::MSR_BITMAPS), Ordering::SeqCst);
    for entry in [LOADS, 0] {
        set_controls(nested, entry, EXIT_LOADS);
        set_guest(nested, OF_L2, 0x2000);
        nested.call(write_registers);
        let _ = nested.run();
        check!(nested.has_ended(), "L2 ends, entry {entry:#x}");
        let seen = [0, 1].map(|index| SEEN[index].load(Ordering::SeqCst));
        check_eq!(seen, OF_HOST, "as L2 reads it, entry {entry:#x}");
        check_eq!(saved(nested), OF_HOST, "as the exit saves it, entry {entry:#x}");
    }
}

/// An NMI strikes before the first instruction: the entry has loaded, and the exit saved.
fn struck_early() {
    let mut nested = nmi::guest(PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS, end);
    for (entry, exit) in [(0, 0), (LOADS, 0), (0, EXIT_LOADS), (LOADS, EXIT_LOADS)] {
        set_registers(OF_L1);
        set_controls(&mut nested, entry, exit);
        set_guest(&mut nested, OF_L2, 0x2000);
        nmi::send();
        nested.call(end);
        let start = nested.read(vmcs::GUEST_RIP);
        let reason = nested.run();
        check!(nmi::is_nmi_exit(&nested, reason), "an NMI: {reason:?}");
        check_eq!(nested.read(vmcs::GUEST_RIP), start, "before the first instruction");
        let in_l2 = if entry == 0 { OF_L1 } else { OF_L2 };
        check_eq!(saved(&nested), in_l2, "saved early, entry {entry:#x}, exit {exit:#x}");
        let in_l1 = if exit == 0 { in_l2 } else { OF_HOST };
        check_eq!(registers(), in_l1, "behind the early exit, entry {entry:#x}, exit {exit:#x}");
        if entry != 0 {
            check_eq!(nested.read(vmcs::GUEST_SSP), 0x2000, "SSP saved early, exit {exit:#x}");
        }
    }
}

/// An entry that fails for what is checked last has loaded nothing.
fn not_loaded_by_failure(nested: &mut Guest) {
    set_controls(nested, LOADS, 0);
    set_guest(nested, OF_L2, 0x2000);
    nested.call(end);
    check_eq!(nested.run(), ExitReason::VMCALL, "an entry that loads");
    set_registers(OF_L1);
    nested.call(end);
    nested.write(vmcs::GUEST_RFLAGS, 0);
    check_eq!(nested.try_entry(), GUEST_STATE, "an entry without the fixed flag");
    check_eq!(registers(), OF_L1, "behind an entry that failed");
}

/// L2 has a shadow stack, which its exits keep; its hypervisor has none.
fn shadow_stack(nested: &mut Guest) {
    let space = Space::new(TABLES);
    space.map(0, PAGE, SHADOW_PAGE);
    check_eq!(write64(PAGE + 0x7f8, 0), Ok(()), "the shadow stack");
    check_eq!(write_cr0(read_cr0() | 1 << 16), Ok(()), "CR0.WP");
    let calls = snippet!("call 2f", "vmcall", "2:", "vmcall", "ret");
    set_controls(nested, LOADS, EXIT_LOADS);
    set_guest(nested, [SHADOW_STACK, 0], TOP);
    nested.call(end);
    let old = [nested.read(vmcs::GUEST_CR0), nested.read(vmcs::GUEST_CR4)];
    nested.write(vmcs::GUEST_CR0, read_cr0());
    nested.write(vmcs::GUEST_CR4, read_cr4() | 1 << 23);
    nested.write(vmcs::GUEST_CR3, space.cr3());
    nested.write(vmcs::GUEST_RIP, calls.address());
    check_eq!(nested.run(), ExitReason::VMCALL, "in the called function");
    check_eq!(nested.read(vmcs::GUEST_SSP), TOP - 8, "SSP in the called function");
    check_eq!(read64(PAGE + 0x7f8), Ok(calls.address() + 5), "the return address");
    check_eq!(registers(), OF_HOST, "L1's registers meanwhile");
    nested.advance();
    check_eq!(nested.run(), ExitReason::VMCALL, "behind the call");
    check_eq!(nested.read(vmcs::GUEST_SSP), TOP, "SSP behind the call");
    check_eq!(nested.read(vmcs::GUEST_RIP), calls.address() + 5, "the call came back");
    nested.write(vmcs::GUEST_CR0, old[0]);
    nested.write(vmcs::GUEST_CR4, old[1]);
    nested.write(vmcs::GUEST_CR3, guest::cpu::read_cr3());
}

/// Reserved bits, suppression while a target is waited for, addresses that are none.
fn refused(nested: &mut Guest) {
    set_controls(nested, LOADS, EXIT_LOADS);
    set_guest(nested, OF_L2, 0x2000);
    let s_cet = |bad| [(1 << 6, bad), (3 << 10, bad), (1 << 60, bad), (1 << 11, Entry::Entered)];
    try_values(nested, "guest IA32_S_CET", vmcs::GUEST_S_CET, &s_cet(GUEST_STATE));
    try_values(nested, "host IA32_S_CET", vmcs::HOST_S_CET, &s_cet(HOST_STATE));
    let table = |bad| [(1 << 60, bad), (8, Entry::Entered)];
    try_values(nested, "guest table", vmcs::GUEST_INTERRUPT_SSP_TABLE, &table(GUEST_STATE));
    try_values(nested, "host table", vmcs::HOST_INTERRUPT_SSP_TABLE, &table(HOST_STATE));
    let ssp = |bad| [(2, bad), (4, Entry::Entered), (1 << 60, bad)];
    try_values(nested, "guest SSP", vmcs::GUEST_SSP, &ssp(GUEST_STATE));
    try_values(nested, "host SSP", vmcs::HOST_SSP, &ssp(HOST_STATE));
}
