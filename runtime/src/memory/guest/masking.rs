//! Linear-address masking: bits of pointers that software may use as it likes (SDM, "Linear-Address Masking (LAM)").
//!
//! It is for data accesses in 64-bit mode by an instruction's memory operand alone: not for fetches, nor for addresses in
//! registers of the system, in descriptors that an instruction reads, or in the operand of INVLPG.

use crate::vcpu::Vcpu;
use x86::cr::{Cr3, Cr4};

/// Bits that a pointer of 57 and one of 48 bits leaves to software, below bit 63.
const ABOVE_57: u64 = 0x7e00_0000_0000_0000;
const ABOVE_48: u64 = 0x7fff_0000_0000_0000;

/// Returns the address that an access by `pointer` in 64-bit mode is to, which may not be canonical.
#[must_use]
pub(super) fn masked<V: Vcpu + ?Sized>(vcpu: &V, pointer: u64) -> u64 {
    // Whose a pointer is its highest bit says, whoever uses it.
    let is_supervisor = pointer >> 63 == 1;
    let ignored = if is_supervisor { of_supervisor(vcpu.cr4()) } else { of_user(vcpu.cr3()) };
    // The highest bit that counts is repeated; bit 63 stays, and has to be the same.
    let highest = (ignored & ignored.wrapping_neg()) >> 1;
    if pointer & highest == 0 { pointer & !ignored } else { pointer | ignored }
}

fn of_supervisor(cr4: Cr4) -> u64 {
    match (cr4.contains(Cr4::LAM_SUP), cr4.contains(Cr4::LA57)) {
        (false, _) => 0,
        (true, true) => ABOVE_57,
        (true, false) => ABOVE_48,
    }
}

/// Where both are set, the wider pointer counts.
fn of_user(cr3: u64) -> u64 {
    let cr3 = Cr3::from_bits_retain(cr3);
    if cr3.contains(Cr3::LAM_U57) {
        ABOVE_57
    } else if cr3.contains(Cr3::LAM_U48) {
        ABOVE_48
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::guest::{Intent, segmentation};
    use crate::vcpu::fake::FakeVcpu;
    use x86::address::GuestLinearAddr;
    use x86::event::Event;
    use x86::segment::SegmentRegister;

    const NONE: Cr3 = Cr3::empty();
    const USER: u64 = 0x1234_5678_9abc;
    const SUPERVISOR: u64 = 0xffff_8765_4321_0000;

    /// Where a data access by `pointer` goes.
    fn data(cr3: Cr3, cr4: Cr4, pointer: u64) -> Result<u64, Event> {
        access(cr3, cr4, pointer, Intent::Write)
    }

    fn access(cr3: Cr3, cr4: Cr4, pointer: u64, intent: Intent) -> Result<u64, Event> {
        let vcpu = FakeVcpu { cr3: cr3.bits() | 0x1000, cr4: Cr4::PAE | cr4, ..FakeVcpu::long_mode() };
        segmentation::linear(&vcpu, SegmentRegister::Ds, pointer, 8, intent).map(GuestLinearAddr::get)
    }

    /// Each bit that is ignored, and none else.
    fn assert_ignored(cr3: Cr3, cr4: Cr4, address: u64, ignored: u64) {
        assert_eq!(data(cr3, cr4, address), Ok(address));
        for bit in (0..63).map(|bit| 1 << bit) {
            let expected = if bit & ignored != 0 {
                Ok(address)
            } else if bit < 1 << 47 {
                Ok(address ^ bit)
            } else {
                Err(Event::GP0)
            };
            assert_eq!(data(cr3, cr4, address ^ bit), expected, "{cr3:?}, {cr4:?}, bit {bit:#x}");
        }
    }

    #[test]
    fn user_pointers_leave_bits_to_software_as_cr3_says() {
        let (pointers57, pointers48) = (Cr3::LAM_U57, Cr3::LAM_U48);
        for (cr3, ignored) in
            [(NONE, 0), (pointers57, ABOVE_57), (pointers48, ABOVE_48), (pointers57 | pointers48, ABOVE_57)]
        {
            // Whatever CR4 says of supervisor pointers.
            assert_ignored(cr3, Cr4::empty(), USER, ignored);
            assert_ignored(cr3, Cr4::LAM_SUP, USER, ignored);
            assert_ignored(cr3, Cr4::empty(), SUPERVISOR, 0);
        }
    }

    #[test]
    fn supervisor_pointers_leave_bits_to_software_as_cr4_says() {
        assert_ignored(NONE, Cr4::LAM_SUP, SUPERVISOR, ABOVE_48);
        assert_ignored(NONE, Cr4::LAM_SUP, USER, 0);
        let cr4 = Cr4::LAM_SUP | Cr4::LA57;
        let (address, tag) = (0xff12_3456_789a_0000, 0x2a00_0000_0000_0000);
        assert_eq!(data(NONE, cr4, address ^ tag), Ok(address));
        // Bit 56 counts, with five levels of paging.
        assert_eq!(data(NONE, cr4, address ^ 1 << 56), Err(Event::GP0));
        assert_eq!(data(NONE, Cr4::LA57, address ^ tag), Err(Event::GP0));
    }

    #[test]
    fn a_pointer_keeps_whose_it_is() {
        let cr3 = Cr3::LAM_U48;
        assert_eq!(data(cr3, Cr4::LAM_SUP, 1 << 47), Err(Event::GP0));
        assert_eq!(data(cr3, Cr4::LAM_SUP, 1 << 63), Err(Event::GP0));
        // The access ends where addresses of its kind do.
        assert_eq!(data(cr3, Cr4::empty(), 0x2aaa_7fff_ffff_fff8), Ok(0x7fff_ffff_fff8));
        assert_eq!(data(cr3, Cr4::empty(), 0x2aaa_7fff_ffff_fff9), Err(Event::GP0));
    }

    #[test]
    fn fetches_and_other_modes_know_no_tags() {
        let tagged = USER | 1 << 60;
        assert_eq!(access(Cr3::LAM_U48, Cr4::empty(), tagged, Intent::Fetch), Err(Event::GP0));
        assert_eq!(access(Cr3::LAM_U48, Cr4::empty(), tagged, Intent::Read), Ok(USER));
        let vcpu = FakeVcpu { cr3: Cr3::LAM_U48.bits(), ..FakeVcpu::protected_mode() };
        let outside = segmentation::linear(&vcpu, SegmentRegister::Ds, tagged, 1, Intent::Read);
        assert_eq!(outside, Err(Event::GP0));
    }
}
