//! Exits from a compartment, which the core answers with nothing: all go to the hypapp.
//!
//! CPUID and hypercalls come to the hypapp as they do from elsewhere.

use super::{CompartmentExit, Exit};
use crate::hypapp::Hypapp;
use crate::vcpu::Vcpu;

/// Whether the core has still to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// It has not.
    Handled,
    /// It does what it would outside a compartment.
    Chained,
}

/// Calls the hypapp.
pub(crate) fn handle(vcpu: &mut dyn Vcpu, hypapp: &dyn Hypapp, exit: Exit) -> Inside {
    let (told, inside) = match exit {
        Exit::Nmi => return Inside::Chained,
        Exit::Init => (CompartmentExit::Init, Inside::Chained),
        Exit::Exception(event) => (CompartmentExit::Exception(event), Inside::Handled),
        Exit::SecondLevelViolation(violation) => (CompartmentExit::Violation(violation), Inside::Handled),
        Exit::TimeOver | Exit::ExternalInterrupt | Exit::InterruptWindow | Exit::NmiWindow => {
            (CompartmentExit::TimeOver, Inside::Handled)
        }
        _ => (CompartmentExit::Forbidden, Inside::Handled),
    };
    hypapp.compartment_exit(vcpu, told);
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::SecondLevelViolation;
    use crate::vcpu::fake::FakeVcpu;
    use std::sync::Mutex;
    use x86::address::GuestPhysAddr;
    use x86::event::Event;
    use x86::msr::Msr;

    struct Witness(Mutex<Vec<CompartmentExit>>);
    impl Hypapp for Witness {
        fn compartment_exit(&self, _: &mut dyn Vcpu, exit: CompartmentExit) {
            self.0.lock().unwrap().push(exit);
        }
    }

    #[test]
    fn the_hypapp_hears_of_all_but_nmis_and_the_core_of_init() {
        let witness = Witness(Mutex::default());
        let mut vcpu = FakeVcpu::long_mode();
        let mut tell = |exit| handle(&mut vcpu, &witness, exit);
        assert_eq!(tell(Exit::Nmi), Inside::Chained);
        assert_eq!(tell(Exit::Init), Inside::Chained);
        assert_eq!(tell(Exit::Exception(Event::GP0)), Inside::Handled);
        let violation = SecondLevelViolation {
            gpa: GuestPhysAddr::new(0x5000),
            gla: None,
            is_read: true,
            is_write: false,
            is_fetch: false,
            is_walk: false,
        };
        assert_eq!(tell(Exit::SecondLevelViolation(violation)), Inside::Handled);
        assert_eq!(tell(Exit::TimeOver), Inside::Handled);
        assert_eq!(tell(Exit::ExternalInterrupt), Inside::Handled);
        assert_eq!(tell(Exit::WriteMsr { msr: Msr(0x10), value: 0 }), Inside::Handled);
        assert_eq!(tell(Exit::TripleFault), Inside::Handled);
        let told = witness.0.into_inner().unwrap();
        let (over, forbidden) = (CompartmentExit::TimeOver, CompartmentExit::Forbidden);
        let exception = CompartmentExit::Exception(Event::GP0);
        let violation = CompartmentExit::Violation(violation);
        assert_eq!(told, [CompartmentExit::Init, exception, violation, over, over, forbidden, forbidden]);
    }
}
