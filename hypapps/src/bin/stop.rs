//! Stops the hypervisor on demand, for those who read its dumps: no machine of worth boots this one.
//!
//! VMCALL with EBX = 0x53544F50 ("POTS") and EAX: 1 a panic, 2 a stack that overflows into its guard page,
//! 3 a page fault. 4 stops
//! nothing: it returns in EAX whether there is memory at RDX in the hypervisor's address space.
#![no_std]
#![no_main]

use core::hint::black_box;
use runtime::hypapp::{Hypapp, HypercallAnswer};
use runtime::vcpu::Vcpu;

struct Stop;

const SELECTOR: u64 = 0x5354_4f50;

impl Hypapp for Stop {
    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        if vcpu.registers().rbx() & 0xffff_ffff != SELECTOR {
            return HypercallAnswer::Chain;
        }
        match vcpu.registers().rax() & 0xffff_ffff {
            1 => panic!("the guest asked for a stop"),
            2 => vcpu.registers_mut().set_rax(descend(0)),
            3 => vcpu.registers_mut().set_rax(runtime::services::read_unmapped()),
            4 => {
                let is_there = runtime::services::probe(vcpu.registers().rdx()).is_some();
                vcpu.registers_mut().set_rax(is_there.into());
            }
            _ => return HypercallAnswer::Chain,
        }
        HypercallAnswer::Handled
    }

    fn shutdown(&self, cpu: usize) {
        log::info!("cpu {cpu} comes to its end");
    }
}

/// Calls itself for ever, with a frame that cannot be optimised away.
#[expect(unconditional_recursion, reason = "the point of it")]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    descend(black_box(depth + 1)).wrapping_add(frame[63])
}

runtime::hypapp!(Stop);
