//! A model of two CPUs around an entry into L2, explored in every order of their steps.
//!
//! CPU 1 runs a hypervisor, L1, that enters a guest once. One NMI, one INIT signal and a start-up IPI come at any time, and
//! CPU 0 wants its translations dropped or its guest stopped. What is decided is decided by [`PendingEntry`], `raise` and
//! `smp::running` themselves; the processor, and the order of steps in the hypervisor, are this model's. A [`Flaw`] takes
//! one measure out again, and the exploration has to find what it was for.

use super::*;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

mod cpu0;
mod hypervisor;
mod processor;

pub(super) use cpu0::Purpose;

/// What is left out of the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// Waiting for a start-up IPI blocks nothing, is published first, and an exit that is made up takes nothing back.
    PublishesFirst,
    /// Waiting for a start-up IPI blocks nothing.
    StrikesWaiting,
    /// An exit that is made up tells what VMCS02 has of an earlier one.
    StaleVectoring,
    /// An entry that fails late drops an NMI that it was to inject.
    DropsInjection,
    /// An exit for L1's monitor trap flag drops an NMI that waited for the hypervisor's.
    DropsAtTrap,
    /// An exit is made up before all checks of guest state.
    ChecksTooLate,
    /// An injected MTF exit is taken for the hypervisor's, to which an NMI waited.
    TakesInjectedTrap,
    /// An NMI that is injected as an exception finds L2 as inactive as L1 said.
    WakesNobody,
    /// A shutdown of L2 ends the guest.
    ResetsForL2,
    /// A signal overtakes the event that the entry injects.
    OvertakesEvent,
}

/// What L1 enters with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) activity: ActivityState,
    /// VM-entry interruption information.
    pub(super) event: u32,
    pub(super) has_trap: bool,
    pub(super) has_window: bool,
    /// NMIs are blocked in L2.
    pub(super) is_blocked: bool,
    /// L1 is in its NMI handler.
    pub(super) is_l1_blocked: bool,
    /// The guest state is not valid, which the hardware alone would find.
    pub(super) fails: bool,
    pub(super) purpose: Purpose,
    pub(super) flaw: Flaw,
}

/// Where CPU 1 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// In L1.
    L1,
    /// In the hypervisor, L1's checks have passed.
    Merges,
    /// In the hypervisor, the VMCS of L2 is merged.
    Settles,
    /// In the hypervisor, about to look whether there is something to attend to.
    Looks,
    /// In the hypervisor, attending; so many steps are done.
    Attends(u8),
    /// In L2, where an MTF exit may be pending.
    L2 { has_trap: bool },
}

/// The state of both CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ModelState {
    pub(super) place: Place,
    is_l2: bool,
    /// L1 has its exit.
    is_over: bool,
    pending: PendingEntry,
    vmcs02: Fields,
    l1_is_blocked: bool,
    l1_has_window: bool,
    l1_injects_nmi: bool,
    /// What other CPUs see, and ask for.
    running: bool,
    flush: bool,
    attention: bool,
    is_awaited: bool,
    is_stopped: bool,
    nmi_in_flight: bool,
    guest_nmi: bool,
    /// Translations from before CPU 0's change.
    is_stale: bool,
    /// Signals at the processor that it has not taken.
    nmi_pin: bool,
    init_pin: bool,
    nmis_sent: u8,
    inits_sent: u8,
    nmis_taken: u8,
    cpu0: u8,
}

/// The fields that matter, in place of a VMCS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Fields {
    event: u32,
    activity: u32,
    interruptibility: u32,
    primary: u32,
}

// UNSAFETY: a contract about a processor, which a fake asks nothing for.
#[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
impl Vmcs for Fields {
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        T::from_u64(match field.encoding() {
            0x4016 => self.event.into(),
            0x4826 => self.activity.into(),
            0x4824 => self.interruptibility.into(),
            0x4002 => self.primary.into(),
            _ => 0,
        })
    }

    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        let value = u32::try_from(value.to_u64()).unwrap();
        match field.encoding() {
            0x4016 => self.event = value,
            0x4826 => self.activity = value,
            0x4824 => self.interruptibility = value,
            _ => (),
        }
    }

    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        assert_eq!(field.encoding(), vmcs::PRIMARY_CONTROLS.encoding());
        self.primary = u32::try_from(value.to_u64()).unwrap();
    }
}

/// A broken promise.
pub(super) type Fault = &'static str;
pub(super) type Outcome<T> = Result<T, Fault>;

/// What L1 is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Early(EarlyExit),
    Trap,
    Startup,
    Init,
    Window,
    /// Of L2's own doing.
    Other,
    Failure,
}

impl ModelState {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            place: Place::L1,
            is_l2: false,
            is_over: false,
            pending: PendingEntry::new(),
            vmcs02: Fields::default(),
            l1_is_blocked: plan.is_l1_blocked,
            l1_has_window: false,
            l1_injects_nmi: false,
            running: true,
            flush: false,
            attention: false,
            is_awaited: false,
            is_stopped: false,
            nmi_in_flight: false,
            guest_nmi: false,
            is_stale: false,
            nmi_pin: false,
            init_pin: false,
            nmis_sent: 0,
            inits_sent: 0,
            nmis_taken: 0,
            cpu0: 0,
        }
    }

    /// Every state that one step of somebody leads to.
    pub(super) fn steps(&self, plan: &Plan) -> Outcome<Vec<Self>> {
        let mut next = Vec::new();
        let mut add = |act: &dyn Fn(&mut Self) -> Outcome<bool>| -> Outcome<()> {
            let mut state = self.clone();
            if act(&mut state)? {
                state.check(plan)?;
                next.push(state);
            }
            Ok(())
        };
        add(&|state| Ok(state.signal_nmi()))?;
        add(&|state| Ok(state.signal_init()))?;
        add(&|state| Ok(state.step_cpu0(plan.purpose)))?;
        add(&|state| state.take_signal(plan))?;
        for choice in 0..3 {
            add(&|state| state.step(plan, choice))?;
        }
        if next.is_empty() {
            self.check_end(plan)?;
        }
        Ok(next)
    }

    fn signal_nmi(&mut self) -> bool {
        let may = self.nmis_sent == 0;
        if may {
            self.nmis_sent += 1;
            self.nmi_pin = true;
        }
        may
    }

    fn signal_init(&mut self) -> bool {
        let may = self.inits_sent == 0;
        if may {
            self.inits_sent += 1;
            self.init_pin = true;
        }
        may
    }

    fn is_waiting(&self) -> bool {
        self.vmcs02.activity == ActivityState::WAIT_FOR_SIPI.0
    }

    /// Whether guest code runs on CPU 1.
    pub(super) fn runs_guest(&self) -> bool {
        match self.place {
            Place::L1 => true,
            Place::L2 { .. } => !self.is_waiting(),
            _ => false,
        }
    }

    /// What holds in every state.
    fn check(&self, plan: &Plan) -> Outcome<()> {
        self.check_cpu0(plan.purpose)?;
        if plan.purpose == Purpose::None && self.nmis_taken > self.nmis_sent {
            return Err("an NMI out of nothing");
        }
        Ok(())
    }

    /// What holds where nothing more happens.
    fn check_end(&self, plan: &Plan) -> Outcome<()> {
        // Our NMI and the guest's may have met at the pin.
        let counts = plan.purpose == Purpose::None && self.place == Place::L1 && !self.l1_is_blocked;
        if counts && self.nmis_taken != self.nmis_sent { Err("an NMI is lost") } else { Ok(()) }
    }

    /// One step of the hypervisor or of the guest.
    fn step(&mut self, plan: &Plan, choice: u8) -> Outcome<bool> {
        match self.place {
            Place::L1 => Ok(self.step_l1(choice)),
            Place::L2 { has_trap } => self.step_l2(plan, has_trap, choice),
            _ if choice != 0 => Ok(false),
            Place::Merges => Ok(self.merge(plan)),
            Place::Settles => {
                self.place = Place::Looks;
                let is_plain = self.pending.is_plain(&plan.vmcs12());
                if !is_plain {
                    self.settle(plan)?;
                }
                Ok(true)
            }
            Place::Looks if self.attention => {
                self.place = Place::Attends(0);
                self.attention = false;
                Ok(true)
            }
            Place::Looks => self.enter(plan).map(|()| true),
            Place::Attends(done) => self.attend(plan, done),
        }
    }

    fn step_l1(&mut self, choice: u8) -> bool {
        match choice {
            0 if !self.is_over => self.place = Place::Merges,
            // IRET.
            1 if self.is_over && self.l1_is_blocked => {
                self.l1_is_blocked = core::mem::take(&mut self.l1_has_window);
                self.nmis_taken += u8::from(self.l1_is_blocked);
            }
            _ => return false,
        }
        true
    }
}
