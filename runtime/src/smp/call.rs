//! How one CPU calls another out of its guest: by an NMI to its local APIC ID, and where that has no effect, by one to
//! every CPU.
//!
//! A guest may give a local APIC another ID where the processor lets it (SDM, "Local APIC ID"), and nobody is told. The
//! CPU is then found by an NMI to all, and says what its ID is by now.

use hw::apic::Destination;

/// A CPU that can be called.
pub(crate) trait Callee {
    /// Returns the local APIC ID that it is known by.
    fn apic_id(&self) -> u32;
    /// Notes that an NMI of ours is under way to it; whether one was already.
    fn expect_nmi(&self) -> bool;
    /// Makes it look around before it next enters its guest.
    fn demand_attention(&self);
    /// Makes it say its local APIC ID anew when it looks around.
    fn doubt_id(&self);
}

/// Calls `cpu`, unless it has been and not come yet.
pub(crate) fn call(cpu: &impl Callee, send: impl FnOnce(Destination)) {
    // A CPU that is in the hypervisor looks around before it enters its guest, even where the NMI is blocked.
    cpu.demand_attention();
    // Expected before it is sent: it may arrive at once, and an NMI that nobody expects is the guest's.
    if !cpu.expect_nmi() {
        send(Destination::Cpu(cpu.apic_id()));
    }
}

/// Calls `cpu` for the `attempt`th time since it was expected: by its ID, in case its NMI was blocked, and every other
/// time with all `others`, one of which it is.
pub(crate) fn call_again<'a, C: Callee + 'a>(
    cpu: &'a C,
    others: impl Iterator<Item = &'a C>,
    attempt: u32,
    send: impl FnOnce(Destination),
) {
    if attempt.is_multiple_of(2) {
        cpu.expect_nmi();
        return send(Destination::Cpu(cpu.apic_id()));
    }
    for cpu in others {
        // All of them, as each gets the NMI, and would take one that it does not expect for its guest's.
        cpu.demand_attention();
        cpu.expect_nmi();
        cpu.doubt_id();
    }
    send(Destination::Others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};

    /// A CPU whose local APIC has an ID that is not what it is known by.
    #[derive(Debug)]
    struct Cpu {
        id: Cell<u32>,
        known: Cell<u32>,
        is_expecting: Cell<bool>,
        is_doubted: Cell<bool>,
        arrivals: Cell<u32>,
        guest_nmis: Cell<u32>,
    }

    impl Cpu {
        fn new(id: u32) -> Self {
            Self {
                id: Cell::new(id),
                known: Cell::new(id),
                is_expecting: Cell::default(),
                is_doubted: Cell::default(),
                arrivals: Cell::default(),
                guest_nmis: Cell::default(),
            }
        }

        /// Takes an NMI, and looks around if it is ours.
        fn take(&self) {
            if !self.is_expecting.replace(false) {
                return self.guest_nmis.set(self.guest_nmis.get() + 1);
            }
            self.arrivals.set(self.arrivals.get() + 1);
            if self.is_doubted.replace(false) {
                self.known.set(self.id.get());
            }
        }
    }

    impl Callee for Cpu {
        fn apic_id(&self) -> u32 {
            self.known.get()
        }
        fn expect_nmi(&self) -> bool {
            self.is_expecting.replace(true)
        }
        fn demand_attention(&self) {}
        fn doubt_id(&self) {
            self.is_doubted.set(true);
        }
    }

    /// Three CPUs beside the caller, of which the one in the middle has moved to another ID, and who was sent what.
    struct Fixture {
        cpus: [Cpu; 3],
        sent: RefCell<Vec<Destination>>,
    }

    impl Fixture {
        fn new() -> Self {
            let machine = Self { cpus: [1, 2, 3].map(Cpu::new), sent: RefCell::default() };
            machine.cpus[1].id.set(9);
            machine
        }

        fn send(&self, to: Destination) {
            self.sent.borrow_mut().push(to);
            self.cpus
                .iter()
                .filter(|cpu| to == Destination::Others || to == Destination::Cpu(cpu.id.get()))
                .for_each(Cpu::take);
        }
    }

    #[test]
    fn a_cpu_that_moved_to_another_id_is_found_and_called_by_that() {
        let machine = Fixture::new();
        let moved = &machine.cpus[1];
        call(moved, |to| machine.send(to));
        let mut attempt = 0;
        while moved.arrivals.get() == 0 {
            assert!(attempt < 4, "it is never found");
            call_again(moved, machine.cpus.iter(), attempt, |to| machine.send(to));
            attempt += 1;
        }
        call(moved, |to| machine.send(to));
        assert_eq!((moved.arrivals.get(), moved.apic_id()), (2, 9));
        let by_id = |id| Destination::Cpu(id);
        assert_eq!(*machine.sent.borrow(), [by_id(2), by_id(2), Destination::Others, by_id(9)]);
        assert!(machine.cpus.iter().all(|cpu| cpu.guest_nmis.get() == 0), "{:?}", machine.cpus);
    }

    #[test]
    fn a_cpu_that_has_not_come_yet_is_called_once() {
        let machine = Fixture::new();
        call(&machine.cpus[1], |to| machine.send(to));
        call(&machine.cpus[1], |to| machine.send(to));
        assert_eq!(machine.sent.borrow().len(), 1);
    }
}
