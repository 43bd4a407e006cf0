//! The smallest hypapp: greets on every VMCALL.
#![no_std]
#![no_main]

use runtime::hypapp::{Answer, Hypapp};
use runtime::vcpu::Vcpu;

struct HelloWorld;

impl Hypapp for HelloWorld {
    fn hypercall(&self, vcpu: &mut dyn Vcpu) -> Answer {
        log::info!("hello, world, from cpu {}", vcpu.index());
        Answer::Handled
    }
}

runtime::hypapp!(HelloWorld);
