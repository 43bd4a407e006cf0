//! A reset with PALs registered, one of them running: the next system finds nothing of them in memory.
//! cpus: 2
//! hypapp: trustvisor
//! resets: yes
//! bare: no
#![no_std]
#![no_main]

use guest::canary::{self, Vault, call};
use guest::cpu::{out8, wait};
use guest::memory::{read64, write64};
use guest::pal::{PAGE, PALS};
use guest::run::USER_BASE;
use guest::{Mode, check, check_eq, guest, reset, run, smp};

guest!(main);

const ROUNDS: u64 = 100_000_000;
/// Behind both PALs, so that it shows that memory outlives the reset.
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
    check!(smp::start_others(1), "two CPUs");
    let [idle, _] = [0, 1].map(Vault::open);
    check!(idle.knows(), "a PAL has the canary");
    smp::begin_on(1, hold);
    wait(300_000);
    check!(!smp::is_ready(1), "the other CPU runs its PAL");
    guest::println!("first boot");
    out8(0xcf9, 2);
    out8(0xcf9, 6);
    wait(smp::PATIENCE);
    check!(false, "the machine was not reset");
}

fn hold() {
    let vault = Vault { at: PALS + 4 * PAGE, entry: USER_BASE + PALS + 4 * PAGE };
    let _ = run(Mode::User64, call(), &mut vault.registers(ROUNDS));
}
