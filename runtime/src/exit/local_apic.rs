//! The local APIC's part of INIT (SDM, "Local APIC State After It Receives an INIT Reset").
//!
//! An INIT that becomes an exit leaves the APIC as it was, so its registers are reset here, one by one. Two
//! things no register gives away: the interrupt command keeps the last command, for writing it would send
//! one; and an interrupt that was requested and not yet taken stays requested. Decision: the APIC is not
//! switched off and on for their sake. That would throw away an NMI or a start-up IPI that arrives meanwhile.

use hw::ApicRegisters;
use x86::apic::offset::{
    COMMAND_HIGH, DESTINATION_FORMAT, END_OF_INTERRUPT, ERROR_STATUS, IN_SERVICE, LOGICAL_DESTINATION,
    LVT_CMCI, LVT_COUNTERS, LVT_ERROR, LVT_LINT0, LVT_LINT1, LVT_THERMAL, LVT_TIMER, SPURIOUS, TASK_PRIORITY,
    TIMER_DIVIDE, TIMER_INITIAL, VERSION,
};
use x86::apic::{LocalVector, Spurious, Version};

/// The local vector table in the order in which processors got its entries: timer, LINT0, LINT1, error,
/// performance counters, thermal sensor, corrected machine checks.
const VECTOR_TABLE: [u16; 7] =
    [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNTERS, LVT_THERMAL, LVT_CMCI];

/// Spurious-interrupt register after INIT: vector 255, APIC disabled by software.
const SPURIOUS_AFTER_INIT: u32 = 0xff;
const VECTORS: usize = 256;

/// Stops the APIC from taking interrupts, of its own sources and of others: what INIT brings that shows to the rest of the
/// machine before a start-up IPI. It still takes NMI, INIT and start-up IPIs.
pub fn disable(apic: &impl ApicRegisters) {
    // Disabled by software, it masks all of the local vector table (SDM, "Local APIC State After It Has Been Software
    // Disabled").
    apic.write(SPURIOUS, SPURIOUS_AFTER_INIT);
}

/// Resets the APIC as INIT does: everything but its ID and mode.
pub fn reset(apic: &impl ApicRegisters) {
    let version = apic.read(VERSION);
    let entries = (version >> 16 & 0xff) as usize + 1;
    for &entry in VECTOR_TABLE.iter().take(entries) {
        apic.write(entry, LocalVector::MASKED.bits());
    }
    // INIT tells no I/O APIC that an interrupt was served. An end of interrupt does, unless that is suppressed before it
    // (SDM, "Signaling Interrupt Servicing Completion").
    if Version::from_bits_retain(version).contains(Version::HAS_EOI_SUPPRESSION) {
        apic.write(SPURIOUS, apic.read(SPURIOUS) | Spurious::EOI_SUPPRESSION.bits());
    }
    end_service(apic);
    for (register, value) in [
        (TIMER_INITIAL, 0),
        (TIMER_DIVIDE, 0),
        (TASK_PRIORITY, 0),
        (LOGICAL_DESTINATION, 0),
        (DESTINATION_FORMAT, u32::MAX),
        (COMMAND_HIGH, 0),
        // Not before the last end of interrupt, for which the register has to suppress broadcasts.
        (SPURIOUS, SPURIOUS_AFTER_INIT),
        // Each write shows, and so forgets, what happened before it.
        (ERROR_STATUS, 0),
        (ERROR_STATUS, 0),
    ] {
        apic.write(register, value);
    }
}

/// Ends every interrupt in service.
fn end_service(apic: &impl ApicRegisters) {
    for _ in 0..VECTORS {
        if IN_SERVICE.iter().all(|&register| apic.read(register) == 0) {
            return;
        }
        apic.write(END_OF_INTERRUPT, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::collections::BTreeMap;

    /// An APIC in use: every register that is not given is 5aH, and EOI ends the highest vector in service.
    struct Apic {
        registers: RefCell<BTreeMap<u16, u32>>,
        ends: RefCell<Vec<(usize, u32)>>,
    }

    impl Apic {
        fn new(version: u32, in_service: &[usize]) -> Self {
            let mut registers = BTreeMap::from(IN_SERVICE.map(|register| (register, 0)));
            registers.insert(VERSION, version);
            registers.insert(SPURIOUS, 0x1ef);
            for vector in in_service {
                *registers.entry(IN_SERVICE[vector / 32]).or_default() |= 1 << (vector % 32);
            }
            Self { registers: RefCell::new(registers), ends: RefCell::default() }
        }
    }

    impl ApicRegisters for Apic {
        fn read(&self, offset: u16) -> u32 {
            self.registers.borrow().get(&offset).copied().unwrap_or(0x5a)
        }

        fn write(&self, offset: u16, value: u32) {
            if offset != END_OF_INTERRUPT {
                self.registers.borrow_mut().insert(offset, value);
                return;
            }
            let vector = (0..VECTORS).rev().find(|v| self.read(IN_SERVICE[v / 32]) >> (v % 32) & 1 != 0);
            let vector = vector.unwrap();
            let left = self.read(IN_SERVICE[vector / 32]) & !(1 << (vector % 32));
            self.ends.borrow_mut().push((vector, self.read(SPURIOUS)));
            self.registers.borrow_mut().insert(IN_SERVICE[vector / 32], left);
        }
    }

    #[test]
    fn the_manuals_state() {
        let apic = Apic::new(6 << 16 | 0x15, &[0x31, 0x32, 0xef]);
        reset(&apic);
        let ones = [(DESTINATION_FORMAT, u32::MAX), (SPURIOUS, 0xff)];
        let zeros = [TASK_PRIORITY, LOGICAL_DESTINATION, ERROR_STATUS, TIMER_INITIAL, TIMER_DIVIDE];
        let zeros = zeros.into_iter().chain(IN_SERVICE).map(|register| (register, 0));
        let masked = VECTOR_TABLE.map(|register| (register, 1 << 16));
        for (register, value) in zeros.chain(ones).chain(masked) {
            assert_eq!(apic.read(register), value, "register {register:#x}");
        }
        // The ID stays, and no command is sent.
        assert_eq!((apic.read(0x20), apic.read(0x300)), (0x5a, 0x5a));
    }

    #[test]
    fn a_disabled_apic_is_disabled_by_one_write() {
        let apic = Apic::new(6 << 16 | 0x15, &[0x31]);
        let before = apic.registers.borrow().clone();
        disable(&apic);
        let mut after = apic.registers.borrow().clone();
        assert_eq!(after.insert(SPURIOUS, before[&SPURIOUS]), Some(0xff));
        assert_eq!(after, before);
        assert!(apic.ends.borrow().is_empty());
    }

    #[test]
    fn entries_that_the_processor_lacks_are_left_alone() {
        let apic = Apic::new(3 << 16 | 0x14, &[]);
        reset(&apic);
        let masked = VECTOR_TABLE.map(|register| apic.read(register) == 1 << 16);
        assert_eq!(masked, [true, true, true, true, false, false, false]);
    }

    #[test]
    fn devices_are_not_told_early_that_an_interrupt_was_served() {
        for (version, spurious) in [(5 << 16, 0x1ef), (5 << 16 | 1 << 24, 0x11ef)] {
            let apic = Apic::new(version, &[0x31, 0xef]);
            reset(&apic);
            assert_eq!(*apic.ends.borrow(), [(0xef, spurious), (0x31, spurious)]);
        }
        let apic = Apic::new(5 << 16 | 1 << 24, &[0x31]);
        apic.write(SPURIOUS, 0x11ef);
        reset(&apic);
        assert_eq!(*apic.ends.borrow(), [(0x31, 0x11ef)], "one that is suppressed already");
    }

    #[test]
    fn an_apic_that_answers_anything_is_not_waited_for() {
        struct Stuck;
        impl ApicRegisters for Stuck {
            fn read(&self, _offset: u16) -> u32 {
                u32::MAX
            }
            fn write(&self, _offset: u16, _value: u32) {}
        }
        reset(&Stuck);
    }
}
