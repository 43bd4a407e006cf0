//! Changes protections on the guest's word: the hypercall that a checker attacks.
//!
//! VMCALL with EAX = 0xDEADBEEF, RCX = guest-physical page number, RDX = types OR-ed: 1 not present,
//! 2 present, 4 read-only, 8 read and write, 16 execute, 32 no execute; not present stands alone, present
//! goes with one of each pair. Returns EAX: 0 done, 1 types make no sense, 2 the page is not the guest's,
//! 3 out of resources. EAX = 0xDEADBEF0 returns in EDX what the page allows: 1 read, 2 write, 4 execute.
#![no_std]
#![no_main]

use runtime::hypapp::{Answer, Hypapp};
use runtime::memory::second_level::ProtectError;
use runtime::services::{GuestRange, Rights, protection, set_protection};
use runtime::vcpu::Vcpu;
use x86::address::GuestPhysAddr;
use x86::msr::Msr;

struct Verify;

const SET: u64 = 0xdead_beef;
const GET: u64 = 0xdead_bef0;
const NOT_PRESENT: u64 = 1;
const PRESENT: u64 = 2;
const READ_ONLY: u64 = 4;
const READ_WRITE: u64 = 8;
const EXECUTE: u64 = 16;
const NO_EXECUTE: u64 = 32;

impl Hypapp for Verify {
    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> Answer {
        let (command, page, types) = (vcpu.registers().rax(), vcpu.registers().rcx(), vcpu.registers().rdx());
        match command & 0xffff_ffff {
            SET => {
                let status = rights(types).map_or(1, |rights| set(page, rights));
                vcpu.registers_mut().set_rax(status);
            }
            GET => {
                let rights = page_address(page).map_or(Rights::empty(), protection);
                vcpu.registers_mut().set_rdx(u64::from(rights.bits()));
            }
            _ => return Answer::Chain,
        }
        Answer::Handled
    }

    fn allow_mtrr(&self, _vcpu: &mut dyn Vcpu, _msr: Msr, _value: u64) -> bool {
        false
    }
}

fn set(page: u64, rights: Rights) -> u64 {
    let Some(address) = page_address(page) else { return 2 };
    match set_protection(GuestRange::page(address), rights) {
        Ok(()) => 0,
        Err(ProtectError::HypervisorMemory | ProtectError::OutOfReach | ProtectError::Unaligned) => 2,
        Err(ProtectError::Unsupported) => 1,
        Err(_) => 3,
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
