//! Changes protections on the guest's word: the hypercall that a checker attacks.
//!
//! VMCALL with EAX = 0xDEADBEEF, RCX = guest-physical page number, RDX = types OR-ed: 1 not present,
//! 2 present, 4 read-only, 8 read and write, 16 execute, 32 no execute; not present stands alone, present
//! goes with one of each pair. Returns EAX: 0 done, 1 types make no sense, 2 the page is not the guest's,
//! 3 out of resources, 4 the CPU has no view. EAX = 0xDEADBEF0 returns in EDX what the page allows: 1 read,
//! 2 write, 4 execute. EAX = 0xDEADBEF1 opens, 0xDEADBEF2 closes a view of the calling CPU's own, and with
//! RSI = 1 the first two mean that view. EAX = 0xDEADBEF3 looks at private memory, and returns in EDX where it was
//! found: 1 before it was opened, 2 while it was open, 4 afterwards.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::hypapp::{Boot, ConfigurationError, Hypapp, HypercallAnswer};
use runtime::memory::second_level::ProtectError;
use runtime::services::{
    GuestRange, Rights, Scope, close_view, open_view, private, probe, protection, set_protection,
};
use runtime::vcpu::Vcpu;
use x86::address::GuestPhysAddr;
use x86::msr::Msr;

struct Verify;

const SET: u64 = 0xdead_beef;
const GET: u64 = 0xdead_bef0;
const OPEN: u64 = 0xdead_bef1;
const CLOSE: u64 = 0xdead_bef2;
const PRIVATE: u64 = 0xdead_bef3;
/// Of more than one page table's pages, so that whole tables are missed too.
const PRIVATE_BYTES: usize = 0x20_2000;
const WORD: u64 = 0x5ec2_e700_0000_0001;
static PRIVATE_AT: AtomicU64 = AtomicU64::new(0);
const NOT_PRESENT: u64 = 1;
const PRESENT: u64 = 2;
const READ_ONLY: u64 = 4;
const READ_WRITE: u64 = 8;
const EXECUTE: u64 = 16;
const NO_EXECUTE: u64 = 32;

impl Hypapp for Verify {
    fn init(&self, _boot: &Boot<'_>) -> Result<(), ConfigurationError> {
        let memory = private::take(PRIVATE_BYTES);
        PRIVATE_AT.store(memory.as_ptr() as u64, Ordering::Relaxed);
        let _open = private::open();
        for page in memory.chunks_mut(4096) {
            page[..8].copy_from_slice(&WORD.to_le_bytes());
        }
        Ok(())
    }

    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        let (command, page, types) = (vcpu.registers().rax(), vcpu.registers().rcx(), vcpu.registers().rdx());
        let scope = if vcpu.registers().rsi() == 1 { Scope::ThisCpu } else { Scope::AllCpus };
        match command & 0xffff_ffff {
            SET => {
                let status = rights(types).map_or(1, |rights| set(scope, page, rights));
                vcpu.registers_mut().set_rax(status);
            }
            GET => {
                let rights = page_address(page).map_or(Rights::empty(), |at| protection(scope, at));
                vcpu.registers_mut().set_rdx(u64::from(rights.bits()));
            }
            OPEN => vcpu.registers_mut().set_rax(open_view().map_or_else(status, |()| 0)),
            CLOSE => {
                close_view();
                vcpu.registers_mut().set_rax(0);
            }
            PRIVATE => vcpu.registers_mut().set_rdx(find_private()),
            _ => return HypercallAnswer::Chain,
        }
        HypercallAnswer::Handled
    }

    fn allow_mtrr(&self, _vcpu: &mut dyn Vcpu, _msr: Msr, _value: u64) -> bool {
        false
    }
}

/// Returns where any page of private memory was found: before, while and after it was open.
fn find_private() -> u64 {
    let before = is_there(|page| page.is_some());
    let open = private::open();
    let during = !is_there(|page| page != Some(WORD));
    drop(open);
    let after = is_there(|page| page.is_some());
    u64::from(before) | u64::from(during) << 1 | u64::from(after) << 2
}

fn is_there(what: impl Fn(Option<u64>) -> bool) -> bool {
    let start = PRIVATE_AT.load(Ordering::Relaxed);
    (start..start + PRIVATE_BYTES as u64).step_by(4096).any(|page| what(probe(page)))
}

fn set(scope: Scope, page: u64, rights: Rights) -> u64 {
    let Some(address) = page_address(page) else { return 2 };
    set_protection(scope, GuestRange::page(address), rights).map_or_else(status, |()| 0)
}

fn status(error: ProtectError) -> u64 {
    match error {
        ProtectError::Unsupported => 1,
        ProtectError::HypervisorMemory | ProtectError::OutOfReach | ProtectError::Unaligned => 2,
        ProtectError::NoView => 4,
        _ => 3,
    }
}

fn page_address(page: u64) -> Option<GuestPhysAddr> {
    page.checked_mul(4096).map(GuestPhysAddr::new)
}

fn rights(types: u64) -> Option<Rights> {
    if types == NOT_PRESENT {
        return Some(Rights::empty());
    }
    let write = match types & (READ_ONLY | READ_WRITE) {
        READ_ONLY => Rights::empty(),
        READ_WRITE => Rights::WRITE,
        _ => return None,
    };
    let execute = match types & (EXECUTE | NO_EXECUTE) {
        EXECUTE => Rights::EXECUTE,
        NO_EXECUTE => Rights::empty(),
        _ => return None,
    };
    let known = PRESENT | READ_ONLY | READ_WRITE | EXECUTE | NO_EXECUTE;
    (types & PRESENT != 0 && types & !known == 0).then_some(Rights::READ | write | execute)
}

runtime::hypapp!(Verify);
