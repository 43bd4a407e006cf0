//! The order of steps in the hypervisor on CPU 1.

use super::*;
use crate::smp::running::Running;

impl ModelState {
    pub(super) fn merge(&mut self, plan: &Plan) -> bool {
        if core::mem::take(&mut self.l1_has_window) {
            self.pending.give_nmi();
        }
        self.vmcs02 = Fields {
            event: 0,
            activity: plan.activity.0,
            interruptibility: u32::from(plan.is_blocked) << 3,
            primary: plan.primary().bits(),
        };
        self.pending.begin(&mut self.vmcs02, &plan.vmcs12());
        if plan.flaw == Flaw::WakesNobody {
            self.vmcs02.activity = plan.activity.0;
        }
        if plan.flaw == Flaw::PublishesFirst && plan.activity == ActivityState::WAIT_FOR_SIPI {
            self.pause();
        }
        self.is_l2 = true;
        self.place = Place::Settles;
        true
    }

    pub(super) fn pause(&mut self) {
        let running = Running::new();
        running.pause();
        self.running = running.is_running();
    }

    pub(super) fn resume(&mut self) {
        let running = Running::new();
        if self.running {
            let _ = running.resume();
        }
        if running.resume() {
            self.flush = true;
            self.attention = true;
        }
        self.running = running.is_running();
    }

    /// What `delivery` does.
    pub(super) fn settle(&mut self, plan: &Plan) -> Outcome<()> {
        let real = self.vmcs02.clone();
        if matches!(plan.flaw, Flaw::PublishesFirst | Flaw::StrikesWaiting) && self.is_waiting() {
            self.vmcs02.activity = 0;
        }
        if plan.flaw == Flaw::OvertakesEvent {
            self.vmcs02.event = 0;
        }
        let entry = self.pending.settle(&mut self.vmcs02);
        if plan.flaw != Flaw::None {
            let wakes = self.vmcs02.event != 0 && real.event == 0;
            self.vmcs02.activity = real.activity;
            self.vmcs02.event = if wakes { self.vmcs02.event } else { real.event };
        }
        match entry {
            Entry::Runs => (),
            Entry::WaitsForStartup => self.pause(),
            Entry::Leaves(_) if plan.fails && self.pending.is_new() && plan.flaw != Flaw::ChecksTooLate => {
                return self.fail(plan);
            }
            Entry::TakesMachineCheck => return Err("a machine check out of nothing"),
            Entry::Leaves(exit) => {
                self.pending.leave_early(exit);
                return self.leave(plan, Told::Early(exit));
            }
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, plan: &Plan) -> Outcome<()> {
        if plan.flaw == Flaw::DropsInjection {
            self.pending.injects_nmi = false;
        }
        self.pending.failed();
        self.leave(plan, Told::Failure)
    }

    /// What `exit` does.
    pub(super) fn leave(&mut self, plan: &Plan, told: Told) -> Outcome<()> {
        self.check_exit(plan, told)?;
        let is_nmi = told == Told::Early(EarlyExit::Nmi);
        self.nmis_taken += u8::from(is_nmi);
        if told != Told::Failure {
            let saved = self.vmcs02.interruptibility & Interruptibility::BLOCKING_BY_NMI.bits() != 0;
            self.l1_is_blocked = self.pending.blocking_after_exit(saved, is_nmi).l1;
        }
        self.pending.withdraw(&mut self.vmcs02);
        if plan.flaw != Flaw::PublishesFirst || !matches!(told, Told::Early(_)) {
            self.resume();
        }
        (self.is_l2, self.is_over, self.place) = (false, true, Place::Looks);
        if self.pending.take_nmi() {
            self.inject_l1();
        }
        Ok(())
    }

    pub(super) fn inject_l1(&mut self) {
        if self.l1_is_blocked || self.l1_injects_nmi {
            self.l1_has_window = true;
        } else {
            self.l1_injects_nmi = true;
        }
    }

    pub(super) fn attend(&mut self, plan: &Plan, done: u8) -> Outcome<bool> {
        self.place = Place::Attends(done + 1);
        match done {
            0 if self.is_stopped => {
                let is_new = self.is_awaited;
                self.is_awaited = false;
                self.place = Place::Attends(0);
                return Ok(is_new);
            }
            0 => (),
            1 if self.flush => (self.flush, self.is_stale, self.attention) = (false, false, true),
            1 => (),
            _ => {
                self.place = Place::Looks;
                if core::mem::take(&mut self.guest_nmi) {
                    if self.is_l2 {
                        self.pending.give_nmi();
                        self.settle(plan)?;
                    } else {
                        self.inject_l1();
                    }
                }
            }
        }
        Ok(true)
    }
}
