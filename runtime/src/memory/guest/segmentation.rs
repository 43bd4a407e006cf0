//! From segment and offset to a linear address (SDM, "Protected-Mode Memory Management", "Segmentation").

use super::canonical::is_canonical;
use super::masking;
use super::walk::Intent;
use crate::vcpu::{CodeSize, Vcpu};
use x86::address::GuestLinearAddr;
use x86::cr::{Cr0, Rflags};
use x86::event::{Event, Vector};
use x86::segment::{AccessRights, Segment, SegmentRegister, SegmentType};

/// Returns the linear address of `length` bytes at `offset` in a segment, of which each may be accessed.
///
/// # Errors
///
/// #GP(0), or #SS(0) for the stack segment, as the processor raises it: null selector, type, limit, or an
/// address that is not canonical, but for the bits that linear-address masking leaves to software.
pub fn linear<V: Vcpu + ?Sized>(
    vcpu: &V,
    register: SegmentRegister,
    offset: u64,
    length: u64,
    intent: Intent,
) -> Result<GuestLinearAddr, Event> {
    let segment = vcpu.segment(register);
    let fault = if register == SegmentRegister::Ss {
        Event::Exception { vector: Vector::SS, error_code: Some(0) }
    } else {
        Event::GP0
    };
    let last = length.saturating_sub(1);
    if vcpu.code_size() == CodeSize::Bits64 {
        let has_base = matches!(register, SegmentRegister::Fs | SegmentRegister::Gs);
        let address = offset.wrapping_add(if has_base { segment.base } else { 0 });
        let address = if intent == Intent::Fetch { address } else { masking::masked(vcpu, address) };
        let is_whole = address.checked_add(last).is_some_and(|end| is_canonical(end, vcpu.cr4()));
        return if is_whole && is_canonical(address, vcpu.cr4()) {
            Ok(GuestLinearAddr::new(address))
        } else {
            Err(fault)
        };
    }
    let has_types = vcpu.cr0().contains(Cr0::PE) && !vcpu.rflags().contains(Rflags::VM);
    let end = offset.checked_add(last).ok_or(fault)?;
    if has_types && !allows(&segment, intent) || !reaches(&segment, offset, end) {
        return Err(fault);
    }
    Ok(GuestLinearAddr::new(segment.base.wrapping_add(offset) & 0xffff_ffff))
}

/// Returns whether an access crosses alignment where CPL 3 asked to be told (SDM, "Alignment Check Exception (#AC)").
#[must_use]
pub fn is_alignment_fault<V: Vcpu + ?Sized>(vcpu: &V, address: GuestLinearAddr, length: u64) -> bool {
    !address.get().is_multiple_of(length)
        && vcpu.cpl() == 3
        && vcpu.cr0().contains(Cr0::AM)
        && vcpu.rflags().contains(Rflags::AC)
}

fn allows(segment: &Segment, intent: Intent) -> bool {
    let kind = segment.rights.segment_type();
    if segment.rights.contains(AccessRights::UNUSABLE) {
        return false;
    }
    let (is_code, has_right) =
        (kind.contains(SegmentType::CODE), kind.contains(SegmentType::READABLE_OR_WRITABLE));
    match intent {
        Intent::Read => !is_code || has_right,
        Intent::Write => !is_code && has_right,
        Intent::Fetch => is_code,
    }
}

fn reaches(segment: &Segment, first: u64, last: u64) -> bool {
    let limit = u64::from(segment.limit);
    let kind = segment.rights.segment_type();
    if kind.contains(SegmentType::CODE) || !kind.contains(SegmentType::CONFORMING_OR_DOWN) {
        return last <= limit;
    }
    let top = if segment.rights.contains(AccessRights::DB) { 0xffff_ffff } else { 0xffff };
    first > limit && last <= top
}
