//! Task switches, all of which exit (SDM, "Task Switching"; "Treatment of Task Switches").
//!
//! The processor has only looked at privilege and at task gates before the exit; nothing is changed yet. What
//! follows is the manual's list of steps. Faults up to the commit belong to the old task, which can be
//! resumed unharmed; faults after it belong to the new one.

mod descriptor;
mod segments;
mod state;

use super::{Action, TaskSwitch, TaskSwitchSource};
use crate::memory::guest::{Access, GuestMemory, GuestView, Intent, Privilege, load_pdptes, segmentation};
use crate::vcpu::{Activity, Vcpu};
use descriptor::{Descriptor, read_descriptor, rewrite_type};
use state::{Format, TaskState};
use x86::address::GuestLinearAddr;
use x86::cr::{Cr0, Cr4, Rflags};
use x86::debug::Dr6;
use x86::event::{Event, Vector};
use x86::segment::{AccessRights, SELECTOR_LOCAL, Segment, SegmentRegister, TssType};

/// Local breakpoint enables of DR7, which belong to a task.
const DR7_LOCAL: u64 = 0x155;
/// Carries out a task switch for the guest, or has it take the fault that the processor would raise.
// Rare: kept out of the way of the exits that are not.
#[cold]
#[inline(never)]
pub fn handle<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    switch: TaskSwitch,
) -> Action {
    let done = prepare(vcpu, memory, switch).and_then(|plan| {
        let entered = plan.commit(vcpu, memory);
        vcpu.finish_delivery();
        entered
    });
    match done {
        Ok(()) => Action::Resume,
        Err(event) => Action::Inject(event),
    }
}

/// What the commit needs, read and checked beforehand.
struct Plan {
    switch: TaskSwitch,
    /// The TSS that is left, as TR has it.
    old: Segment,
    new: Descriptor,
    new_base: GuestLinearAddr,
    state: TaskState,
    pdptes: Option<[u64; 4]>,
}

/// Checks everything that belongs to the old task, and reads the new one.
fn prepare<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &V,
    memory: &M,
    switch: TaskSwitch,
) -> Result<Plan, Event> {
    let view = GuestView::new(vcpu, memory);
    let TaskSwitch { selector, source } = switch;
    let invalid_vector = if source == TaskSwitchSource::Iret { Vector::TS } else { Vector::GP };
    let invalid = fault(invalid_vector, selector, source);
    let new = read_descriptor(vcpu, &view, selector)?.ok_or(invalid)?;
    let is_available = new.is_tss() && new.is_busy() == (source == TaskSwitchSource::Iret);
    if selector & SELECTOR_LOCAL != 0 || !is_available {
        return Err(invalid);
    }
    if !new.is_present() {
        return Err(fault(Vector::NP, selector, source));
    }
    let (format, new_base) = (Format::of(new.rights()), GuestLinearAddr::new(new.base()));
    if new.limit() < format.least_limit() {
        return Err(fault(Vector::TS, selector, source));
    }
    let mut image = [0; state::MOST_BYTES];
    let image = &mut image[..format.bytes()];
    view.read(new_base, image, Privilege::Implicit)?;
    let old = vcpu.segment(SegmentRegister::Tr);
    let plan = Plan { switch, old, new, new_base, state: TaskState::parse(image, format), pdptes: None };
    plan.probe_writes(vcpu, &view)?;
    let pdptes = plan.next_cr3(vcpu).filter(|_| vcpu.cr4().contains(Cr4::PAE));
    Ok(Plan { pdptes: pdptes.map(|cr3| load_pdptes(memory, cr3)).transpose()?, ..plan })
}

impl Plan {
    fn source(&self) -> TaskSwitchSource {
        self.switch.source
    }

    /// Returns whether the new task returns to the old one: CALL and interrupts nest, JMP and IRET do not.
    fn nests(&self) -> bool {
        !matches!(self.source(), TaskSwitchSource::Iret | TaskSwitchSource::Jump)
    }

    /// CR3 of the new task, where the switch loads it.
    fn next_cr3<V: Vcpu + ?Sized>(&self, vcpu: &V) -> Option<u64> {
        self.state.cr3.map(u64::from).filter(|_| vcpu.cr0().contains(Cr0::PG))
    }

    /// Makes sure that the commit's writes cannot fault half-way.
    fn probe_writes<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
        &self,
        vcpu: &V,
        view: &GuestView<'_, M>,
    ) -> Result<(), Event> {
        let access = Access { intent: Intent::Write, privilege: Privilege::Implicit };
        let format = Format::of(self.old.rights);
        if self.old.limit < format.least_limit() {
            return Err(fault(Vector::TS, self.old.selector, self.source()));
        }
        view.probe(GuestLinearAddr::new(self.old.base), format.bytes(), access)?;
        if self.nests() {
            view.probe(self.new_base, size_of::<u16>(), access)?;
        } else {
            descriptor::probe_type(vcpu, view, self.old.selector, access)?;
        }
        descriptor::probe_type(vcpu, view, self.switch.selector, access)
    }

    /// Leaves the old task and enters the new one.
    fn commit<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
        &self,
        vcpu: &mut V,
        memory: &M,
    ) -> Result<(), Event> {
        self.leave(vcpu, &GuestView::new(vcpu, memory))?;
        if let Some(cr3) = self.next_cr3(vcpu) {
            vcpu.set_cr3(cr3);
            vcpu.invalidate_translations();
        }
        if let Some(pdptes) = self.pdptes {
            vcpu.set_pdptes(pdptes);
        }
        self.load_registers(vcpu);
        // The new task's page tables are in force from here on.
        let view = GuestView::new(vcpu, memory);
        segments::load(vcpu, &view, &self.state, self.source())?;
        if self.source() != TaskSwitchSource::Iret {
            vcpu.expect_branch_target();
        }
        if let TaskSwitchSource::Event { error_code: Some(code) } = self.source() {
            self.push(vcpu, &view, code)?;
        }
        if self.state.has_trap {
            vcpu.set_dr6_bits(Dr6::BT.bits());
            return Err(Event::Exception { vector: Vector::DB, error_code: None });
        }
        Ok(())
    }

    /// Saves the old task, and changes both TSS descriptors and the link.
    fn leave<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
        &self,
        vcpu: &V,
        view: &GuestView<'_, M>,
    ) -> Result<(), Event> {
        let (selector, base) = (self.old.selector, GuestLinearAddr::new(self.old.base));
        if !self.nests() {
            rewrite_type(vcpu, view, selector, |kind| kind & !TssType::BUSY.bits())?;
        }
        let format = Format::of(self.old.rights);
        let mut image = [0; state::MOST_BYTES];
        let image = &mut image[..format.bytes()];
        view.read(base, image, Privilege::Implicit)?;
        TaskState::save(vcpu, self.source(), image, format);
        let saved = format.saved();
        let start = base.checked_add(saved.start as u64).unwrap_or(base);
        view.write(start, &image[saved], Privilege::Implicit)?;
        if self.nests() {
            view.write(self.new_base, &selector.to_le_bytes(), Privilege::Implicit)?;
        }
        if self.source() != TaskSwitchSource::Iret {
            rewrite_type(vcpu, view, self.switch.selector, |kind| kind | TssType::BUSY.bits())?;
        }
        Ok(())
    }

    /// Loads TR, flags, general-purpose registers and what else a task switch changes, but no segments.
    fn load_registers<V: Vcpu + ?Sized>(&self, vcpu: &mut V) {
        vcpu.set_segment(SegmentRegister::Tr, self.new.busy_segment(self.switch.selector));
        vcpu.set_cr0(vcpu.cr0() | Cr0::TS);
        vcpu.set_dr7(vcpu.dr7() & !DR7_LOCAL);
        let nested = if self.nests() { Rflags::NT } else { Rflags::empty() };
        vcpu.set_rflags(self.state.rflags() | nested);
        vcpu.set_rip(self.state.eip.into());
        for (slot, value) in vcpu.registers_mut().0.iter_mut().zip(self.state.registers) {
            *slot = value.into();
        }
        vcpu.registers_mut().0[state::STACK_POINTER] = 0;
        vcpu.set_rsp(self.state.registers[state::STACK_POINTER].into());
        vcpu.set_activity(Activity::Active);
        vcpu.clear_interrupt_shadow();
        if self.source() == TaskSwitchSource::Iret {
            vcpu.set_nmi_blocking(false);
        }
    }

    /// Pushes an exception's error code on the new task's stack, as wide as its TSS.
    fn push<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
        &self,
        vcpu: &mut V,
        view: &GuestView<'_, M>,
        error_code: u32,
    ) -> Result<(), Event> {
        let is_wide = vcpu.segment(SegmentRegister::Ss).rights.contains(AccessRights::DB);
        let mask = if is_wide { 0xffff_ffff } else { 0xffff };
        let width = if Format::of(self.new.rights()) == Format::Bits32 { 4 } else { 2 };
        let top = vcpu.rsp().wrapping_sub(width) & mask;
        let at = segmentation::linear(vcpu, SegmentRegister::Ss, top, width, Intent::Write)?;
        let bytes = error_code.to_le_bytes();
        let bytes = if width == 4 { &bytes[..] } else { &bytes[..2] };
        view.write(at, bytes, Privilege::of(vcpu))?;
        vcpu.set_rsp(vcpu.rsp() & !mask | top);
        Ok(())
    }
}

/// Returns a fault that names a selector (SDM, "Error Code"); EXT says that no instruction of the program asked for
/// the switch.
fn fault(vector: Vector, selector: u16, source: TaskSwitchSource) -> Event {
    let is_external = matches!(source, TaskSwitchSource::Event { .. });
    let error_code = u32::from(selector & !3) | u32::from(is_external);
    Event::Exception { vector, error_code: Some(error_code) }
}

#[cfg(test)]
mod tests;
