//! Proves the rendezvous: each call stops all other CPUs, and while they stand no counter of theirs moves.
//!
//! VMCALL with EBX = 0x44550002. Returns EAX = 0 where every other CPU stood still, 1 where one moved, and
//! in ECX how many rendezvous there have been.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use runtime::hypapp::{Hypapp, HypercallAnswer};
use runtime::services::{exits_of_others, quiesce};
use runtime::vcpu::Vcpu;

struct Quiesce;

const SELECTOR: u64 = 0x4455_0002;
const LOOKS: u32 = 1000;
static RENDEZVOUS: AtomicU32 = AtomicU32::new(0);

impl Hypapp for Quiesce {
    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        if vcpu.registers().rbx() & 0xffff_ffff != SELECTOR {
            return HypercallAnswer::Chain;
        }
        let index = vcpu.index();
        let moved = quiesce(|quiesced| {
            log::debug!("cpu {index} runs alone");
            let before = exits_of_others(quiesced);
            (0..LOOKS).any(|_| exits_of_others(quiesced) != before)
        });
        let count = RENDEZVOUS.fetch_add(1, Ordering::Relaxed) + 1;
        vcpu.registers_mut().set_rax(u64::from(moved));
        vcpu.registers_mut().set_rcx(u64::from(count));
        HypercallAnswer::Handled
    }
}

runtime::hypapp!(Quiesce);
