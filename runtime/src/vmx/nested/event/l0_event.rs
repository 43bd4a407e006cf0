//! An event that the hypervisor raises in L2, combined with what was being delivered: L2 takes it, or L1 has an exit.

use crate::vmx::inject::Shutdown;
use crate::vmx::nested::exit::reflect::ExitFacts;
use crate::vmx::nested::exit::route;
use hw::Vmcs;
use x86::event::{Event, Vector};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::{Interruption, InterruptionType};

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    /// L2 takes it.
    Inject(Event),
    /// L1 has this exit.
    Exit(ExitFacts),
}

/// Returns what becomes of `combined`. A processor that could take no event shuts down, and that is L2's: L1 has the
/// exit of a triple fault, whatever it was that L2 could not be given.
pub(crate) fn raise(vmcs12: &impl Vmcs, combined: Result<Event, Shutdown>) -> Raised {
    let event = match combined {
        Ok(event) => event,
        Err(Shutdown) => return Raised::Exit(ExitFacts::new(ExitReason::TRIPLE_FAULT, 0)),
    };
    let (vector, error_code, qualification) = match event {
        Event::Exception { vector, error_code } => (vector, error_code, 0),
        Event::PageFault { address, error_code } => (Vector::PF, Some(error_code), address),
        Event::Nmi => return Raised::Inject(event),
    };
    if !route::wants_exception(vmcs12, vector, || error_code.unwrap_or_default()) {
        return Raised::Inject(event);
    }
    let kind = InterruptionType::HARDWARE_EXCEPTION;
    Raised::Exit(ExitFacts {
        reason: ExitReason::EXCEPTION_OR_NMI,
        qualification,
        interruption: Interruption::new(vector.0, kind, error_code.is_some()),
        error_code: error_code.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimVmcs;
    use x86::vmx::vmcs;

    #[test]
    fn a_shutdown_of_l2_is_l1s_triple_fault_whatever_it_intercepts() {
        for intercepted in [0, !0] {
            let mut vmcs12 = SimVmcs::default();
            vmcs12.write(vmcs::EXCEPTION_BITMAP, intercepted);
            let expected = ExitFacts::new(ExitReason::TRIPLE_FAULT, 0);
            assert_eq!(raise(&vmcs12, Err(Shutdown)), Raised::Exit(expected));
        }
    }

    #[test]
    fn an_exception_exits_where_l1_intercepts_it() {
        let mut vmcs12 = SimVmcs::default();
        assert_eq!(raise(&vmcs12, Ok(Event::GP0)), Raised::Inject(Event::GP0));
        vmcs12.write(vmcs::EXCEPTION_BITMAP, 1 << 13 | 1 << 14);
        let Raised::Exit(facts) = raise(&vmcs12, Ok(Event::GP0)) else { panic!("no exit") };
        assert_eq!((facts.reason, facts.interruption.0), (ExitReason::EXCEPTION_OR_NMI, 0x8000_0b0d));
        let fault = Event::PageFault { address: 0x1234, error_code: 2 };
        let Raised::Exit(facts) = raise(&vmcs12, Ok(fault)) else { panic!("no exit") };
        assert_eq!((facts.qualification, facts.interruption.0, facts.error_code), (0x1234, 0x8000_0b0e, 2));
    }
}
