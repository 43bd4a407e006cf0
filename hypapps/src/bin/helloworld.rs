//! The smallest hypapp: greets on every VMCALL.
#![no_std]
#![no_main]

use runtime::hypapp::{Hypapp, HypercallAnswer};
use runtime::vcpu::Vcpu;

struct HelloWorld;

impl Hypapp for HelloWorld {
    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        log::info!("hello, world, from cpu {}", vcpu.index());
        HypercallAnswer::Handled
    }
}

runtime::hypapp!(HelloWorld);
