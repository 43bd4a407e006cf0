//! Segment registers of the new task (SDM, "Exception Conditions Checked During a Task Switch").

use super::descriptor::{Descriptor, LDT, is_not_null, read_descriptor, rewrite_type};
use super::state::{SEGMENTS, TaskState};
use super::{TaskSwitchSource, fault};
use crate::memory::guest::{GuestMemory, GuestView};
use crate::vcpu::Vcpu;
use x86::cr::Rflags;
use x86::event::{Event, Vector};
use x86::segment::{AccessRights, SELECTOR_LOCAL, Segment, SegmentRegister, SegmentType};

/// Present, accessed, writable data of DPL 3: every segment of a virtual-8086 task.
const VIRTUAL_8086: u32 = 0xf3;
/// Present, accessed, readable code.
const CODE_WITHOUT_DESCRIPTOR: u32 = 0x9b;

/// Loads LDTR and the six segment registers; the first that cannot be loaded is the new task's fault.
pub(super) fn load<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    view: &GuestView<'_, M>,
    state: &TaskState,
    source: TaskSwitchSource,
) -> Result<(), Event> {
    use SegmentRegister::{Cs, Ds, Es, Fs, Gs, Ss};
    let cpl = privilege(state.selectors[1]);
    let is_virtual_8086 = state.rflags().contains(Rflags::VM);
    // Selectors come first; what has no descriptor yet cannot be used when a fault's handler starts. In
    // virtual-8086 mode nothing has one.
    for (register, selector) in SEGMENTS.into_iter().zip(state.selectors) {
        let segment = match is_virtual_8086 {
            true => Segment::real_mode(selector, VIRTUAL_8086),
            false => without_descriptor(register, selector, cpl),
        };
        vcpu.set_segment(register, segment);
    }
    vcpu.set_segment(SegmentRegister::Ldtr, without_descriptor(SegmentRegister::Ldtr, state.ldt, 0));
    if is_not_null(state.ldt) {
        let ldt = ldt(vcpu, view, state.ldt, source)?;
        vcpu.set_segment(SegmentRegister::Ldtr, ldt.segment(state.ldt));
    }
    if is_virtual_8086 {
        return Ok(());
    }
    let loader = Loader { view, source, cpl };
    let [es, cs, ss, ds, fs, gs] = state.selectors;
    for (register, selector) in [(Cs, cs), (Ss, ss), (Ds, ds), (Es, es), (Fs, fs), (Gs, gs)] {
        loader.load(vcpu, register, selector)?;
    }
    Ok(())
}

fn ldt<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &V,
    view: &GuestView<'_, M>,
    selector: u16,
    source: TaskSwitchSource,
) -> Result<Descriptor, Event> {
    let invalid = fault(Vector::TS, selector, source);
    if selector & SELECTOR_LOCAL != 0 {
        return Err(invalid);
    }
    let found = read_descriptor(vcpu, view, selector)?;
    found.filter(|ldt| !ldt.is_segment() && ldt.rights().kind() == LDT && ldt.is_present()).ok_or(invalid)
}

struct Loader<'a, M: ?Sized> {
    view: &'a GuestView<'a, M>,
    source: TaskSwitchSource,
    /// Privilege level of the new task.
    cpl: u8,
}

impl<M: GuestMemory + ?Sized> Loader<'_, M> {
    fn load<V: Vcpu + ?Sized>(
        &self,
        vcpu: &mut V,
        register: SegmentRegister,
        selector: u16,
    ) -> Result<(), Event> {
        let is_data = !matches!(register, SegmentRegister::Cs | SegmentRegister::Ss);
        if is_data && !is_not_null(selector) {
            return Ok(());
        }
        let invalid = fault(Vector::TS, selector, self.source);
        let descriptor = read_descriptor(vcpu, self.view, selector)?.ok_or(invalid)?;
        if !self.allows(register, selector, descriptor) {
            return Err(invalid);
        }
        if !descriptor.is_present() {
            let vector = if register == SegmentRegister::Ss { Vector::SS } else { Vector::NP };
            return Err(fault(vector, selector, self.source));
        }
        rewrite_type(vcpu, self.view, selector, |kind| kind | SegmentType::ACCESSED.bits())?;
        vcpu.set_segment(register, descriptor.accessed_segment(selector));
        Ok(())
    }

    /// Type and privilege.
    fn allows(&self, register: SegmentRegister, selector: u16, descriptor: Descriptor) -> bool {
        let (kind, dpl) = (descriptor.rights().segment_type(), descriptor.rights().dpl());
        let rpl = privilege(selector);
        let is_code = kind.contains(SegmentType::CODE);
        let is_conforming = is_code && kind.contains(SegmentType::CONFORMING_OR_DOWN);
        let has_right = kind.contains(SegmentType::READABLE_OR_WRITABLE);
        descriptor.is_segment()
            && match register {
                SegmentRegister::Cs => is_code && if is_conforming { dpl <= rpl } else { dpl == rpl },
                SegmentRegister::Ss => !is_code && has_right && dpl == self.cpl && rpl == self.cpl,
                _ => (!is_code || has_right) && (is_conforming || dpl >= self.cpl.max(rpl)),
            }
    }
}

/// Returns a register whose selector is loaded and whose descriptor is not.
///
/// CS always is code of the privilege level: the processor has no other state to deliver a fault from.
fn without_descriptor(register: SegmentRegister, selector: u16, cpl: u8) -> Segment {
    let dpl = u32::from(cpl) << 5;
    let rights = match register {
        SegmentRegister::Cs => CODE_WITHOUT_DESCRIPTOR | dpl,
        SegmentRegister::Ss => AccessRights::UNUSABLE.bits() | dpl,
        _ => AccessRights::UNUSABLE.bits(),
    };
    Segment { selector, base: 0, limit: 0xffff, rights: AccessRights::from_bits_retain(rights) }
}

/// Privilege level in a selector.
fn privilege(selector: u16) -> u8 {
    (selector & 3) as u8
}
