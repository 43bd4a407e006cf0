//! A reset of the whole machine where the CMOS shutdown status would have the firmware go on at 40:67: the hypervisor
//! ends and the machine boots, so no code of the guest's runs without it. (Bare, the firmware jumps.)
//! resets: yes
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::out8;
use guest::memory::write16;
use guest::{check_eq, cmos, guest, reset};

guest!(main);

fn main() {
    reset::expect(|| {
        // A halt: CLI, HLT and a jump back, so that a machine that goes on there never passes.
        let _ = (write16(0x500, 0xf4fa), write16(0x502, 0xfceb));
        let _ = (write16(0x467, 0x500), write16(0x469, 0));
        cmos::write(0x0f, 0x0a);
        check_eq!(cmos::read(0x0f), 0x0a, "the shutdown status");
        out8(0xcf9, 2);
        out8(0xcf9, 6);
    });
}
