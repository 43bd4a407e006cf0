//! A guest's guest resets the machine while PALs of guests' guests live and run: the next system finds nothing of them.
//! cpus: 2
//! hypapp: trustvisor
//! resets: yes
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use guest::canary::{self, Vault};
use guest::cpu::{out8, wait, wait_until};
use guest::memory::{read64, write64};
use guest::pal::{self, PAGE, PALS};
use guest::vmx::Ept;
use guest::vmx::prelude::*;
use guest::{reset, smp};

guest!(main);

const ROUNDS: u64 = 100_000_000;
/// Behind both PALs, so that it shows that memory outlives the reset.
const MARKED: u64 = PALS + 8 * PAGE;
const MARK: u64 = 0x5eed_ac0d_e123_4567;

static IS_OPEN: AtomicBool = AtomicBool::new(false);

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
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(open);
    nested.use_ept(&ept);
    check_eq!(nested.run(), ExitReason::VMCALL, "a PAL with the canary");
    smp::begin_on(1, hypervisor);
    check!(wait_until(smp::PATIENCE, || IS_OPEN.load(Ordering::SeqCst)), "the other CPU has one");
    wait(300_000);
    check!(!smp::is_ready(1), "the other CPU runs its PAL");
    guest::println!("first boot");
    nested.call(end);
    let reason = nested.run();
    check!(false, "the machine was not reset: {}", reason.name());
}

/// The other CPU, without EPT.
fn hypervisor() {
    enter_operation();
    Guest::new(hold).run();
}

/// L2.
extern "C" fn open() {
    pal::bear_offset(true);
    check!(Vault::open(0).knows(), "a PAL has the canary");
}

extern "C" fn hold() {
    let vault = Vault::open(1);
    IS_OPEN.store(true, Ordering::SeqCst);
    let _ = vault.held(ROUNDS);
}

extern "C" fn end() {
    out8(0xcf9, 2);
    out8(0xcf9, 6);
    wait(smp::PATIENCE);
}
