//! A reset by the keyboard controller's command D1H with PALs registered: the next system finds nothing of them.
//! hypapp: trustvisor
//! resets: yes
//! bare: no
#![no_std]
#![no_main]

use guest::canary::{self, Vault};
use guest::cpu::{in8, out8, wait, wait_until};
use guest::memory::{read64, write64};
use guest::pal::{PAGE, PALS};
use guest::{check, check_eq, guest, reset, smp};

guest!(main);

/// Behind the PAL, so that it shows that memory outlives the reset.
const MARKED: u64 = PALS + 8 * PAGE;
const MARK: u64 = 0x5eed_ac0d_e123_4567;

fn main() {
    if reset::is_second_boot() {
        check_eq!(read64(MARKED), Ok(MARK), "what was no PAL's is still there");
        let left = (PALS..PALS + 8 * PAGE).step_by(8).filter(|&at| read64(at) != Ok(0)).count();
        check_eq!(left, 0, "words that are left in pages that were registered");
        canary::is_nowhere("after a reset");
        return;
    }
    let _ = write64(MARKED, MARK);
    let vault = Vault::open(0);
    check!(vault.knows(), "a PAL has the canary");
    // The same two bytes without the reset in them: address line 20 stays on.
    send(0xd1, 0xdf);
    check!(vault.knows(), "the output port was written");
    guest::println!("first boot");
    send(0xd1, 0xfe);
    wait(smp::PATIENCE);
    check!(false, "the machine was not reset");
}

/// Sends the keyboard controller a command and its data byte.
fn send(command: u8, data: u8) {
    let is_ready = || in8(0x64) & 2 == 0;
    check!(wait_until(smp::PATIENCE, is_ready), "the keyboard controller takes commands");
    out8(0x64, command);
    check!(wait_until(smp::PATIENCE, is_ready), "the keyboard controller takes data");
    out8(0x60, data);
}
