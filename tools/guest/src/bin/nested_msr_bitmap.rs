//! Control merge: MSR and I/O bitmaps of L1 decide which accesses of L2 leave, at every entry as they are then.
//! cmdline: nested=on
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "numbers of registers and ports, which are small")]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::cpu::{in8, rdmsr_existing, wrmsr_existing};
use guest::vmx::prelude::*;
use guest::vmx::{allocate, read, write};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const WRITE_BITS: u64 = 2048;
const HIGH_BITS: u64 = 1024;
/// Registers that L2 may write with what it read.
const MSRS: [Msr; 4] =
    [Msr::IA32_KERNEL_GS_BASE, Msr::IA32_LSTAR, Msr::IA32_SYSENTER_ESP, Msr::IA32_SYSENTER_CS];

static NUMBER: AtomicU64 = AtomicU64::new(0);
static PAGE: AtomicU64 = AtomicU64::new(0);

fn main() {
    enter_operation();
    let mut nested = Guest::new(access);
    let bitmap = allocate();
    nested.write(vmcs::MSR_BITMAPS, bitmap);
    each_register(&mut nested, bitmap);
    again_and_again(&mut nested, bitmap);
    several(&mut nested);
    nested.write(vmcs::MSR_BITMAPS, bitmap);
    written_by_l2(&mut nested, bitmap);
    ports(&mut nested);
    leave_operation();
}

/// Byte offset and mask of a register's bit for reads.
fn place(msr: Msr) -> (u64, u64) {
    let (number, base) = match msr.0 {
        number @ 0..=0x1fff => (u64::from(number), 0),
        number => (u64::from(number & 0x1fff), HIGH_BITS),
    };
    let bit = base * 8 + number;
    (bit / 64 * 8, 1 << (bit % 64))
}

fn set(bitmap: u64, msr: Msr, is_read: bool, is_write: bool) {
    let (offset, mask) = place(msr);
    for (offset, is_set) in [(offset, is_read), (offset + WRITE_BITS, is_write)] {
        let word = read(bitmap + offset) & !mask;
        write(bitmap + offset, word | if is_set { mask } else { 0 });
    }
}

/// L2: reads a register and writes it back.
extern "C" fn access() {
    let msr = Msr(NUMBER.load(Ordering::SeqCst) as u32);
    wrmsr_existing(msr, rdmsr_existing(msr));
}

/// Runs L2, and tells whether its read and its write left.
fn exits(nested: &mut Guest, msr: Msr) -> (bool, bool) {
    NUMBER.store(msr.0.into(), Ordering::SeqCst);
    nested.call(access);
    let mut seen = (false, false);
    for _ in 0..3 {
        match nested.run() {
            ExitReason::RDMSR => {
                seen.0 = true;
                let value = rdmsr_existing(msr);
                nested.registers.rax = value & 0xffff_ffff;
                nested.registers.rdx = value >> 32;
            }
            ExitReason::WRMSR => seen.1 = true,
            _ => break,
        }
        check_eq!(nested.registers.rcx & 0xffff_ffff, u64::from(msr.0), "register of an exit");
        nested.advance();
    }
    check!(nested.has_ended(), "{msr:?}: L2 does not end");
    seen
}

fn each_register(nested: &mut Guest, bitmap: u64) {
    for msr in MSRS {
        for wanted in [(false, false), (true, false), (false, true), (true, true), (false, false)] {
            set(bitmap, msr, wanted.0, wanted.1);
            check_eq!(exits(nested, msr), wanted, "{msr:?}");
        }
    }
    // Its neighbours are other registers.
    let msr = Msr::IA32_KERNEL_GS_BASE;
    for neighbour in [Msr(msr.0 - 1), Msr(msr.0 + 1)] {
        set(bitmap, neighbour, true, true);
        check_eq!(exits(nested, msr), (false, false), "{neighbour:?} for {msr:?}");
        set(bitmap, neighbour, false, false);
    }
}

/// More often than a hypervisor beneath may care to follow by traps.
fn again_and_again(nested: &mut Guest, bitmap: u64) {
    let msr = Msr::IA32_KERNEL_GS_BASE;
    for round in 0..50 {
        let is_wanted = round % 3 == 1;
        set(bitmap, msr, is_wanted, false);
        check_eq!(exits(nested, msr), (is_wanted, false), "round {round}");
    }
    set(bitmap, msr, false, false);
}

/// One bitmap for each of several virtual processors, by turns.
fn several(nested: &mut Guest) {
    let msr = Msr::IA32_LSTAR;
    let bitmaps: [u64; 7] = core::array::from_fn(|_| allocate());
    for round in 0..4 {
        for (index, &bitmap) in bitmaps.iter().enumerate() {
            let is_wanted = (index + round) % 2 == 0;
            set(bitmap, msr, is_wanted, !is_wanted);
        }
        for (index, &bitmap) in bitmaps.iter().enumerate() {
            let is_wanted = (index + round) % 2 == 0;
            nested.write(vmcs::MSR_BITMAPS, bitmap);
            check_eq!(exits(nested, msr), (is_wanted, !is_wanted), "bitmap {index} in round {round}");
        }
    }
}

/// L2: sets all bits of the page.
extern "C" fn fill() {
    let page = PAGE.load(Ordering::SeqCst);
    for offset in (0..4096).step_by(8) {
        write(page + offset, !0);
    }
}

fn written_by_l2(nested: &mut Guest, bitmap: u64) {
    let msr = Msr::IA32_LSTAR;
    set(bitmap, msr, false, false);
    check_eq!(exits(nested, msr), (false, false), "before L2 writes");
    PAGE.store(bitmap, Ordering::SeqCst);
    nested.call(fill);
    check_eq!(nested.run(), ExitReason::VMCALL, "L2 writes");
    check_eq!(read(bitmap + 4088), !0, "what L2 wrote");
    check_eq!(exits(nested, msr), (true, true), "after L2 wrote");
    for offset in (0..4096).step_by(8) {
        write(bitmap + offset, 0);
    }
    check_eq!(exits(nested, msr), (false, false), "after L1 wrote");
}

/// L2: reads a port.
extern "C" fn read_port() {
    let _ = in8(NUMBER.load(Ordering::SeqCst) as u16);
}

fn port_exits(nested: &mut Guest, port: u64) -> bool {
    NUMBER.store(port, Ordering::SeqCst);
    nested.call(read_port);
    let reason = nested.run();
    if reason == ExitReason::IO_INSTRUCTION {
        check_eq!(nested.read(vmcs::EXIT_QUALIFICATION) >> 16, port, "port of an exit");
        nested.advance();
        nested.run();
    }
    check!(nested.has_ended(), "port {port:#x}: L2 does not end");
    reason == ExitReason::IO_INSTRUCTION
}

fn ports(nested: &mut Guest) {
    const PORTS: [u64; 4] = [0x61, 0x80, 0x8001, 0xfffe];
    let bitmaps = [allocate(), allocate()];
    nested.write(vmcs::IO_BITMAP_A, bitmaps[0]);
    nested.write(vmcs::IO_BITMAP_B, bitmaps[1]);
    for port in PORTS {
        check_eq!(port_exits(nested, port), false, "port {port:#x} without bitmaps");
    }
    assert!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "the processor has no I/O bitmaps");
    for port in PORTS {
        let place = bitmaps[(port >> 15) as usize] + (port & 0x7fff) / 64 * 8;
        for is_wanted in [false, true, false] {
            write(place, if is_wanted { 1 << (port % 64) } else { 0 });
            check_eq!(port_exits(nested, port), is_wanted, "port {port:#x}");
        }
    }
    nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_IO_BITMAPS.bits());
    assert!(nested.add_primary(PrimaryControls::UNCONDITIONAL_IO_EXITING), "no unconditional I/O exiting");
    for port in PORTS {
        check_eq!(port_exits(nested, port), true, "port {port:#x}, unconditionally");
    }
}
