//! Latency: a change of protections does not hold its CPU for long, however many tables a hypervisor in the guest filled.
//! memory: 256
//! cmdline: log=warn nested=on nested_pool=8
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::{FREE, write64};
use guest::pal::{self, PAGE, PALS};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, many};
use guest::{Mode, latency, println};
use trustvisor::command::Command;
use trustvisor::parameter::{self, ParameterType};
use trustvisor::section::{self, SectionRecord, SectionType};

guest!(main);

const MODE: Mode = Mode::User64;
const DATA: u64 = 0x300_0000;
/// Pages of a PAL, so far apart that no two of them are one change.
const APART: u64 = 2 << 20;
/// Ticks that an interrupt may wait.
const LIMIT: u64 = 100_000;

fn main() {
    register("before");
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(guest::vmx::trial::perform);
    nested.use_ept(&ept);
    many::fill(&mut nested, &mut ept);
    register("with full tables");
    many::fill(&mut nested, &mut ept);
    leave_operation();
    register("behind VMXOFF");
}

fn register(when: &str) {
    let sections: [SectionRecord; section::CAPACITY] = core::array::from_fn(|index| {
        let (kind, at) = match index as u64 {
            0 => (SectionType::Code, PALS),
            1 => (SectionType::Stack, PALS + PAGE),
            2 => (SectionType::Parameters, PALS + 2 * PAGE),
            index => (SectionType::Data, DATA + index * APART),
        };
        if kind == SectionType::Data {
            check_eq!(write64(at, at), Ok(()), "a page of data");
        }
        SectionRecord { kind: kind as u32, pages: 1, start: pal::user(MODE, at) }
    });
    let parameters = [(ParameterType::Integer, 0); parameter::CAPACITY];
    let entry = pal::user(MODE, PALS);
    // Places the records, and is refused.
    check!(pal::register(MODE, &sections, &parameters, 1) != 0, "a PAL whose entry is nowhere");
    let arguments = [pal::user(MODE, FREE), 0, pal::user(MODE, FREE + PAGE), entry];
    for (command, arguments) in [(Command::REGISTER, arguments), (Command::UNREGISTER, [entry, 0, 0, 0])] {
        let (status, gap) = latency::longest(|| pal::hypercall(MODE, command.0, arguments));
        println!("{when}: command {}: an interrupt waited {gap} ticks", command.0);
        check_eq!(status, 0, "{when}, command {}", command.0);
        check!(gap < LIMIT, "{when}: an interrupt waited {gap} ticks");
    }
}
