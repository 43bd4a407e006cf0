//! Intercepts ports, MSRs, interrupts, the interrupt window and nesting, counts what it sees, and has a compartment.
//!
//! Ports 0x1230 to 0x1237: IN reads the count of port accesses; OUT is counted and dropped. An access of several ports
//! is theirs where one of them is.
//! MSRs 0x1b0 and 0xc0001000: RDMSR reads the last value written to either, WRMSR keeps it from the hardware.
//! MSR 0xc0001010: WRMSR of 0 closes the CPU's own view, of a page's address opens one in which that page is
//! read-only. RDMSR reads bit 0 for a guest of the guest, and bit 1 where that one's hypervisor can be asked for the
//! page at linear address 0x3000000.
//! VMCALL with EBX = 0x494E5443: EAX = 1 watches for the next external interrupt, 2 for the next interrupt
//! window, on the calling CPU; returns in EAX how many of either were seen so far on any. EAX = 3 returns in
//! EAX how often a guest of the guest was entered, and in EDX how often one left for its hypervisor. EAX = 4 has the
//! caller, at CPL 0 in 64-bit mode, whose linear addresses are physical ones, go on in a compartment with the page of the
//! code and the next, to read and execute; EAX = 5 takes it out of that, as anything does that no compartment has. EAX = 6
//! is a WRMSR of RDX to MSR 0xc0001010. A guest of the guest adds 0x4C415000 to EAX.
#![no_std]
#![no_main]

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use runtime::exit::{CompartmentExit, PortAccess};
use runtime::hypapp::{Hypapp, HypercallAnswer, WriteAnswer};
use runtime::memory::guest::Privilege;
use runtime::services::compartment::{self, Mode, Page};
use runtime::services::{
    GuestRange, Rights, Scope, close_view, is_nested, open_view, pages, protection, set_protection,
    watch_external_interrupts, watch_interrupt_window,
};
use runtime::vcpu::{CodeSize, Vcpu};
use x86::address::{GuestLinearAddr, GuestPhysAddr, HostPhysAddr};
use x86::cr::Cr4;
use x86::msr::Msr;

struct Intercept;

const SELECTOR: u64 = 0x494e_5443;
/// What guests of the guest add to commands.
const NESTED_OFFSET: u64 = 0x4c41_5000;
/// Bytes of VMCALL.
const VMCALL: u64 = 3;
const PAGE: u64 = 4096;
/// Ticks in a compartment.
const TIME: u64 = 1_000_000;
const PORTS: RangeInclusive<u16> = 0x1230..=0x1237;
const MSRS: [RangeInclusive<u32>; 3] = [0x1b0..=0x1b0, 0xc000_1000..=0xc000_1000, 0xc000_1010..=0xc000_1010];
const VIEW: Msr = Msr(0xc000_1010);
/// What the hypapp touches in the stead of whoever reads [`VIEW`].
const TOUCHED: GuestLinearAddr = GuestLinearAddr::new(0x300_0000);
static ACCESSES: AtomicU32 = AtomicU32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static NESTED_ENTRIES: AtomicU64 = AtomicU64::new(0);
static NESTED_EXITS: AtomicU64 = AtomicU64::new(0);

impl Hypapp for Intercept {
    fn ports(&self) -> &[RangeInclusive<u16>] {
        &[PORTS]
    }

    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &MSRS
    }

    fn read_port(&self, _vcpu: &mut dyn Vcpu, access: PortAccess) -> Option<u32> {
        access.touches(&PORTS).then(count)
    }

    fn write_port(&self, _vcpu: &mut dyn Vcpu, access: PortAccess, _value: u32) -> WriteAnswer {
        if !access.touches(&PORTS) {
            return WriteAnswer::Chain;
        }
        count();
        WriteAnswer::Handled
    }

    fn read_msr(&self, vcpu: &mut dyn Vcpu, msr: Msr) -> Option<u64> {
        if msr == VIEW {
            let lacks = pages::address_space(vcpu).read(TOUCHED, &mut [0], Privilege::Supervisor).is_err();
            return Some(u64::from(is_nested()) | u64::from(lacks && pages::ask_hypervisor()) << 1);
        }
        is_ours(msr).then(|| VALUE.load(Ordering::Relaxed))
    }

    fn write_msr(&self, _vcpu: &mut dyn Vcpu, msr: Msr, value: u64) -> WriteAnswer {
        if msr == VIEW {
            see_read_only(value);
            return WriteAnswer::Handled;
        }
        if !is_ours(msr) {
            return WriteAnswer::Chain;
        }
        VALUE.store(value, Ordering::Relaxed);
        WriteAnswer::Handled
    }

    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        if vcpu.registers().rbx() & 0xffff_ffff != SELECTOR {
            return HypercallAnswer::Chain;
        }
        let command = vcpu.registers().rax() & 0xffff_ffff;
        match command.checked_sub(NESTED_OFFSET).unwrap_or(command) {
            1 => watch_external_interrupts(true),
            2 => watch_interrupt_window(true),
            3 => {
                vcpu.registers_mut().set_rax(NESTED_ENTRIES.load(Ordering::Relaxed));
                vcpu.registers_mut().set_rdx(NESTED_EXITS.load(Ordering::Relaxed));
                return HypercallAnswer::Handled;
            }
            4 => return enter_compartment(vcpu).map_or(HypercallAnswer::Chain, |()| HypercallAnswer::Moved),
            5 => compartment::leave(),
            6 => see_read_only(vcpu.registers().rdx()),
            _ => {}
        }
        vcpu.registers_mut().set_rax(SEEN.load(Ordering::Relaxed));
        HypercallAnswer::Handled
    }

    fn external_interrupt(&self, _vcpu: &mut dyn Vcpu) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        watch_external_interrupts(false);
    }

    fn interrupt_window(&self, _vcpu: &mut dyn Vcpu) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        watch_interrupt_window(false);
    }

    fn compartment_exit(&self, _vcpu: &mut dyn Vcpu, exit: CompartmentExit) {
        if exit != CompartmentExit::Called {
            // The guest goes on at the same place, which is not the compartment's any more.
            compartment::leave();
        }
    }

    fn nested_entry(&self, _vcpu: &mut dyn Vcpu) {
        NESTED_ENTRIES.fetch_add(1, Ordering::Relaxed);
    }

    fn nested_exit(&self, _vcpu: &mut dyn Vcpu) {
        NESTED_EXITS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts an access, and gives how many there were.
fn count() -> u32 {
    ACCESSES.fetch_add(1, Ordering::Relaxed) + 1
}

/// Has the guest go on behind its hypercall in a compartment; `None` where it cannot.
fn enter_compartment(vcpu: &mut dyn Vcpu) -> Option<()> {
    let rip = vcpu.rip() + VMCALL;
    if vcpu.cpl() != 0 || vcpu.code_size() != CodeSize::Bits64 || compartment::is_inside() {
        return None;
    }
    let mode = if vcpu.cr4().contains(Cr4::LA57) { Mode::Levels5 } else { Mode::Levels4 };
    let code = [0, PAGE].map(|offset| rip / PAGE * PAGE + offset);
    let rights = Rights::READ | Rights::EXECUTE;
    if !code.iter().all(|&page| protection(Scope::AllCpus, GuestPhysAddr::new(page)).contains(rights)) {
        return None;
    }
    while !compartment::reserve(compartment::frames_needed(mode, [(code[0], 2)])).ok()? {}
    let pages = code.map(|page| Page { linear: page, frame: HostPhysAddr::new(page), rights });
    let roots = compartment::prepare(rip, mode, || pages).ok()?;
    compartment::enter(&roots, TIME);
    vcpu.set_rip(rip);
    Some(())
}

/// Opens a view in which the page at `address` is read-only; 0 closes it.
fn see_read_only(address: u64) {
    if address == 0 {
        return close_view();
    }
    let page = GuestRange::page(GuestPhysAddr::new(address));
    let done =
        open_view().and_then(|()| set_protection(Scope::ThisCpu, page, Rights::READ | Rights::EXECUTE));
    if let Err(error) = done {
        log::warn!("no view in which {address:#x} is read-only: {error:?}");
    }
}

fn is_ours(msr: Msr) -> bool {
    MSRS.iter().any(|range| range.contains(&msr.0))
}

runtime::hypapp!(Intercept);
