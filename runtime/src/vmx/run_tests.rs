//! Exits on a CPU that is a thread: from what the processor leaves to what it finds at the next entry.

// UNSAFETY: keeps the contracts of the machine's own start, for memory of a host.
#![expect(unsafe_code, reason = "a CPU's data in memory of a host")]

use super::*;
use crate::dma::Devices;
use crate::features;
use crate::guest_start::GuestStart;
use crate::hypapp::Hypapp;
use crate::machine::Machine;
use crate::policies::Policies;
use crate::smp::call::Callee;
use crate::smp::percpu::Stacks;
use crate::smp::rendezvous::Rendezvous;
use crate::vmx::VMX;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize};
use hw::bare::{Region, per_cpu};
use hw::host::{Act, own};
use hw::sim::{SimCpuid, SimMsrs, SimVmcs};
use platform::handoff::Handoff;
use x86::address::{HostPhysAddr, HostVirtAddr};
use x86::cpuid::CpuidResult;
use x86::cr::Cr4;

const VMCS: HostPhysAddr = HostPhysAddr::new(0x1000);
const RIP: u64 = 0x7c00;
/// What an exit or an entry says of an NMI.
const NMI: u32 = 1 << 31 | 2 << 8 | 2;

struct NoHypapp;

impl Hypapp for NoHypapp {}

/// Makes the executing thread the one CPU of a machine, in whose guest an exit for `reason` happens.
fn exit(reason: ExitReason, set: impl FnOnce(&mut SimVmcs)) -> &'static PerCpu {
    features::start(&SimCpuid::default(), &SimMsrs::default());
    let handoff: &'static Handoff = Box::leak(Box::new(Handoff::EMPTY));
    let memory = vec![0u64; 512].leak().as_mut_ptr() as u64;
    let rendezvous = Rendezvous::new(AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let machine: &'static Machine = Box::leak(Box::new(Machine {
        handoff,
        // SAFETY: memory of that size which is used for nothing else, for ever.
        region: unsafe { Region::new(HostPhysAddr::new(0x10_0000), 4096, HostVirtAddr::new(memory)) },
        hypapp: &NoHypapp,
        vendor: &VMX,
        policies: Policies::decide(handoff, Cr4::all(), crate::exit::cpuid::Instructions::empty()),
        guest_start: GuestStart::of(handoff),
        devices: Devices::new(),
        rendezvous,
    }));
    let place = Box::leak(Box::new(MaybeUninit::<PerCpu>::zeroed())).as_mut_ptr();
    let end = memory + 4096;
    let stacks = Stacks { main: end, main_bottom: memory, nmi: end, nmi_bottom: memory, fault: end };
    // SAFETY: the place lives for ever; nothing runs on the stacks.
    let cpu = unsafe { PerCpu::create(place, machine, 0, 0, stacks, [VMCS; _]) };
    // SAFETY: the first word of the structure is its own address.
    unsafe { per_cpu::set_data(place.cast_const().cast()) };
    cpu.is_ready.store(true, Ordering::SeqCst);
    let mut vmcs = SimVmcs::default();
    vmcs.write(vmcs::EXIT_REASON, reason.0);
    vmcs.write(vmcs::GUEST_RIP, RIP);
    vmcs.write(vmcs::EXIT_INSTRUCTION_LENGTH, 3);
    set(&mut vmcs);
    own(|cpu| {
        cpu.vmcss.insert(VMCS, vmcs);
        cpu.current_vmcs = Some(VMCS);
        cpu.acts.clear();
    });
    cpu
}

/// Returns where the guest goes on, and the event that it takes there.
fn entry() -> (u64, u32) {
    own(|cpu| {
        let vmcs = &cpu.vmcss[&VMCS];
        (vmcs.read(vmcs::GUEST_RIP), vmcs.read(vmcs::ENTRY_INTERRUPTION_INFORMATION))
    })
}

#[test]
fn cpuid_answers_and_goes_on_behind_the_instruction() {
    let cpu = exit(ExitReason::CPUID, |_| ());
    let leaf = CpuidResult { eax: 1, ebx: 2, ecx: 3, edx: 4 };
    own(|cpu| cpu.cpuid = SimCpuid::default().with(0x8000_0002, 0, leaf));
    let mut registers = Registers::default();
    registers.set_rax(0x8000_0002);
    handle_exit(&mut registers);
    let words = [registers.rax(), registers.rbx(), registers.rcx(), registers.rdx()];
    assert_eq!((words, entry()), ([1, 2, 3, 4], (RIP + 3, 0)));
    assert!(cpu.exits().eq([(u32::from(ExitReason::CPUID.basic()), 1)]));
}

#[test]
fn a_hypercall_that_nobody_knows_is_undefined() {
    exit(ExitReason::VMCALL, |_| ());
    handle_exit(&mut Registers::default());
    let undefined = 1 << 31 | 3 << 8 | 6;
    assert_eq!(entry(), (RIP, undefined));
}

#[test]
fn an_nmi_that_nobody_sent_is_the_guests() {
    exit(ExitReason::EXCEPTION_OR_NMI, |vmcs| vmcs.write(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI));
    let mut registers = Registers::default();
    handle_exit(&mut registers);
    assert_eq!(entry(), (RIP, 0));
    attend(&mut registers);
    assert_eq!(entry(), (RIP, NMI));
}

#[test]
fn an_nmi_of_ours_is_none_of_the_guests() {
    let cpu = exit(ExitReason::EXCEPTION_OR_NMI, |vmcs| vmcs.write(vmcs::EXIT_INTERRUPTION_INFORMATION, NMI));
    assert!(!cpu.expect_nmi());
    // No device asks for one either (`nmi_source`).
    own(|cpu| cpu.ports.answer(0x61, [0]));
    let mut registers = Registers::default();
    handle_exit(&mut registers);
    attend(&mut registers);
    assert_eq!(entry(), (RIP, 0));
}

#[test]
fn stale_translations_are_dropped_before_the_guest_goes_on() {
    let cpu = exit(ExitReason::CPUID, |_| ());
    attend(&mut Registers::default());
    assert_eq!(own(|cpu| cpu.acts.clone()), []);
    cpu.flush.store(true, Ordering::SeqCst);
    attend(&mut Registers::default());
    assert_eq!(own(|cpu| cpu.acts.clone()), [Act::InvalidateGuestPhysical]);
    assert!(!cpu.flush.load(Ordering::SeqCst));
}
