//! The guest's INT 15h, where a BIOS tells how much memory there is (ACPI, "INT 15H, E820H - Query System
//! Address Map"; Interrupt List, "INT 15 AX=E801h", "INT 15 AH=88h").
//!
//! The vector points at a few bytes in the BIOS data area: VMCALL, IRET, and the vector that was there. The
//! VMCALL exits with the caller's FLAGS, CS and IP on the stack. A memory function is answered from the
//! hypervisor's map and returns by the IRET; every other function goes on at the BIOS's own vector.

use super::Action;
use crate::memory::guest::{GuestMemory, GuestView, Intent, Privilege, Refused, segmentation};
use crate::vcpu::Vcpu;
use platform::handoff::{MemoryRange, USABLE};
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::cr::{Cr0, Rflags};
use x86::event::Event;
use x86::segment::{Segment, SegmentRegister};

/// Segment of the hook: the BIOS data area.
const HOOK_SEGMENT: u16 = 0x40;
/// Offset of the hook in its segment: bytes that the BIOS data area leaves free.
const HOOK_OFFSET: u16 = 0xac;
/// Linear address of the hook.
const HOOK: u64 = (HOOK_SEGMENT as u64) * 16 + HOOK_OFFSET as u64;
/// Offset of the vector that was there, behind VMCALL and IRET.
const SAVED_VECTOR: u64 = HOOK + 4;
/// Address of vector 15H in the interrupt vector table.
const VECTOR: GuestPhysAddr = GuestPhysAddr::new(0x15 * 4);
/// VMCALL, IRET.
const CODE: [u8; 4] = [0x0f, 0x01, 0xc1, 0xcf];
/// Signature of function E820H: "SMAP".
const SMAP: u32 = u32::from_be_bytes(*b"SMAP");

/// What [`install`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The vector was the BIOS's and now is the hook's.
    Hook,
    /// The vector was a hook's already: this hypervisor runs in another of its kind, whose hook serves both.
    Outer,
}

/// Points the guest's INT 15h at the hook; called once, before the guest runs.
///
/// # Errors
///
/// [`Refused`] where the first page is not the guest's.
pub fn install<M: GuestMemory + ?Sized>(memory: &M) -> Result<Installed, Refused> {
    let [o0, o1] = HOOK_OFFSET.to_le_bytes();
    let [s0, s1] = HOOK_SEGMENT.to_le_bytes();
    let ours = [o0, o1, s0, s1];
    let mut vector = [0; 4];
    memory.read(VECTOR, &mut vector)?;
    if vector == ours {
        return Ok(Installed::Outer);
    }
    memory.write(GuestPhysAddr::new(HOOK), &CODE)?;
    memory.write(GuestPhysAddr::new(SAVED_VECTOR), &vector)?;
    memory.write(VECTOR, &ours)?;
    Ok(Installed::Hook)
}

/// Returns whether the instruction that exited is the hook's, in real mode or a virtual-8086 task.
pub fn is_at_hook<V: Vcpu + ?Sized>(vcpu: &V) -> bool {
    // By address, as the cheap test that nearly every hypercall fails.
    vcpu.rip() == u64::from(HOOK_OFFSET)
        && vcpu.segment(SegmentRegister::Cs).base == u64::from(HOOK_SEGMENT) * 16
        && (!vcpu.cr0().contains(Cr0::PE) || vcpu.rflags().contains(Rflags::VM))
}

/// Answers an INT 15h that reached the hook.
// Rare: kept out of the way of the exits that are not.
#[cold]
#[inline(never)]
pub fn answer<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    map: &[MemoryRange],
) -> Action {
    let view = GuestView::new(vcpu, memory);
    let eax = low(vcpu.registers().rax());
    let answered = match eax {
        _ if eax & 0xffff == 0xe820 => query_map(vcpu, &view, map),
        _ if eax & 0xffff == 0xe801 => Ok(size_in_two_parts(vcpu, map)),
        _ if eax & 0xff00 == 0x8800 => Ok(size_in_one_part(vcpu, map)),
        _ => return chain(vcpu, memory),
    };
    let returned = answered.and_then(|is_success| set_carry(vcpu, &view, !is_success));
    match returned {
        Ok(()) => Action::Advance,
        Err(event) => Action::Inject(event),
    }
}

/// Function E820H; false where the BIOS would return with carry set.
fn query_map<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    view: &GuestView<'_, M>,
    map: &[MemoryRange],
) -> Result<bool, Event> {
    const PLAIN: u32 = 20;
    const EXTENDED: u32 = 24;
    let registers = *vcpu.registers();
    let (index, room) = (low(registers.rbx()) as usize, low(registers.rcx()));
    let range = match map.get(index) {
        Some(range) if low(registers.rdx()) == SMAP && room >= PLAIN => range,
        _ => return Ok(fail(vcpu)),
    };
    let length = if room >= EXTENDED { EXTENDED } else { PLAIN };
    let offset = registers.rdi() & 0xffff;
    let at = segmentation::linear(vcpu, SegmentRegister::Es, offset, length.into(), Intent::Write)?;
    view.write(at, &record(range)[..length as usize], Privilege::of(vcpu))?;
    let next = if index + 1 < map.len() { index as u64 + 1 } else { 0 };
    let registers = vcpu.registers_mut();
    registers.set_rax(SMAP.into());
    registers.set_rbx(next);
    registers.set_rcx(length.into());
    Ok(true)
}

/// Function E801H: KiB from 1 to 16 MiB in AX and CX, blocks of 64 KiB from 16 MiB on in BX and DX.
fn size_in_two_parts<V: Vcpu + ?Sized>(vcpu: &mut V, map: &[MemoryRange]) -> bool {
    const KIB_BELOW_16_MIB: u64 = 15 * 1024;
    let below = (usable_from(map, 1 << 20) >> 10).min(KIB_BELOW_16_MIB);
    let above = (usable_from(map, 16 << 20) >> 16).min(0xffff);
    let registers = vcpu.registers_mut();
    registers.set_rax(word(registers.rax(), below));
    registers.set_rcx(word(registers.rcx(), below));
    registers.set_rbx(word(registers.rbx(), above));
    registers.set_rdx(word(registers.rdx(), above));
    true
}

/// Function 88H: KiB from 1 MiB on in AX, no more than 63 MiB, as BIOSes have it.
fn size_in_one_part<V: Vcpu + ?Sized>(vcpu: &mut V, map: &[MemoryRange]) -> bool {
    const MOST_KIB: u64 = 63 * 1024;
    let size = (usable_from(map, 1 << 20) >> 10).min(MOST_KIB);
    let registers = vcpu.registers_mut();
    registers.set_rax(word(registers.rax(), size));
    true
}

/// A function that fails: AH = 86H.
fn fail<V: Vcpu + ?Sized>(vcpu: &mut V) -> bool {
    let registers = vcpu.registers_mut();
    registers.set_rax(registers.rax() & !0xff00 | 0x8600);
    false
}

/// Goes on at the vector that was there.
fn chain<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(vcpu: &mut V, memory: &M) -> Action {
    let mut vector = [0; 4];
    if let Err(refused) = memory.read(GuestPhysAddr::new(SAVED_VECTOR), &mut vector) {
        return Action::Inject(refused.into());
    }
    let [o0, o1, s0, s1] = vector;
    let selector = u16::from_le_bytes([s0, s1]);
    let cs = vcpu.segment(SegmentRegister::Cs);
    vcpu.set_segment(SegmentRegister::Cs, Segment { selector, base: u64::from(selector) << 4, ..cs });
    vcpu.set_rip(u16::from_le_bytes([o0, o1]).into());
    // The jump that stands for this would have ended the shadow too.
    vcpu.clear_interrupt_shadow();
    Action::Resume
}

/// Sets the carry flag in the FLAGS that IRET will pop.
fn set_carry<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &V,
    view: &GuestView<'_, M>,
    carry: bool,
) -> Result<(), Event> {
    let at = stacked_flags(vcpu)?;
    let privilege = Privilege::of(vcpu);
    let mut low_byte = [0];
    view.read(at, &mut low_byte, privilege)?;
    view.write(at, &[low_byte[0] & !1 | u8::from(carry)], privilege)
}

/// Returns the linear address of FLAGS, above IP and CS on the stack.
fn stacked_flags<V: Vcpu + ?Sized>(vcpu: &V) -> Result<GuestLinearAddr, Event> {
    let offset = vcpu.rsp().wrapping_add(4) & 0xffff;
    segmentation::linear(vcpu, SegmentRegister::Ss, offset, 1, Intent::Write)
}

/// Returns the number of bytes of usable memory from `start` on without a gap.
fn usable_from(map: &[MemoryRange], start: u64) -> u64 {
    let mut end = start;
    // The map is sorted by base, so one pass finds neighbours in order.
    for range in map.iter().filter(|range| range.kind == USABLE) {
        if range.base <= end {
            end = end.max(range.base.saturating_add(range.length));
        }
    }
    end - start
}

/// Returns a record as E820H delivers it, extended attributes last.
fn record(range: &MemoryRange) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&range.base.to_le_bytes());
    bytes[8..16].copy_from_slice(&range.length.to_le_bytes());
    bytes[16..20].copy_from_slice(&range.kind.to_le_bytes());
    bytes[20..].copy_from_slice(&range.attributes.to_le_bytes());
    bytes
}

/// `register` with `value` in its lowest 16 bits.
const fn word(register: u64, value: u64) -> u64 {
    register & !0xffff | value & 0xffff
}

#[expect(clippy::cast_possible_truncation, reason = "a 32-bit register")]
const fn low(register: u64) -> u32 {
    register as u32
}

#[cfg(test)]
#[path = "e820_tests.rs"]
mod tests;
