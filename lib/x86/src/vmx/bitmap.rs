//! MSR bitmaps and I/O bitmaps (SDM, "MSR-Bitmap Address"; "I/O-Bitmap Addresses").

use crate::msr::Msr;

/// The 4 KiB MSR bitmap: read-low, read-high, write-low, write-high, 1 KiB each.
pub type MsrBitmap = [u8; 4096];
/// Both I/O bitmaps, one behind the other: a bit a port.
pub type IoBitmap = [u8; 8192];

const LOW: core::ops::RangeInclusive<u32> = 0..=0x1fff;
const HIGH: core::ops::RangeInclusive<u32> = 0xc000_0000..=0xc000_1fff;
const WRITE_OFFSET: usize = 2048;

/// Makes RDMSR (`read`) and WRMSR (`write`) of `msr` exit. MSRs outside both ranges always exit.
pub const fn intercept_msr(bitmap: &mut MsrBitmap, msr: Msr, read: bool, write: bool) {
    let bit = match msr.0 {
        number @ 0..=0x1fff => number as usize,
        number @ 0xc000_0000..=0xc000_1fff => (number - 0xc000_0000) as usize + 1024 * 8,
        _ => return,
    };
    if read {
        bitmap[bit / 8] |= 1 << (bit % 8);
    }
    if write {
        bitmap[WRITE_OFFSET + bit / 8] |= 1 << (bit % 8);
    }
}

/// Returns whether an access to `msr` exits under `bitmap`.
#[must_use]
pub fn is_msr_intercepted(bitmap: &MsrBitmap, msr: Msr, is_write: bool) -> bool {
    let bit = if LOW.contains(&msr.0) {
        msr.0 as usize
    } else if HIGH.contains(&msr.0) {
        (msr.0 - HIGH.start()) as usize + 1024 * 8
    } else {
        return true;
    };
    let offset = if is_write { WRITE_OFFSET } else { 0 };
    bitmap[offset + bit / 8] >> (bit % 8) & 1 == 1
}

/// Makes accesses to `port` exit.
pub const fn intercept_port(bitmap: &mut IoBitmap, port: u16) {
    bitmap[port as usize / 8] |= 1 << (port % 8);
}

#[cfg(test)]
mod tests {
    use super::{IoBitmap, MsrBitmap, intercept_msr, intercept_port, is_msr_intercepted};
    use crate::msr::Msr;

    #[test]
    fn ranges_of_the_bitmap_are_apart() {
        let mut bitmap: MsrBitmap = [0; 4096];
        intercept_msr(&mut bitmap, Msr(0x10), true, false);
        intercept_msr(&mut bitmap, Msr(0xc000_0080), false, true);
        intercept_msr(&mut bitmap, Msr(0x4000_0000), true, true);
        assert_eq!(bitmap.iter().map(|b| b.count_ones()).sum::<u32>(), 2);
        assert_eq!(bitmap[0x10 / 8], 1);
        assert_eq!(bitmap[3072 + 0x80 / 8], 1);
        assert!(is_msr_intercepted(&bitmap, Msr(0x10), false));
        assert!(!is_msr_intercepted(&bitmap, Msr(0x10), true));
        assert!(is_msr_intercepted(&bitmap, Msr(0xc000_0080), true));
        assert!(is_msr_intercepted(&bitmap, Msr(0x4000_0000), false));
    }

    #[test]
    fn last_port_is_the_last_bit() {
        let mut bitmap: IoBitmap = [0; 8192];
        intercept_port(&mut bitmap, 0xffff);
        assert_eq!(bitmap[8191], 0x80);
    }

    /// Byte and bit of an MSR for reads; `None` outside the bitmap (SDM, "MSR-Bitmap Address").
    fn place(number: u32) -> Option<usize> {
        match number {
            0..=0x1fff => Some(number as usize),
            0xc000_0000..=0xc000_1fff => Some(1024 * 8 + (number & 0x1fff) as usize),
            _ => None,
        }
    }

    #[test]
    fn every_msr_has_a_bit_for_reads_and_one_for_writes() {
        let edges = [0x2000, 0x2001, 0xbfff_ffff, 0xc000_2000, 0xc000_2001, u32::MAX];
        let inside = (0..=0x1fff).step_by(97).chain([0x1fff, 0xc000_0000, 0xc000_1fff]);
        for number in inside.chain((0xc000_0000..=0xc000_1fff).step_by(97)).chain(edges) {
            for (read, write) in [(true, false), (false, true), (true, true), (false, false)] {
                let mut bitmap: MsrBitmap = [0; 4096];
                intercept_msr(&mut bitmap, Msr(number), read, write);
                let set = |bit: usize| bitmap[bit / 8] & 1 << (bit % 8) != 0;
                let count = bitmap.iter().map(|byte| byte.count_ones()).sum::<u32>();
                let is_outside = place(number).is_none();
                assert_eq!(count, if is_outside { 0 } else { u32::from(read) + u32::from(write) });
                if let Some(bit) = place(number) {
                    assert_eq!((set(bit), set(2048 * 8 + bit)), (read, write), "{number:#x}");
                }
                let asked = [false, true].map(|is_write| is_msr_intercepted(&bitmap, Msr(number), is_write));
                assert_eq!(asked, [read || is_outside, write || is_outside], "{number:#x}");
            }
        }
    }

    #[test]
    fn every_port_has_a_bit() {
        for port in (0..=0xffff).step_by(1021).chain([0, 7, 8, 0x7fff, 0x8000, 0xffff]) {
            let mut bitmap: IoBitmap = [0; 8192];
            intercept_port(&mut bitmap, port);
            let set: Vec<usize> = (0..bitmap.len()).filter(|&byte| bitmap[byte] != 0).collect();
            assert_eq!((set, bitmap[usize::from(port / 8)]), (vec![usize::from(port / 8)], 1 << (port % 8)));
            intercept_port(&mut bitmap, port);
            assert_eq!(bitmap[usize::from(port / 8)], 1 << (port % 8), "again");
        }
    }
}
