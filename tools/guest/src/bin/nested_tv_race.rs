//! Another processor writes to a PAL of a guest's guest while that runs: the call fails, and nobody learns anything.
//! cpus: 2
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::canary::{self, Vault, is_in_nested};
use guest::cpu::{wait, wait_until};
use guest::memory::{read64, write64};
use guest::pal::{self, CF, PAGE, PALS};
use guest::run::USER_BASE;
use guest::smp;
use guest::vmx::Ept;
use guest::vmx::prelude::*;
use trustvisor::call::Failure;

guest!(main);

const ROUNDS: u64 = 100_000_000;
const VAULT: Vault = Vault { at: PALS, entry: USER_BASE + PALS };
const WORD: u64 = 0x1122_3344_5566_7788;

static HAS_EPT: AtomicBool = AtomicBool::new(false);
static IS_OPEN: AtomicBool = AtomicBool::new(false);
/// What the call came to: EAX, and CF above.
static OUTCOME: AtomicU64 = AtomicU64::new(0);
/// What the writer found before it wrote.
static FOUND: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    enter_operation();
    let ept = Ept::identity();
    let mut writer = Guest::new(overwrite);
    writer.use_ept(&ept);
    for has_ept in [false, true] {
        for round in 0..4 {
            HAS_EPT.store(has_ept, Ordering::SeqCst);
            IS_OPEN.store(false, Ordering::SeqCst);
            OUTCOME.store(0, Ordering::SeqCst);
            smp::begin_on(1, hypervisor);
            check!(wait_until(smp::PATIENCE, || IS_OPEN.load(Ordering::SeqCst)), "the other CPU has a PAL");
            wait(200_000 + 50_000 * round);
            check!(!smp::is_ready(1), "the other CPU runs its PAL");
            if round % 2 == 0 {
                overwrite();
            } else {
                writer.call(overwrite);
                check_eq!(writer.run(), ExitReason::VMCALL, "a guest's guest writes");
            }
            let what = format_args!("EPT {has_ept}, round {round}");
            check_eq!(FOUND.load(Ordering::SeqCst), 0, "{what}: what the writer found");
            check_eq!(read64(VAULT.at + PAGE), Ok(WORD), "{what}: what it wrote");
            check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "{what}: the other CPU ends");
            let revoked = 1 << 32 | u64::from(Failure::REVOKED.0);
            check_eq!(OUTCOME.load(Ordering::SeqCst), revoked, "{what}: what the call came to");
            canary::is_nowhere("behind a write");
        }
    }
    leave_operation();
}

/// L1 or L2 on the first CPU.
extern "C" fn overwrite() {
    FOUND.store(read64(VAULT.at + PAGE).unwrap_or(1), Ordering::SeqCst);
    let _ = write64(VAULT.at + PAGE, WORD);
}

/// The other CPU: whatever becomes of its guest's PAL, nothing leaves.
fn hypervisor() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(hold);
    if HAS_EPT.load(Ordering::SeqCst) {
        nested.use_ept(&ept);
    }
    let reason = nested.run();
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "ends with {}", reason.name());
    check!(!is_in_nested(&nested.registers), "registers at the end");
    nested.clear();
    leave_operation();
}

/// L2 there.
extern "C" fn hold() {
    pal::bear_offset(true);
    let vault = Vault::open(0);
    IS_OPEN.store(true, Ordering::SeqCst);
    let (eax, carry) = vault.held(ROUNDS).unwrap_or((0, 0));
    OUTCOME.store((carry / CF) << 32 | u64::from(eax), Ordering::SeqCst);
    check_eq!(vault.answer(), Ok((Failure::DEAD.0, CF)), "another call");
    check_eq!(vault.unregister(), 0, "unregistering");
}
