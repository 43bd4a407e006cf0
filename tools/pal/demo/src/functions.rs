//! The PALs: functions that check where they run, and that work wherever they are copied to.
//!
//! All of them lie in one section of the program. They call nothing, have no constants in memory and use general
//! registers alone, so that a copy of the section is as good as the section.
#![expect(unsafe_code, reason = "pointers that a PAL's parameter list vouches for")]
// UNSAFETY: a PAL's arguments are pointers to as many words as its parameter list says.

use core::{ptr, slice};
use xmhf_pal::hypercall::probe;
use xmhf_pal::trustvisor::probe::{NOT_IN_PAL, PRESENT};

/// Bit of the first number that a PAL gets: it should find itself inside TrustVisor's protection.
pub const IN_PAL: usize = 1 << 31;
/// What a PAL returns where CPUID knows nothing of TrustVisor.
pub const NO_TRUSTVISOR: usize = 0xdead_0001;
/// What it returns where it should be protected and is not.
pub const NOT_PROTECTED: usize = 0xdead_0002;
/// What it returns where it is protected and should not be.
pub const PROTECTED: usize = 0xdead_0003;

/// Makes functions of the System V calling convention, whatever the system, in the section that is copied.
macro_rules! pals {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> usize $body:block)*) => {$(
        #[cfg(target_arch = "x86_64")]
        pals!(@one "sysv64", $(#[$meta])* fn $name($($argument: $type),*) $body);
        #[cfg(target_arch = "x86")]
        pals!(@one "C", $(#[$meta])* fn $name($($argument: $type),*) $body);
    )*};
    (@one $convention:literal, $(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),*) $body:block) => {
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// Each pointer is to as many words as the PAL's parameter list says.
        #[cfg_attr(target_os = "linux", unsafe(link_section = "palcode"))]
        #[cfg_attr(windows, unsafe(link_section = ".pal$m"))]
        #[inline(never)]
        pub unsafe extern $convention fn $name($($argument: $type),*) -> usize $body
    };
}

pals! {
    /// Gives `a` and the number at `b` together, and adds one to that.
    fn my_pal(a: usize, b: *mut usize) -> usize {
        if let Some(code) = misplaced(a) {
            return code;
        }
        // SAFETY: a word, by the parameter list.
        let number = unsafe { ptr::read(b) };
        // SAFETY: as above.
        unsafe { ptr::write(b, number.wrapping_add(1)) };
        (a & !IN_PAL).wrapping_add(number)
    }

    /// Gives each number times its place, together.
    fn integers(
        a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize, h: usize, i: usize, j: usize
    ) -> usize {
        if let Some(code) = misplaced(a) {
            return code;
        }
        let mut sum = a & !IN_PAL;
        weigh(&mut sum, 2, b);
        weigh(&mut sum, 3, c);
        weigh(&mut sum, 4, d);
        weigh(&mut sum, 5, e);
        weigh(&mut sum, 6, f);
        weigh(&mut sum, 7, g);
        weigh(&mut sum, 8, h);
        weigh(&mut sum, 9, i);
        weigh(&mut sum, 10, j);
        sum
    }

    /// Gives each number behind the pointers times its place, together, and adds one to each.
    fn pointers(
        a: *mut usize, b: *mut usize, c: *mut usize, d: *mut usize, e: *mut usize,
        f: *mut usize, g: *mut usize, h: *mut usize, i: *mut usize, j: *mut usize
    ) -> usize {
        // SAFETY: a word, by the parameter list.
        let first = unsafe { ptr::read(a) };
        if let Some(code) = misplaced(first) {
            return code;
        }
        // SAFETY: as above.
        unsafe { ptr::write(a, first.wrapping_add(1)) };
        let mut sum = first & !IN_PAL;
        // SAFETY: each is a word, by the parameter list; the same for those that follow.
        weigh_and_add(&mut sum, 2, unsafe { slice::from_raw_parts_mut(b, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 3, unsafe { slice::from_raw_parts_mut(c, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 4, unsafe { slice::from_raw_parts_mut(d, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 5, unsafe { slice::from_raw_parts_mut(e, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 6, unsafe { slice::from_raw_parts_mut(f, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 7, unsafe { slice::from_raw_parts_mut(g, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 8, unsafe { slice::from_raw_parts_mut(h, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 9, unsafe { slice::from_raw_parts_mut(i, 1) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 10, unsafe { slice::from_raw_parts_mut(j, 1) });
        sum
    }

    /// Gives all numbers of five arrays times the array's place, together, and adds one to each.
    fn arrays(
        m: usize, a: *mut usize, n: usize, b: *mut usize, o: usize, c: *mut usize,
        p: usize, d: *mut usize, q: usize, e: *mut usize
    ) -> usize {
        if let Some(code) = misplaced(m) {
            return code;
        }
        let mut sum = 0;
        // SAFETY: as many words as the number in front says, by the parameter list; the same for those that follow.
        weigh_and_add(&mut sum, 1, unsafe { slice::from_raw_parts_mut(a, m & !IN_PAL) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 2, unsafe { slice::from_raw_parts_mut(b, n) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 3, unsafe { slice::from_raw_parts_mut(c, o) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 4, unsafe { slice::from_raw_parts_mut(d, p) });
        // SAFETY: as above.
        weigh_and_add(&mut sum, 5, unsafe { slice::from_raw_parts_mut(e, q) });
        sum
    }

    /// Does nothing, for measuring.
    fn nothing(a: usize) -> usize {
        a
    }
}

/// The code to return where CPUID does not say what the bit [`IN_PAL`] of `first` does.
#[inline(always)]
fn misplaced(first: usize) -> Option<usize> {
    let (present, number) = probe();
    match (present == PRESENT, number != NOT_IN_PAL, first & IN_PAL != 0) {
        (false, ..) => Some(NO_TRUSTVISOR),
        (true, false, true) => Some(NOT_PROTECTED),
        (true, true, false) => Some(PROTECTED),
        _ => None,
    }
}

#[inline(always)]
fn weigh(sum: &mut usize, weight: usize, number: usize) {
    *sum = sum.wrapping_add(weight.wrapping_mul(number));
}

#[inline(always)]
fn weigh_and_add(sum: &mut usize, weight: usize, numbers: &mut [usize]) {
    for number in numbers {
        weigh(sum, weight, *number);
        *number = number.wrapping_add(1);
    }
}

#[cfg(target_os = "linux")]
unsafe extern "C" {
    #[link_name = "__start_palcode"]
    static FIRST: u8;
    #[link_name = "__stop_palcode"]
    static LAST: u8;
}

/// The section's bytes.
#[cfg(target_os = "linux")]
#[must_use]
pub fn code() -> &'static [u8] {
    let (first, last) = (&raw const FIRST, &raw const LAST);
    // SAFETY: the linker's marks around the section, which stays as it is.
    unsafe { slice::from_raw_parts(first, last.addr() - first.addr()) }
}

#[cfg(windows)]
mod marks {
    //! First and last of the section, by the alphabet.
    use core::arch::naked_asm;

    #[unsafe(naked)]
    #[unsafe(link_section = ".pal$a")]
    pub(super) extern "C" fn first() {
        naked_asm!("ret")
    }

    #[unsafe(naked)]
    #[unsafe(link_section = ".pal$z")]
    pub(super) extern "C" fn last() {
        naked_asm!("ret")
    }
}

/// The section's bytes.
#[cfg(windows)]
#[must_use]
pub fn code() -> &'static [u8] {
    let (first, last) = (marks::first as *const u8, marks::last as *const u8);
    // SAFETY: both lie in the section, which stays as it is.
    unsafe { slice::from_raw_parts(first, last.addr() - first.addr()) }
}
