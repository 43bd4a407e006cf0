//! TrustVisor: runs pieces of application logic (PALs) that the rest of the guest can neither read nor change.
//!
//! What a program has to know is in the crate `trustvisor`; the logic that needs no hardware is in `pals`.
//! Here are `hypercalls` and what they lead to: `registration`, `calls` into PALs, their `microtpm`,
//! `revocation` where the guest takes a PAL's pages. Boot command line: `pal_ticks=N`, the most ticks that interrupts
//! wait for a PAL; `pal_register=admitted`, only processes that ring 0 has admitted register PALs.
#![no_std]
#![no_main]

extern crate alloc;

mod calls;
mod command;
mod heap;
mod hypercalls;
mod memory;
mod microtpm;
mod registration;
mod revocation;
mod state;

use runtime::exit::CompartmentExit;
use runtime::exit::SecondLevelViolation;
use runtime::hypapp::{Boot, ConfigurationError, Hypapp, HypercallAnswer, ViolationAnswer};
use runtime::services::{self, Scope, compartment, private};
use runtime::vcpu::{CodeSize, Vcpu};
use trustvisor::command::NESTED_OFFSET;
use trustvisor::probe;
use x86::cpuid::CpuidResult;
use x86::paging::Rights;

struct TrustVisor;

impl Hypapp for TrustVisor {
    fn init(&self, boot: &Boot<'_>) -> Result<(), ConfigurationError> {
        if !services::pages::is_closed_to_devices() {
            log::warn!("devices can read and change PALs: nothing on this machine keeps them from memory");
        }
        heap::start()?;
        // After the heap, which is private memory: what follows lies in it.
        let _open = private::open();
        microtpm::start();
        state::start(boot)
    }

    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        hypercalls::answer(vcpu)
    }

    fn cpuid(&self, vcpu: &mut dyn Vcpu, leaf: u32, subleaf: u32) -> Option<CpuidResult> {
        if leaf != probe::LEAF {
            return None;
        }
        let is_nested = services::is_nested();
        // Without the offset it is asked of the guest, or of a hypervisor in it.
        let is_asked = subleaf == if is_nested { NESTED_OFFSET } else { 0 };
        if !(is_asked || subleaf == 0 && compartment::is_inside()) {
            return None;
        }
        let mut ecx = if vcpu.code_size() == CodeSize::Bits64 { probe::CALLER_IS_64_BIT } else { 0 };
        if is_nested && services::has_nested_second_level() {
            ecx |= probe::CALLER_HAS_NESTED_TABLES;
        }
        let _open = private::open();
        let number = state::running_number(vcpu.index());
        Some(CpuidResult { eax: probe::PRESENT, ebx: number.unwrap_or(probe::NOT_IN_PAL), ecx, edx: 0 })
    }

    fn second_level_violation(
        &self,
        vcpu: &mut dyn Vcpu,
        violation: SecondLevelViolation,
    ) -> ViolationAnswer {
        let _open = private::open();
        let page = violation.gpa.page();
        let Some(pal) = state::REGISTRY.lock().find_page(page.get()) else {
            // The page was given back meanwhile, or was never a PAL's.
            let is_open = services::protection(Scope::AllCpus, page) == Rights::all();
            return if is_open { ViolationAnswer::Resume } else { ViolationAnswer::Chain };
        };
        if violation.is_fetch {
            return calls::enter(vcpu, violation, &pal);
        }
        if violation.is_write {
            revocation::revoke(&pal);
        }
        ViolationAnswer::Resume
    }

    fn compartment_exit(&self, vcpu: &mut dyn Vcpu, exit: CompartmentExit) {
        let _open = private::open();
        calls::compartment_exit(vcpu, exit);
    }

    fn shutdown(&self, _cpu: usize) {
        let _open = private::open();
        revocation::end_all();
        microtpm::end();
    }
}

runtime::hypapp!(TrustVisor);
