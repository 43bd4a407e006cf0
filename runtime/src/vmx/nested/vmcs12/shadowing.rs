//! The shadow VMCS, from which L1's VMREAD and VMWRITE are served without an exit where the processor has one
//! (SDM, "VMCS Shadowing").
//!
//! It holds the fields that hypervisors touch at every exit; all others exit by the bitmaps. What an exit of L2
//! changed goes there, and what L1 wrote comes back at the next entry.

use super::Vmcs12;
use super::fields::{self, Access};
use hw::{Vmcs, VmcsData};
use x86::vmcs_fields;
use x86::vmx::vmcs::{self, FIELDS, Field, FieldValue, Shadow};

/// Bytes of the VMREAD and of the VMWRITE bitmap: a bit for each encoding of 15 bits, set where the access exits.
pub(crate) const BITMAP_BYTES: usize = 4096;
/// Bytes of a bitmap that are made at a time.
pub(crate) const PIECE_BYTES: usize = 256;

/// What the shadow VMCS holds of the fields that an exit changes, unless L1 has written since.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The processor has a page-modification log, so that there is a field for its index.
    has_log: bool,
    /// By [`place`].
    values: [u64; place(u32::MAX)],
}

/// Returns the place in [`Told`] of the field with this encoding: so many that an exit tells come before it in the
/// table.
const fn place(encoding: u32) -> usize {
    let (mut index, mut place) = (0, 0);
    while index < FIELDS.len() && FIELDS[index].encoding != encoding {
        place += matches!(FIELDS[index].shadow, Shadow::Told | Shadow::State | Shadow::Log) as usize;
        index += 1;
    }
    place
}

/// Calls a macro for each row by its shadow column: `$each!(told NAME $args)`.
macro_rules! by_shadow {
    (($each:ident $args:tt)
        $($encoding:literal $type:ident $name:ident $text:literal $treatment:ident $shadow:tt [$($exists:tt)*];)*
    ) => {
        $($each!($shadow $name $args);)*
    };
}

macro_rules! told_value {
    ($told:ident, $name:ident) => {
        $told.values[const { place(vmcs::$name.encoding()) }]
    };
}

macro_rules! tell_field {
    (log $name:ident ($shadow:ident, $told:ident, $vmcs12:ident)) => {
        if $told.has_log {
            tell_field!(told $name ($shadow, $told, $vmcs12));
        }
    };
    (told $name:ident ($shadow:ident, $told:ident, $vmcs12:ident)) => {
        tell($shadow, &mut told_value!($told, $name), $vmcs12, vmcs::$name)
    };
    (state $name:ident $args:tt) => { tell_field!(told $name $args) };
    ($other:tt $name:ident $args:tt) => {};
}

macro_rules! forget_field {
    (control $name:ident $args:tt) => {};
    (- $name:ident $args:tt) => {};
    ($kind:tt $name:ident ($told:ident, $vmcs12:ident)) => {
        told_value!($told, $name) = !$vmcs12.read(vmcs::$name).to_u64()
    };
}

macro_rules! write_control {
    (control $name:ident ($shadow:ident, $vmcs12:ident)) => {
        $shadow.set(vmcs::$name, $vmcs12.read(vmcs::$name))
    };
    ($other:tt $name:ident $args:tt) => {};
}

macro_rules! fetch_field {
    (state $name:ident ($shadow:ident, $told:ident, $vmcs12:ident)) => {
        told_value!($told, $name) = take($shadow, $vmcs12, vmcs::$name)
    };
    (log $name:ident ($shadow:ident, $told:ident, $vmcs12:ident)) => {
        if $told.has_log {
            fetch_field!(state $name ($shadow, $told, $vmcs12));
        }
    };
    (control $name:ident ($shadow:ident, $told:ident, $vmcs12:ident)) => {
        take($shadow, $vmcs12, vmcs::$name)
    };
    ($other:tt $name:ident $args:tt) => {};
}

/// Writes to `shadow` what an exit of L2 changed in `vmcs12`. Before, everything was told, and what L1 wrote was
/// taken over.
#[inline]
pub(crate) fn tell_exit(shadow: &mut impl VmcsData, told: &mut Told, vmcs12: &Vmcs12) {
    vmcs_fields!(by_shadow!(tell_field(shadow, told, vmcs12)));
}

/// Writes all of `vmcs12` to `shadow`.
pub(crate) fn tell_all(shadow: &mut impl VmcsData, told: &mut Told, vmcs12: &Vmcs12) {
    // Whatever was told is not what it is now, so that all of it is told again.
    vmcs_fields!(by_shadow!(forget_field(told, vmcs12)));
    tell_exit(shadow, told, vmcs12);
    vmcs_fields!(by_shadow!(write_control(shadow, vmcs12)));
}

/// Takes over what L1 wrote to `shadow`.
#[inline]
pub(crate) fn fetch(shadow: &impl Vmcs, told: &mut Told, vmcs12: &mut Vmcs12) {
    vmcs_fields!(by_shadow!(fetch_field(shadow, told, vmcs12)));
}

#[inline(always)]
fn tell<T: FieldValue>(shadow: &mut impl VmcsData, told: &mut u64, vmcs12: &Vmcs12, field: Field<T>) {
    let value = vmcs12.read(field);
    if value.to_u64() != *told {
        *told = value.to_u64();
        shadow.set(field, value);
    }
}

#[inline(always)]
fn take<T: FieldValue, const IS_TRUSTED: bool>(
    shadow: &impl Vmcs,
    vmcs12: &mut Vmcs12,
    field: Field<T, IS_TRUSTED>,
) -> u64 {
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

/// Returns whether VMREAD of the field does not exit.
pub(crate) fn is_read(access: Access) -> bool {
    !matches!(access.info().shadow, Shadow::None | Shadow::Log)
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
    /// Returns the bytes from `offset` on, with the index of the page-modification log or not; a whole bitmap would be
    /// much for the stack.
    pub(crate) fn piece(self, offset: usize, has_log: bool) -> [u8; PIECE_BYTES] {
        let mut piece = [0xff; PIECE_BYTES];
        for field in FIELDS.iter().filter(|field| self.passes(field.shadow, has_log)) {
            let byte = (field.encoding as usize / 8).wrapping_sub(offset);
            if let Some(byte) = piece.get_mut(byte) {
                *byte &= !(1 << (field.encoding % 8));
            }
        }
        piece
    }

    /// Returns whether VMREAD or VMWRITE of such a field does not exit.
    fn passes(self, shadow: Shadow, has_log: bool) -> bool {
        match shadow {
            Shadow::None => false,
            Shadow::Told => self == Self::Read,
            Shadow::State | Shadow::Control => true,
            Shadow::Log => has_log,
        }
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
        assert_eq!((count(&read), count(&write)), (29, 18));
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
        assert_eq!(shadow.writes().len(), 29);
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
