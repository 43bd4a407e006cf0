//! The shadow VMCS, from which L1's VMREAD and VMWRITE are served without an exit where the processor has one
//! (SDM, "VMCS Shadowing").
//!
//! It holds the fields that hypervisors touch at every exit; all others exit by the bitmaps. What an exit of L2
//! changed goes there, and what L1 wrote comes back at the next entry.

use super::Vmcs12;
use super::fields::{self, Access};
use hw::Vmcs;
use x86::vmx::vmcs::{self, Field, FieldValue};

/// Bytes of the VMREAD and of the VMWRITE bitmap: a bit for each encoding of 15 bits, set where the access exits.
pub(crate) const BITMAP_BYTES: usize = 4096;
/// Bytes of a bitmap that are made at a time.
pub(crate) const PIECE_BYTES: usize = 256;

macro_rules! shadowed {
    (told: $($exit:ident)*; state: $($state:ident)*; control: $($control:ident)*;) => {
        /// Fields that L1 reads.
        const READABLE: &[u32] = &[
            $(vmcs::$exit.encoding(),)* $(vmcs::$state.encoding(),)* $(vmcs::$control.encoding(),)*
        ];
        /// Fields that L1 reads and writes.
        const WRITABLE: &[u32] = &[$(vmcs::$state.encoding(),)* $(vmcs::$control.encoding(),)*];

        /// What the shadow VMCS holds of the fields that an exit changes, unless L1 has written since.
        #[derive(Debug, Default)]
        #[expect(non_snake_case, reason = "the names of the fields")]
        pub(crate) struct Told {
            /// The processor has a page-modification log, so that there is a field for its index.
            has_log: bool,
            PML_INDEX: u64,
            $($exit: u64,)*
            $($state: u64,)*
        }

        /// Writes to `shadow` what an exit of L2 changed in `vmcs12`. Before, everything was told, and what L1 wrote was
        /// taken over.
        #[inline]
        pub(crate) fn tell_exit(shadow: &mut impl Vmcs, told: &mut Told, vmcs12: &Vmcs12) {
            $(tell(shadow, &mut told.$exit, vmcs12, vmcs::$exit);)*
            $(tell(shadow, &mut told.$state, vmcs12, vmcs::$state);)*
            if told.has_log {
                tell(shadow, &mut told.PML_INDEX, vmcs12, vmcs::PML_INDEX);
            }
        }

        /// Writes all of `vmcs12` to `shadow`.
        pub(crate) fn tell_all(shadow: &mut impl Vmcs, told: &mut Told, vmcs12: &Vmcs12) {
            $(told.$exit = !vmcs12.read(vmcs::$exit).to_u64();)*
            $(told.$state = !vmcs12.read(vmcs::$state).to_u64();)*
            told.PML_INDEX = !vmcs12.read(vmcs::PML_INDEX).to_u64();
            tell_exit(shadow, told, vmcs12);
            $(shadow.write(vmcs::$control, vmcs12.read(vmcs::$control));)*
        }

        /// Takes over what L1 wrote to `shadow`.
        #[inline]
        pub(crate) fn fetch(shadow: &impl Vmcs, told: &mut Told, vmcs12: &mut Vmcs12) {
            $(told.$state = take(shadow, vmcs12, vmcs::$state);)*
            $(take(shadow, vmcs12, vmcs::$control);)*
            if told.has_log {
                told.PML_INDEX = take(shadow, vmcs12, vmcs::PML_INDEX);
            }
        }
    };
}

shadowed! {
    told: EXIT_REASON EXIT_QUALIFICATION GUEST_LINEAR_ADDRESS GUEST_PHYSICAL_ADDRESS
        EXIT_INTERRUPTION_INFORMATION EXIT_INTERRUPTION_ERROR_CODE IDT_VECTORING_INFORMATION
        IDT_VECTORING_ERROR_CODE EXIT_INSTRUCTION_LENGTH EXIT_INSTRUCTION_INFORMATION GUEST_CS_ACCESS_RIGHTS;
    state: GUEST_RIP GUEST_RSP GUEST_RFLAGS GUEST_CR0 GUEST_CR3 GUEST_CR4 GUEST_INTERRUPTIBILITY
        ENTRY_INTERRUPTION_INFORMATION;
    control: ENTRY_EXCEPTION_ERROR_CODE ENTRY_INSTRUCTION_LENGTH PRIMARY_CONTROLS EXCEPTION_BITMAP
        CR0_MASK CR0_READ_SHADOW CR4_READ_SHADOW HOST_RSP HOST_FS_BASE HOST_GS_BASE;
}

#[inline(always)]
fn tell<T: FieldValue>(shadow: &mut impl Vmcs, told: &mut u64, vmcs12: &Vmcs12, field: Field<T>) {
    let value = vmcs12.read(field);
    if value.to_u64() != *told {
        *told = value.to_u64();
        shadow.write(field, value);
    }
}

#[inline(always)]
fn take<T: FieldValue>(shadow: &impl Vmcs, vmcs12: &mut Vmcs12, field: Field<T>) -> u64 {
    let value = shadow.read(field).to_u64();
    if value != vmcs12.read(field).to_u64()
        && let Some(index) = fields::index(field.encoding())
    {
        vmcs12.set_value(Access { index, is_high: false }, value);
    }
    value
}

impl Told {
    /// Nothing yet; the processor has a page-modification log or not.
    pub(crate) fn new(has_log: bool) -> Self {
        Self { has_log, ..Self::default() }
    }
}

/// Whether VMREAD of the field does not exit.
pub(crate) fn is_read(access: Access) -> bool {
    READABLE.contains(&access.info().encoding)
}

/// Which of the two bitmaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bitmap {
    /// Of VMREAD.
    Read,
    /// Of VMWRITE.
    Write,
}

impl Bitmap {
    /// The bytes from `offset` on, with the index of the page-modification log or not; a whole bitmap would be much for
    /// the stack.
    pub(crate) fn piece(self, offset: usize, has_log: bool) -> [u8; PIECE_BYTES] {
        let shadowed = if self == Self::Read { READABLE } else { WRITABLE };
        let log = has_log.then_some(vmcs::PML_INDEX.encoding());
        let mut piece = [0xff; PIECE_BYTES];
        for encoding in shadowed.iter().copied().chain(log) {
            let byte = (encoding as usize / 8).wrapping_sub(offset);
            if let Some(byte) = piece.get_mut(byte) {
                *byte &= !(1 << (encoding % 8));
            }
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::nested::vmcs12::Dirty;
    use hw::sim::SimVmcs;

    #[test]
    fn what_l1_wrote_comes_back_and_is_dirty() {
        let (mut shadow, mut told, mut vmcs12) = (SimVmcs::default(), Told::default(), Vmcs12::new());
        vmcs12.write(vmcs::GUEST_RIP, 5);
        vmcs12.write(vmcs::EXCEPTION_BITMAP, 6);
        tell_all(&mut shadow, &mut told, &vmcs12);
        vmcs12.dirty = Dirty::empty();
        fetch(&shadow, &mut told, &mut vmcs12);
        assert_eq!(vmcs12.dirty, Dirty::empty());
        shadow.write(vmcs::GUEST_RIP, 7);
        fetch(&shadow, &mut told, &mut vmcs12);
        assert_eq!((vmcs12.read(vmcs::GUEST_RIP), vmcs12.dirty), (7, Dirty::empty()));
        shadow.write(vmcs::EXCEPTION_BITMAP, 8);
        fetch(&shadow, &mut told, &mut vmcs12);
        assert_eq!(vmcs12.read(vmcs::EXCEPTION_BITMAP), 8);
        assert!(vmcs12.dirty.contains(Dirty::CONTROLS));
    }

    #[test]
    fn only_shadowed_fields_pass_the_bitmaps() {
        let whole = |bitmap: Bitmap, has_log| -> Vec<u8> {
            (0..BITMAP_BYTES).step_by(PIECE_BYTES).flat_map(|offset| bitmap.piece(offset, has_log)).collect()
        };
        let (read, write) = (whole(Bitmap::Read, false), whole(Bitmap::Write, false));
        let passes = |bitmap: &[u8], encoding: u32| bitmap[encoding as usize / 8] >> (encoding % 8) & 1 == 0;
        let count = |bitmap: &[u8]| (0..0x8000).filter(|&e| passes(bitmap, e)).count();
        assert_eq!((count(&read), count(&write)), (READABLE.len(), WRITABLE.len()));
        assert!(passes(&read, vmcs::EXIT_REASON.encoding()) && !passes(&write, vmcs::EXIT_REASON.encoding()));
        let logged = [Bitmap::Read, Bitmap::Write].map(|bitmap| whole(bitmap, true));
        let log = vmcs::PML_INDEX.encoding();
        assert!(
            logged.iter().all(|bitmap| passes(bitmap, log)) && !passes(&read, log) && !passes(&write, log)
        );
        // Whatever L1 writes here takes part in checks; nothing translated is among it.
        assert!(!passes(&write, vmcs::EPT_POINTER.encoding()));
    }

    #[test]
    fn an_exit_tells_what_it_changed_and_nothing_of_the_controls() {
        let (mut shadow, mut told, mut vmcs12) = (SimVmcs::default(), Told::default(), Vmcs12::new());
        vmcs12.write(vmcs::EXIT_REASON, 10);
        vmcs12.write(vmcs::EXCEPTION_BITMAP, 6);
        tell_exit(&mut shadow, &mut told, &vmcs12);
        assert_eq!((shadow.read(vmcs::EXIT_REASON), shadow.read(vmcs::EXCEPTION_BITMAP)), (10, 0));
    }

    #[test]
    fn what_the_shadow_vmcs_holds_already_is_not_written_again() {
        let (mut shadow, mut told, mut vmcs12) = (SimVmcs::default(), Told::default(), Vmcs12::new());
        vmcs12.write(vmcs::GUEST_RIP, 5);
        vmcs12.write(vmcs::EXIT_REASON, 10);
        tell_all(&mut shadow, &mut told, &vmcs12);
        assert_eq!(shadow.writes().len(), READABLE.len());
        // L1 steps over an instruction that leaves L2 again.
        shadow.write(vmcs::GUEST_RIP, 7);
        fetch(&shadow, &mut told, &mut vmcs12);
        vmcs12.write(vmcs::GUEST_CR3, 0x1000);
        let before = shadow.writes().len();
        tell_exit(&mut shadow, &mut told, &vmcs12);
        assert_eq!(shadow.writes()[before..], [(vmcs::GUEST_CR3.encoding(), 0x1000)]);
        // And sets it back, so that the exit finds the state of the one before.
        shadow.write(vmcs::GUEST_RIP, 5);
        fetch(&shadow, &mut told, &mut vmcs12);
        vmcs12.write(vmcs::GUEST_RIP, 7);
        tell_exit(&mut shadow, &mut told, &vmcs12);
        assert_eq!(shadow.read(vmcs::GUEST_RIP), 7);
    }

    #[test]
    fn the_index_of_the_log_is_shadowed_where_there_is_one() {
        for has_log in [false, true] {
            let mut told = Told::new(has_log);
            let (mut shadow, mut vmcs12) = (SimVmcs::default(), Vmcs12::new());
            vmcs12.write(vmcs::PML_INDEX, 511);
            tell_all(&mut shadow, &mut told, &vmcs12);
            // The hypervisor logs a page, L1 empties the log.
            vmcs12.write(vmcs::PML_INDEX, 510);
            tell_exit(&mut shadow, &mut told, &vmcs12);
            assert_eq!(shadow.read(vmcs::PML_INDEX), if has_log { 510 } else { 0 });
            shadow.write(vmcs::PML_INDEX, 300);
            fetch(&shadow, &mut told, &mut vmcs12);
            assert_eq!(vmcs12.read(vmcs::PML_INDEX), if has_log { 300 } else { 510 });
        }
    }
}
