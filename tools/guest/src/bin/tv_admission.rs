//! Ring 0 says which processes may register PALs; ring 3 does not, and what is registered stays.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::cpu;
use guest::pal;
use guest::pal::prelude::*;
use trustvisor::admission::{ADMIT, ADMITTED, DISMISS, EVERYBODY};

guest!(main);

const MODE: Mode = Mode::User64;

fn main() {
    let pal = Pal::place(MODE, 0, snippet!("mov eax, 7", "ret"));
    let say = |mode, what: u32| {
        let address_space = cpu::read_cr3() & !0xfff;
        pal::hypercall(mode, Command::ADMIT.0, [what.into(), address_space, 0, 0])
    };
    check_eq!((pal.register(&[]), pal.unregister()), (0, 0), "at first everybody may");
    for what in [EVERYBODY, ADMITTED, ADMIT, DISMISS] {
        check_eq!(say(MODE, what), Status::NOT_ADMITTED.0, "ring 3 says {what}");
    }
    check_eq!(say(Mode::Kernel64, ADMITTED), 0, "only who is admitted");
    check_eq!(pal.register(&[]), Status::NOT_ADMITTED.0, "nobody is");
    check_eq!(say(Mode::Kernel64, ADMIT), 0, "this process is");
    check_eq!(pal.register(&[]), 0, "registering");
    check_eq!(say(Mode::Kernel64, DISMISS), 0, "it is no more");
    check_eq!(pal.call([0; 10]).map(|regs| regs.rax), Ok(7), "its PAL is there");
    check_eq!(pal.unregister(), 0, "unregistering");
    check_eq!(pal.register(&[]), Status::NOT_ADMITTED.0, "registering anew");
    check_eq!(say(Mode::Kernel64, 9), Status::BAD_PARAMETER.0, "a word that is none");
    check_eq!(say(Mode::Kernel64, EVERYBODY), 0, "everybody may");
    check_eq!((pal.register(&[]), pal.unregister()), (0, 0), "registering");
}
