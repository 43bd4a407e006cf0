//! CPU 1's processor as the manual describes it, and what L1 may expect of it.

use super::*;
use crate::vmx::inject::{self, Shutdown};
use crate::vmx::nested::event::l0_event::{self, Raised};
use crate::vmx::nested::exit::reflect::{self, ExitFacts};
use crate::vmx::nested::vmcs12::Vmcs12;
use x86::event::Event;
use x86::vmx::controls::PinBasedControls;
use x86::vmx::exit_reason::ExitReason;

const BLOCKED: u32 = Interruptibility::BLOCKING_BY_NMI.bits();
/// What an earlier exit left in the VMCS of L2.
const STALE: u32 = 0x8000_0306;

impl Plan {
    pub(super) fn primary(&self) -> PrimaryControls {
        let mut primary = PrimaryControls::empty();
        primary.set(PrimaryControls::MONITOR_TRAP_FLAG, self.has_trap);
        primary.set(PrimaryControls::NMI_WINDOW_EXITING, self.has_window);
        primary
    }

    /// What L1 wrote.
    pub(super) fn vmcs12(&self) -> Vmcs12 {
        let mut vmcs12 = Vmcs12::new();
        let pins = match self.mode {
            Mode::Guest => PinBasedControls::empty(),
            Mode::Exiting => PinBasedControls::NMI_EXITING,
            Mode::Virtual => PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS,
        };
        vmcs12.write(vmcs::PIN_BASED_CONTROLS, pins.bits());
        vmcs12.write(vmcs::PRIMARY_CONTROLS, self.primary().bits());
        vmcs12.write(vmcs::GUEST_ACTIVITY, self.activity.0);
        vmcs12.write(vmcs::GUEST_INTERRUPTIBILITY, if self.is_blocked { BLOCKED } else { 0 });
        vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, self.event);
        vmcs12
    }

    fn event(&self) -> Option<InterruptionType> {
        Some(Interruption(self.event)).filter(|event| event.is_valid()).map(Interruption::kind)
    }
}

impl ModelState {
    fn asks(&self, control: PrimaryControls) -> bool {
        PrimaryControls::from_bits_retain(self.vmcs02.primary).contains(control)
    }

    /// VMRESUME.
    pub(super) fn enter(&mut self, plan: &Plan) -> Outcome<()> {
        if !self.is_l2 {
            self.place = Place::L1;
            if core::mem::take(&mut self.l1_injects_nmi) {
                self.nmis_taken += 1;
                self.l1_is_blocked = true;
            }
            return Ok(());
        }
        let event = Interruption(self.vmcs02.event);
        let is_inactive = self.vmcs02.activity != 0;
        let is_exception = event.is_valid() && event.kind() == InterruptionType::HARDWARE_EXCEPTION;
        let is_nmi = event.is_valid() && event.kind() == InterruptionType::NMI;
        if is_inactive && is_exception || is_nmi && self.vmcs02.interruptibility & BLOCKED != 0 {
            return Err("the processor refuses what the hypervisor made of L1's wishes");
        }
        if plan.fails {
            return self.fail(plan);
        }
        let mut has_trap = false;
        if event.is_valid() {
            self.vmcs02.event &= !(1 << 31);
            has_trap =
                event.kind() == InterruptionType::OTHER || self.asks(PrimaryControls::MONITOR_TRAP_FLAG);
            if event.kind() != InterruptionType::OTHER {
                self.vmcs02.activity = 0;
            }
            if is_nmi {
                self.vmcs02.interruptibility |= BLOCKED;
                self.nmis_taken += u8::from(self.pending.injects_nmi);
            }
        }
        self.place = Place::L2 { has_trap };
        Ok(())
    }

    /// The processor takes a signal where it is.
    pub(super) fn take_signal(&mut self, plan: &Plan) -> Outcome<bool> {
        match self.place {
            Place::L2 { .. } if self.is_waiting() => Ok(false),
            Place::L2 { .. } if self.init_pin => {
                self.init_pin = false;
                self.left_hardware();
                self.leave(plan, Told::Init).map(|()| true)
            }
            Place::L2 { has_trap } if self.nmi_pin && !has_trap && !self.has_window() => {
                self.left_hardware();
                self.place = Place::Looks;
                self.note_nmi();
                Ok(true)
            }
            Place::L1 if self.init_pin => {
                self.init_pin = false;
                self.pending.give_init();
                self.place = Place::Looks;
                Ok(true)
            }
            Place::L2 { .. } => Ok(false),
            _ if self.nmi_pin => {
                if self.place == Place::L1 {
                    self.place = Place::Looks;
                }
                self.note_nmi();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn note_nmi(&mut self) {
        self.nmi_pin = false;
        if !core::mem::take(&mut self.nmi_in_flight) {
            self.guest_nmi = true;
        }
        self.attention = true;
    }

    fn left_hardware(&mut self) {
        self.pending.left_hardware();
        self.resume();
    }

    fn has_window(&self) -> bool {
        self.asks(PrimaryControls::NMI_WINDOW_EXITING) && self.vmcs02.interruptibility & BLOCKED == 0
    }

    /// What L2 comes to where no signal is taken.
    pub(super) fn step_l2(&mut self, plan: &Plan, has_trap: bool, choice: u8) -> Outcome<bool> {
        if self.is_waiting() {
            if choice == 0 {
                self.left_hardware();
                self.leave(plan, Told::Startup)?;
            }
            return Ok(choice == 0);
        }
        if self.init_pin {
            return Ok(false);
        }
        if has_trap || self.has_window() {
            if choice == 0 {
                self.left_hardware();
                self.boundary(plan, has_trap)?;
            }
            return Ok(choice == 0);
        }
        if self.nmi_pin || self.vmcs02.activity != 0 {
            return Ok(false);
        }
        match choice {
            // VMCALL, which is L1's.
            0 => {
                self.left_hardware();
                self.leave(plan, Told::Other)?;
            }
            // The delivery of a double fault meets memory that is hidden.
            1 => {
                self.left_hardware();
                let vectoring = Interruption::new(8, InterruptionType::HARDWARE_EXCEPTION, true);
                let combined: Result<Event, Shutdown> = inject::combine(vectoring, Event::GP0);
                let raised = l0_event::raise(&plan.vmcs12(), combined);
                let expected = Raised::Exit(ExitFacts::new(ExitReason::TRIPLE_FAULT, 0));
                if raised != expected || plan.flaw == Flaw::ResetsForL2 {
                    return Err("L2's shutdown is no triple fault for L1");
                }
                self.leave(plan, Told::Other)?;
            }
            // IRET, or any instruction where the trap is set.
            _ => {
                let traps = self.asks(PrimaryControls::MONITOR_TRAP_FLAG);
                if self.vmcs02.interruptibility == 0 && !traps {
                    return Ok(false);
                }
                self.vmcs02.interruptibility = 0;
                self.place = Place::L2 { has_trap: traps };
            }
        }
        Ok(true)
    }

    /// An exit for the monitor trap flag, or an NMI window.
    fn boundary(&mut self, plan: &Plan, has_trap: bool) -> Outcome<()> {
        if !has_trap && plan.has_window {
            return self.leave(plan, Told::Window);
        }
        let was_injected = core::mem::take(&mut self.pending.has_injected_trap);
        if plan.flaw != Flaw::TakesInjectedTrap {
            self.pending.has_injected_trap = was_injected;
        } else if was_injected && !plan.has_trap {
            self.pending.give_nmi();
        }
        if has_trap && self.pending.trap_owner() == TrapOwner::L1 {
            if plan.flaw == Flaw::DropsAtTrap {
                let _ = self.pending.take_nmi();
            }
            return self.leave(plan, Told::Trap);
        }
        self.place = Place::Looks;
        self.settle(plan)
    }

    /// What L1 may be told.
    pub(super) fn check_exit(&self, plan: &Plan, told: Told) -> Outcome<()> {
        if self.is_waiting() && !matches!(told, Told::Startup | Told::Failure) {
            return Err("an exit while waiting for a start-up IPI");
        }
        if plan.fails != (told == Told::Failure) {
            return Err("an entry that has to fail does not, or another does");
        }
        let event = Interruption(self.vmcs02.event);
        let is_undelivered = event.is_valid() && event.kind() != InterruptionType::OTHER;
        match told {
            Told::Trap if !plan.has_trap && plan.event() != Some(InterruptionType::OTHER) => {
                Err("an MTF exit that L1 did not ask for")
            }
            Told::Early(EarlyExit::Nmi | EarlyExit::NmiWindow) | Told::Other
                if plan.event() == Some(InterruptionType::OTHER) && self.pending.is_new() =>
            {
                Err("an injected MTF exit does not come first")
            }
            Told::Early(_) if is_undelivered => Err("a signal overtakes the event that is injected"),
            Told::Early(exit) if vectoring(plan.flaw, exit) != 0 => {
                Err("an exit tells of what another interrupted")
            }
            Told::Early(EarlyExit::Nmi) if nmi::arrival(plan.mode, plan.is_blocked) != Arrival::Exit => {
                Err("an NMI exits that is not to")
            }
            _ => Ok(()),
        }
    }
}

/// The IDT-vectoring information that an exit tells which is made up.
fn vectoring(flaw: Flaw, exit: EarlyExit) -> u32 {
    let reason = match exit {
        EarlyExit::Init => ExitReason::INIT,
        EarlyExit::NmiWindow => ExitReason::NMI_WINDOW,
        EarlyExit::Nmi | EarlyExit::MachineCheck => ExitReason::EXCEPTION_OR_NMI,
    };
    let mut vmcs12 = Vmcs12::new();
    vmcs12.write(vmcs::IDT_VECTORING_INFORMATION, STALE);
    let facts = ExitFacts::new(reason, 0);
    if flaw == Flaw::StaleVectoring {
        reflect::save_facts(&mut vmcs12, &facts);
    } else {
        reflect::save_early_exit(&mut vmcs12, &facts);
    }
    vmcs12.read(vmcs::IDT_VECTORING_INFORMATION)
}
