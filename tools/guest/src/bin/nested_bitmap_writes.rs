//! Control merge: bitmaps of L1 that are written while L2 runs, by L2 itself or by another processor, decide over L2's
//! very next access.
//! cpus: 2
//! cmdline: nested=on
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "numbers of registers and ports, which are small")]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{in8, rdmsr_existing, wait_until};
use guest::smp;
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, read, write};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

/// Ports of bitmaps A and B; any register that reads as it is.
const PORTS: [u64; 4] = [0x61, 0x80, 0x8001, 0xfffe];
const MSR: Msr = Msr::IA32_LSTAR;
const MSR_BIT: u64 = 1024 * 8 + (MSR.0 & 0x1fff) as u64;
/// More often than a hypervisor beneath may care to follow by traps.
const ROUNDS: usize = 40;

/// Address and value of the word that is to be written.
static PLACE: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
/// The port that is read then; the register, where it is none.
static PORT: AtomicU64 = AtomicU64::new(0);
static TURN: AtomicU64 = AtomicU64::new(0);

fn main() {
    check!(smp::start_others(1), "two CPUs");
    enter_operation();
    let mut nested = Guest::new(write_and_access);
    let bitmaps: [u64; 3] = core::array::from_fn(|_| allocate());
    nested.write(vmcs::MSR_BITMAPS, bitmaps[0]);
    nested.write(vmcs::IO_BITMAP_A, bitmaps[1]);
    nested.write(vmcs::IO_BITMAP_B, bitmaps[2]);
    assert!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "the processor has no I/O bitmaps");
    each(&mut nested, bitmaps, "in L1's memory");
    let ept = Ept::identity();
    nested.use_ept(&ept);
    each(&mut nested, bitmaps, "under EPT");
    by_another(&mut nested, bitmaps);
    leave_operation();
}

/// Each bitmap, written by L2 just before its access, to and fro.
fn each(nested: &mut Guest, bitmaps: [u64; 3], how: &str) {
    for round in 0..ROUNDS {
        for port in PORTS {
            let is_wanted = round % 2 == 0;
            let bitmap = bitmaps[1 + (port >> 15) as usize];
            let seen = access(nested, bitmap, port & 0x7fff, is_wanted, port);
            check_eq!(seen, is_wanted, "{how}, round {round}, port {port:#x}");
        }
        let is_wanted = round % 2 == 0;
        check_eq!(access(nested, bitmaps[0], MSR_BIT, is_wanted, 0), is_wanted, "{how}, round {round}, MSR");
    }
}

/// Whether L2's access leaves after L2 has set or cleared `bit` of `bitmap`.
fn access(nested: &mut Guest, bitmap: u64, bit: u64, is_wanted: bool, port: u64) -> bool {
    let place = bitmap + bit / 64 * 8;
    let word = read(place) & !(1 << (bit % 64));
    PLACE.store(place, Ordering::SeqCst);
    VALUE.store(word | u64::from(is_wanted) << (bit % 64), Ordering::SeqCst);
    PORT.store(port, Ordering::SeqCst);
    nested.call(write_and_access);
    finish(nested)
}

fn finish(nested: &mut Guest) -> bool {
    let reason = nested.run();
    let has_left = matches!(reason, ExitReason::IO_INSTRUCTION | ExitReason::RDMSR);
    if has_left {
        nested.advance();
        nested.run();
    }
    check!(nested.has_ended(), "L2 does not end: {reason:?}");
    has_left
}

/// L2.
extern "C" fn write_and_access() {
    write(PLACE.load(Ordering::SeqCst), VALUE.load(Ordering::SeqCst));
    match PORT.load(Ordering::SeqCst) {
        0 => _ = rdmsr_existing(MSR),
        port => _ = in8(port as u16),
    }
}

/// The other processor writes when L2 asks for it, and L2 goes on once that is done.
fn by_another(nested: &mut Guest, bitmaps: [u64; 3]) {
    smp::begin_on(1, write_at_each_turn);
    for round in 0..ROUNDS {
        let is_wanted = round % 2 == 0;
        let place = bitmaps[1] + 0x80 / 64 * 8;
        PLACE.store(place, Ordering::SeqCst);
        VALUE.store(if is_wanted { 1 } else { 0 }, Ordering::SeqCst);
        PORT.store(0x80, Ordering::SeqCst);
        nested.call(await_and_access);
        check_eq!(finish(nested), is_wanted, "by another processor, round {round}");
    }
    TURN.store(u64::MAX, Ordering::SeqCst);
    check!(wait_until(smp::PATIENCE, || smp::is_ready(1)), "the other CPU ends");
}

/// L2.
extern "C" fn await_and_access() {
    let turn = TURN.load(Ordering::SeqCst);
    TURN.store(turn + 1, Ordering::SeqCst);
    let _ = wait_until(smp::PATIENCE, || TURN.load(Ordering::SeqCst) == turn + 2);
    let _ = in8(PORT.load(Ordering::SeqCst) as u16);
}

fn write_at_each_turn() {
    loop {
        match TURN.load(Ordering::SeqCst) {
            u64::MAX => return,
            turn if turn % 2 == 1 => {
                write(PLACE.load(Ordering::SeqCst), VALUE.load(Ordering::SeqCst));
                TURN.store(turn + 1, Ordering::SeqCst);
            }
            _ => core::hint::spin_loop(),
        }
    }
}
