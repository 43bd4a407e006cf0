//! An entry into L2 between "L1's checks have passed" and VMRESUME: what waits for L1's processor, and what comes of
//! it (SDM, "VM Entries"; "Other Causes of VM Exits"; "Monitor Trap Flag"; "NMI-Window Exiting").
//!
//! NMIs and INIT signals that the hardware gave the hypervisor wait here, whoever runs. [`PendingEntry::settle`]
//! alone makes of an entry what it becomes: the hardware's, with an NMI to inject or with controls by which the
//! hypervisor comes back, or an exit to L1 that is made up before the hardware enters. Nothing is told to other CPUs
//! before it has decided. What the hypervisor asks of the hardware for itself is remembered in fields of its own, so
//! that it is never taken for a wish of L1's, nor the other way round.
//!
//! The event to be injected stands where every handler puts it and the hardware takes it from, in the VM-entry
//! fields of the VMCS of L2.

use super::nmi::{self, Arrival, Mode};
use crate::vmx::nested::preemption_timer;
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use crate::vmx::switch;
use hw::Vmcs;
use x86::debug::PendingDebugExceptions;
use x86::event::Vector;
use x86::vmx::controls::PrimaryControls;
use x86::vmx::interruption::{ActivityState, Interruptibility, Interruption, InterruptionType};
use x86::vmx::vmcs;

/// What waits for L1's processor, and how L2 is entered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingEntry {
    /// An NMI waits: for L2 or an exit while L2 is to run, else for L1.
    has_nmi: bool,
    /// The next entry injects an NMI that waited.
    injects_nmi: bool,
    /// A machine check that struck the hypervisor waits until L2 can take it, or leaves for it.
    has_machine_check: bool,
    /// An INIT signal waits until an entry into L2 is over, or until L1 leaves VMX operation.
    has_init: bool,
    /// What L1 asked for of NMIs.
    mode: Mode,
    /// L1's last entry found NMIs blocked in L2.
    was_nmi_blocked: bool,
    /// L1 wants the monitor trap flag.
    has_l1_trap: bool,
    /// L1 wants NMI-window exiting.
    has_l1_window: bool,
    /// The next entry injects a pending MTF exit.
    injects_trap: bool,
    /// The last one did.
    has_injected_trap: bool,
    /// The hypervisor wants an exit at the boundary behind what the hardware does first.
    has_l0_trap: bool,
    /// The hypervisor wants an exit when L2 can take an NMI.
    has_l0_window: bool,
    /// The hardware has not entered L2 since L1's instruction.
    is_new: bool,
}

/// What an entry has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The hardware enters, and guest code runs.
    Runs,
    /// The hardware enters, and no guest code runs before a start-up IPI.
    WaitsForStartup,
    /// L2 has left before its first instruction, for this reason.
    Leaves(EarlyExit),
    /// A machine check strikes before the first instruction of L2, which takes it or leaves for it.
    TakesMachineCheck,
}

/// An exit to L1 in whose stead the hardware does not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EarlyExit {
    /// An INIT signal.
    Init,
    /// L2 can take an NMI, and L1 wants to know.
    NmiWindow,
    /// An NMI.
    Nmi,
    /// A machine check.
    MachineCheck,
}

/// Whose exit an MTF exit of the hardware is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrapOwner {
    /// L1's.
    L1,
    /// The hypervisor's, to which something waited.
    Hypervisor,
}

/// What the hardware is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enter,
    /// Enter, and come back at the next boundary.
    EnterToTrap,
    /// Enter, and come back when L2 can take an NMI.
    EnterToWindow,
    InjectNmi,
    TakeMachineCheck,
    Leave(EarlyExit),
}

/// L2's processor before its next instruction.
#[derive(Clone, Copy, Debug)]
struct Boundary {
    event: Interruption,
    activity: ActivityState,
    blocking: Interruptibility,
    has_debug_exception: bool,
    is_time_over: bool,
}

impl PendingEntry {
    /// Nothing waits.
    pub(crate) const fn new() -> Self {
        Self {
            has_nmi: false,
            injects_nmi: false,
            has_machine_check: false,
            has_init: false,
            mode: Mode::Guest,
            was_nmi_blocked: false,
            has_l1_trap: false,
            has_l1_window: false,
            injects_trap: false,
            has_injected_trap: false,
            has_l0_trap: false,
            has_l0_window: false,
            is_new: false,
        }
    }

    /// Begins an entry: L1's checks have passed, `vmcs02` is merged, and the event of `vmcs12` is to be injected.
    ///
    /// Without virtual NMIs an injected NMI blocks none after it: the hardware is told of an exception with the NMI's
    /// vector. That wakes nobody (SDM, "Checks on Guest Non-Register State"), where an NMI does: L2 is active then,
    /// as it is behind any injection.
    pub(crate) fn begin(&mut self, vmcs02: &mut impl Vmcs, vmcs12: &Vmcs12) {
        let primary = L1Controls::of(vmcs12).primary;
        self.mode = Mode::of(vmcs12);
        self.was_nmi_blocked = nmi::is_blocked(vmcs12);
        self.has_l1_trap = primary.contains(PrimaryControls::MONITOR_TRAP_FLAG);
        self.has_l1_window = primary.contains(PrimaryControls::NMI_WINDOW_EXITING);
        self.is_new = true;
        let event = Interruption(vmcs12.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
        self.injects_trap = event.is_valid() && event.kind() == InterruptionType::OTHER;
        let told = nmi::to_hardware(event, self.mode);
        vmcs02.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, told.0);
        if event.is_valid() {
            vmcs02.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, vmcs12.read(vmcs::ENTRY_EXCEPTION_ERROR_CODE));
            vmcs02.write(vmcs::ENTRY_INSTRUCTION_LENGTH, vmcs12.read(vmcs::ENTRY_INSTRUCTION_LENGTH));
        }
        if told != event {
            vmcs02.write(vmcs::GUEST_ACTIVITY, ActivityState::ACTIVE.0);
        }
    }

    /// Returns whether the entry that `vmcs12` describes needs no [`Self::settle`]: nothing waits, and L2 does not
    /// either.
    #[inline]
    pub(crate) fn is_plain(&self, vmcs12: &Vmcs12) -> bool {
        !self.has_nmi
            && !self.has_init
            && !self.has_machine_check
            && ActivityState(vmcs12.read(vmcs::GUEST_ACTIVITY)) != ActivityState::WAIT_FOR_SIPI
    }

    /// Notes that an NMI came.
    pub(crate) fn give_nmi(&mut self) {
        self.has_nmi = true;
    }

    /// Notes that a machine check struck the hypervisor.
    pub(crate) fn give_machine_check(&mut self) {
        self.has_machine_check = true;
    }

    /// Takes a machine check that waits.
    #[inline]
    pub(crate) fn take_machine_check(&mut self) -> bool {
        core::mem::take(&mut self.has_machine_check)
    }

    /// Notes that an INIT signal came.
    pub(crate) fn give_init(&mut self) {
        self.has_init = true;
    }

    /// Takes an INIT signal that waited: L1 has left VMX operation.
    pub(crate) fn take_init(&mut self) -> bool {
        core::mem::take(&mut self.has_init)
    }

    /// Returns whether the hardware has not entered L2 since L1's instruction.
    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Decides what becomes of the entry, and has `vmcs02` say so. Called again when something else came.
    pub(crate) fn settle(&mut self, vmcs02: &mut impl Vmcs) -> Entry {
        let boundary = Boundary::of(vmcs02);
        match self.step(&boundary) {
            Step::Enter => self.ask(vmcs02, false, false),
            Step::EnterToTrap => self.ask(vmcs02, true, false),
            Step::EnterToWindow => self.ask(vmcs02, false, true),
            Step::InjectNmi => {
                self.ask(vmcs02, false, false);
                self.has_nmi = false;
                self.injects_nmi = true;
                let word = Interruption::new(Vector::NMI.0, InterruptionType::NMI, false);
                vmcs02.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, word.0);
            }
            Step::TakeMachineCheck => return Entry::TakesMachineCheck,
            Step::Leave(exit) => return Entry::Leaves(exit),
        }
        if boundary.activity == ActivityState::WAIT_FOR_SIPI {
            // Nobody there can be told of a machine check, and the banks keep what happened.
            self.has_machine_check = false;
            Entry::WaitsForStartup
        } else {
            Entry::Runs
        }
    }

    /// What comes first, highest priority at the top (SDM, "Priority Among Concurrent Events"; "Activity State",
    /// "Pending MTF VM Exits", "VMX-Preemption Timer" and "NMI-Window Exiting" in "Special Features of VM Entry").
    fn step(&self, at: &Boundary) -> Step {
        if self.has_machine_check && at.activity != ActivityState::WAIT_FOR_SIPI {
            return match at.event.is_valid().then(|| at.event.kind()) {
                None => Step::TakeMachineCheck,
                // L2 leaves at once, and the machine check is L1's.
                Some(InterruptionType::OTHER) => Step::Enter,
                Some(_) => Step::EnterToTrap,
            };
        }
        let exits = match nmi::arrival(self.mode, self.was_nmi_blocked) {
            _ if at.activity == ActivityState::WAIT_FOR_SIPI => return Step::Enter,
            Arrival::Keep if !self.has_init => return Step::Enter,
            arrival => arrival == Arrival::Exit,
        };
        if !self.has_init && !self.has_nmi {
            return Step::Enter;
        }
        let event = Some(at.event).filter(|event| event.is_valid());
        match event.map(Interruption::kind) {
            // An event that is injected is delivered by the entry, before anything that waits.
            Some(kind) if kind != InterruptionType::OTHER => {
                return if self.has_init || exits { Step::EnterToTrap } else { Step::EnterToWindow };
            }
            _ if self.has_init => return Step::Leave(EarlyExit::Init),
            // A pending MTF exit, to which the NMI is L1's.
            Some(_) => return Step::Enter,
            None => (),
        }
        // The timer's exit comes before an NMI and its window, and behind debug exceptions: as the hardware has it.
        if at.is_time_over {
            return Step::Enter;
        }
        if !exits {
            return if at.blocks_injection() { Step::EnterToWindow } else { Step::InjectNmi };
        }
        if at.precedes_nmis() {
            Step::EnterToTrap
        } else if self.has_l1_window && !at.blocking.contains(Interruptibility::BLOCKING_BY_NMI) {
            Step::Leave(EarlyExit::NmiWindow)
        } else {
            Step::Leave(EarlyExit::Nmi)
        }
    }

    /// Notes that L2 leaves for `exit`, which is no entry that fails.
    pub(crate) fn leave_early(&mut self, exit: EarlyExit) {
        match exit {
            EarlyExit::Init => self.has_init = false,
            EarlyExit::Nmi => self.has_nmi = false,
            EarlyExit::MachineCheck => self.has_machine_check = false,
            // The NMI that made the window count is L1's.
            EarlyExit::NmiWindow => (),
        }
    }

    /// Notes that L2 has left, the hardware having entered.
    #[inline]
    pub(crate) fn left_hardware(&mut self) {
        self.is_new = false;
        self.injects_nmi = false;
        self.has_injected_trap = core::mem::take(&mut self.injects_trap);
    }

    /// Notes that the hardware did not enter after all: an NMI that it was to inject waits on.
    pub(crate) fn failed(&mut self) {
        self.has_nmi |= core::mem::take(&mut self.injects_nmi);
        self.injects_trap = false;
    }

    /// Returns whether L1's monitor trap flag has an exit now that an instruction of L2's was carried out. An event
    /// that is to be delivered comes first, and has its own exit behind it.
    pub(crate) fn is_trap_due(&self, vmcs02: &impl Vmcs) -> bool {
        self.has_l1_trap && !Interruption(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION)).is_valid()
    }

    /// Whose an MTF exit is. INIT comes before it, and a machine check before one that the flag asks for (SDM, "Pending MTF VM Exits").
    pub(crate) fn trap_owner(&self) -> TrapOwner {
        if (self.has_l1_trap && !self.has_machine_check || self.has_injected_trap) && !self.has_init {
            TrapOwner::L1
        } else {
            TrapOwner::Hypervisor
        }
    }

    /// Returns whether NMIs are blocked in L1 and in VMCS12 behind an exit, which is an NMI's or not, with L2's
    /// blocking as the hardware saved it.
    pub(crate) fn blocking_after_exit(&self, hardware: bool, is_nmi: bool) -> nmi::Blocking {
        nmi::after_exit(self.mode, hardware, self.was_nmi_blocked, is_nmi)
    }

    /// Has `vmcs02` ask for nothing on the hypervisor's behalf any more: L1 is to run.
    #[inline]
    pub(crate) fn withdraw(&mut self, vmcs02: &mut impl Vmcs) {
        self.ask(vmcs02, false, false);
    }

    /// Takes an NMI that waits: L1 runs, and it is L1's.
    #[inline]
    pub(crate) fn take_nmi(&mut self) -> bool {
        core::mem::take(&mut self.has_nmi)
    }

    /// Asks by `vmcs02` for what L1 wants, and for what the hypervisor wants besides.
    fn ask(&mut self, vmcs02: &mut impl Vmcs, trap: bool, window: bool) {
        if (trap, window) == (self.has_l0_trap, self.has_l0_window) {
            return;
        }
        (self.has_l0_trap, self.has_l0_window) = (trap, window);
        // Both bits are made anew from both wishes: a bit that only the hypervisor set would stay as if L1 had.
        switch::primary(vmcs02, PrimaryControls::MONITOR_TRAP_FLAG, trap || self.has_l1_trap);
        switch::primary(vmcs02, PrimaryControls::NMI_WINDOW_EXITING, window || self.has_l1_window);
    }
}

impl Boundary {
    fn of(vmcs02: &impl Vmcs) -> Self {
        let pending = vmcs02.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS);
        let pending = PendingDebugExceptions::from_bits_retain(pending);
        Self {
            event: Interruption(vmcs02.read(vmcs::ENTRY_INTERRUPTION_INFORMATION)),
            activity: ActivityState(vmcs02.read(vmcs::GUEST_ACTIVITY)),
            blocking: Interruptibility::from_bits_retain(vmcs02.read(vmcs::GUEST_INTERRUPTIBILITY)),
            has_debug_exception: pending.intersects(PendingDebugExceptions::RAISED),
            is_time_over: preemption_timer::has_expired(vmcs02),
        }
    }

    /// Returns whether the hardware would refuse to inject an NMI, or L2 is not to take one yet. An entry that injects
    /// one drops debug exceptions that are pending (SDM, "Delivery of Pending Debug Exceptions after VM Entry").
    fn blocks_injection(&self) -> bool {
        self.precedes_nmis()
            || self.blocking.intersects(
                Interruptibility::BLOCKING_BY_NMI
                    | Interruptibility::BLOCKING_BY_MOV_SS
                    | Interruptibility::BLOCKING_BY_STI,
            )
    }

    /// Returns whether L2 has a debug exception to take, or an instruction to execute, before an NMI can strike. Only
    /// an active processor is sure to come to the boundary behind it.
    fn precedes_nmis(&self) -> bool {
        self.activity == ActivityState::ACTIVE
            && (self.has_debug_exception || self.blocking.contains(Interruptibility::BLOCKING_BY_MOV_SS))
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
