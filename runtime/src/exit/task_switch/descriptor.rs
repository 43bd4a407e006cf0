//! Descriptors in the guest's GDT and LDT (SDM, "Segment Descriptors"; "System Descriptor Types").

use crate::memory::guest::{Access, GuestMemory, GuestView, Privilege};
use crate::vcpu::Vcpu;
use x86::address::GuestLinearAddr;
use x86::event::Event;
use x86::segment::{AccessRights, SELECTOR_LOCAL, Segment, SegmentRegister, SegmentType, TssType};

/// Type of an LDT.
pub(super) const LDT: u8 = 2;
/// Offset of the byte that holds the type.
const TYPE_BYTE: u64 = 5;

/// An eight-byte descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor(pub(super) u64);

impl Descriptor {
    /// Base address.
    pub(super) const fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000
    }

    /// Limit in bytes.
    pub(super) const fn limit(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "20 bits")]
        let limit = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.rights().contains(AccessRights::G) { limit << 12 | 0xfff } else { limit }
    }

    /// Access rights.
    pub(super) const fn rights(self) -> AccessRights {
        AccessRights::from_bits_retain((self.0 >> 40 & 0xf0ff) as u32)
    }

    /// Present.
    pub(super) const fn is_present(self) -> bool {
        self.rights().contains(AccessRights::P)
    }

    /// Code or data, not system.
    pub(super) const fn is_segment(self) -> bool {
        self.rights().contains(AccessRights::S)
    }

    /// A TSS of either size.
    pub(super) const fn is_tss(self) -> bool {
        !self.is_segment() && matches!(self.rights().kind(), 1 | 3 | 9 | 11)
    }

    /// Of a TSS: busy.
    pub(super) const fn is_busy(self) -> bool {
        self.rights().tss_type().contains(TssType::BUSY)
    }

    /// Returns the segment register that `selector` loads with it.
    pub(super) const fn segment(self, selector: u16) -> Segment {
        Segment { selector, base: self.base(), limit: self.limit(), rights: self.rights() }
    }

    /// Returns the task register that `selector` loads with it.
    pub(super) const fn busy_segment(self, selector: u16) -> Segment {
        let rights = AccessRights::from_bits_retain(self.rights().bits() | TssType::BUSY.bits() as u32);
        Segment { rights, ..self.segment(selector) }
    }

    /// Returns the segment register of code or data that `selector` loads with it.
    pub(super) const fn accessed_segment(self, selector: u16) -> Segment {
        let rights =
            AccessRights::from_bits_retain(self.rights().bits() | SegmentType::ACCESSED.bits() as u32);
        Segment { rights, ..self.segment(selector) }
    }
}

/// Returns the descriptor that `selector` names; `None` for a null selector or one beyond the table's limit.
pub(super) fn read_descriptor<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &V,
    view: &GuestView<'_, M>,
    selector: u16,
) -> Result<Option<Descriptor>, Event> {
    let Some(at) = address(vcpu, selector) else { return Ok(None) };
    let mut bytes = [0; 8];
    view.read(at, &mut bytes, Privilege::Implicit)?;
    Ok(Some(Descriptor(u64::from_le_bytes(bytes))))
}

/// Changes the type of the descriptor that `selector` names.
pub(super) fn rewrite_type<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &V,
    view: &GuestView<'_, M>,
    selector: u16,
    change: impl FnOnce(u8) -> u8,
) -> Result<(), Event> {
    let Some(at) = type_address(vcpu, selector) else { return Ok(()) };
    let mut byte = [0];
    view.read(at, &mut byte, Privilege::Implicit)?;
    let changed = change(byte[0]);
    if changed == byte[0] { Ok(()) } else { view.write(at, &[changed], Privilege::Implicit) }
}

/// Finds out whether [`rewrite_type`] could fault.
pub(super) fn probe_type<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &V,
    view: &GuestView<'_, M>,
    selector: u16,
    access: Access,
) -> Result<(), Event> {
    type_address(vcpu, selector).map_or(Ok(()), |at| view.probe(at, 1, access))
}

fn type_address<V: Vcpu + ?Sized>(vcpu: &V, selector: u16) -> Option<GuestLinearAddr> {
    address(vcpu, selector)?.checked_add(TYPE_BYTE)
}

/// Returns the linear address of the descriptor.
fn address<V: Vcpu + ?Sized>(vcpu: &V, selector: u16) -> Option<GuestLinearAddr> {
    let (base, limit) = if selector & SELECTOR_LOCAL == 0 {
        let gdtr = vcpu.gdtr();
        (gdtr.base, u32::from(gdtr.limit))
    } else {
        let ldtr = vcpu.segment(SegmentRegister::Ldtr);
        let is_usable = !ldtr.rights.contains(AccessRights::UNUSABLE);
        (ldtr.base, if is_usable { ldtr.limit } else { 0 })
    };
    let is_inside = is_not_null(selector) && u32::from(selector | 7) <= limit;
    is_inside.then(|| GuestLinearAddr::new(base.wrapping_add(u64::from(selector & !7)) & 0xffff_ffff))
}

/// Returns whether a selector names anything: the GDT's first entry is not used.
pub(super) const fn is_not_null(selector: u16) -> bool {
    selector & !3 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flat_code_descriptor_of_every_textbook() {
        let descriptor = Descriptor(0x00cf_9a00_0000_ffff);
        assert_eq!((descriptor.base(), descriptor.limit()), (0, 0xffff_ffff));
        assert_eq!(descriptor.rights().bits(), 0xc09a);
        assert!(descriptor.is_present() && descriptor.is_segment() && !descriptor.is_tss());
        assert_eq!(descriptor.accessed_segment(8).rights.bits(), 0xc09b);
    }

    #[test]
    fn base_and_limit_are_gathered_from_their_pieces() {
        let descriptor = Descriptor(0x1205_8934_5678_9abc);
        assert_eq!((descriptor.base(), descriptor.limit()), (0x1234_5678, 0x5_9abc));
        assert!(descriptor.is_tss() && !descriptor.is_busy());
        assert_eq!(descriptor.busy_segment(0x28).rights.kind(), 0xb);
    }
}
