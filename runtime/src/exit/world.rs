//! Exits from a world, which the core answers with nothing: all go to the hypapp.
//!
//! CPUID and VMCALL come to the hypapp as they do from elsewhere.

use super::{Exit, WorldExit};
use crate::hypapp::Hypapp;
use crate::vcpu::Vcpu;

/// Whether the core has still to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// It has not.
    Handled,
    /// It does what it would outside a world.
    Chained,
}

/// Calls the hypapp.
pub(crate) fn handle(vcpu: &mut dyn Vcpu, hypapp: &dyn Hypapp, exit: Exit) -> Inside {
    let (told, inside) = match exit {
        Exit::Nmi => return Inside::Chained,
        Exit::Init => (WorldExit::Init, Inside::Chained),
        Exit::Exception(event) => (WorldExit::Exception(event), Inside::Handled),
        Exit::SecondLevelViolation(violation) => (WorldExit::Violation(violation), Inside::Handled),
        Exit::TimeOver | Exit::ExternalInterrupt | Exit::InterruptWindow | Exit::NmiWindow => {
            (WorldExit::TimeOver, Inside::Handled)
        }
        _ => (WorldExit::Forbidden, Inside::Handled),
    };
    hypapp.world_exit(vcpu, told);
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::fake::FakeVcpu;
    use std::sync::Mutex;
    use x86::event::Event;
    use x86::msr::Msr;

    struct Witness(Mutex<Vec<WorldExit>>);
    impl Hypapp for Witness {
        fn world_exit(&self, _: &mut dyn Vcpu, exit: WorldExit) {
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
        assert_eq!(tell(Exit::TimeOver), Inside::Handled);
        assert_eq!(tell(Exit::ExternalInterrupt), Inside::Handled);
        assert_eq!(tell(Exit::WriteMsr { msr: Msr(0x10), value: 0 }), Inside::Handled);
        assert_eq!(tell(Exit::TripleFault), Inside::Handled);
        let told = witness.0.into_inner().unwrap();
        let (over, forbidden) = (WorldExit::TimeOver, WorldExit::Forbidden);
        let exception = WorldExit::Exception(Event::GP0);
        assert_eq!(told, [WorldExit::Init, exception, over, over, forbidden, forbidden]);
    }
}
