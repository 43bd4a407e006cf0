//! `libxmhf-pal.a`: PALs for programs in C, as `tools/pal/include/xmhf_pal.h` describes them.
//!
//! Needs no C library. The PAL's own side is in the header alone, for it runs where no library is.
#![no_std]
#![expect(unsafe_code, reason = "functions for C")]
// UNSAFETY: pointers are the C program's, as the header has them; the text of an error stays in a buffer of its caller.

use core::ffi::{c_char, c_int};
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::{ptr, slice};
use xmhf_pal::trustvisor::parameter::ParameterRecord;
use xmhf_pal::{Error, Image, Pal};

/// Bytes of `struct xmhf_pal` in the header.
const PAL_BYTES: usize = 128;

/// `struct xmhf_pal`: a registered PAL.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct XmhfPal {
    is_registered: usize,
    pal: MaybeUninit<Pal>,
    parameters: usize,
}

const _: () = assert!(size_of::<XmhfPal>() <= PAL_BYTES);

/// `struct xmhf_pal_error`: why something failed, in words.
#[derive(Debug)]
#[repr(C)]
pub struct XmhfPalError {
    text: [c_char; 256],
}

/// Whether TrustVisor is there.
#[unsafe(no_mangle)]
pub extern "C" fn xmhf_pal_present() -> c_int {
    c_int::from(xmhf_pal::is_present())
}

/// Registers the PAL in the file at `file`, with `flags`.
///
/// # Safety
///
/// As in the header: `file` and `parameters` can be read, the latter until the PAL is unregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xmhf_pal_register_with(
    pal: &mut MaybeUninit<XmhfPal>,
    file: *const u8,
    bytes: usize,
    parameters: *const ParameterRecord,
    count: usize,
    flags: u32,
    error: Option<&mut XmhfPalError>,
) -> c_int {
    // SAFETY: the header's duty.
    let file = unsafe { slice::from_raw_parts(file, bytes) };
    let parameters = if count == 0 { ptr::dangling() } else { parameters };
    // SAFETY: the header's duty.
    let parameters = unsafe { slice::from_raw_parts(parameters, count) };
    let registered = Image::parse(file).map_err(Error::from);
    match registered.and_then(|image| Pal::register(&image, parameters, flags)) {
        Ok(registered) => {
            pal.write(XmhfPal { is_registered: 1, pal: MaybeUninit::new(registered), parameters: count });
            0
        }
        Err(why) => {
            pal.write(XmhfPal { is_registered: 0, pal: MaybeUninit::uninit(), parameters: 0 });
            explain(error, why)
        }
    }
}

/// Gives up a call that its thread has left for good.
#[unsafe(no_mangle)]
pub extern "C" fn xmhf_pal_abort(pal: &XmhfPal, error: Option<&mut XmhfPalError>) -> c_int {
    if pal.is_registered == 0 {
        return explain(error, Error::Arguments);
    }
    // SAFETY: the mark says that there is a PAL.
    let registered = unsafe { pal.pal.assume_init_ref() };
    match registered.registration().abort() {
        Ok(()) => 0,
        Err(why) => explain(error, why),
    }
}

/// Calls a PAL with one word for each parameter.
///
/// # Safety
///
/// As in the header: words of pointers name memory of the registered size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xmhf_pal_call(
    pal: &XmhfPal,
    words: *const usize,
    result: Option<&mut usize>,
    error: Option<&mut XmhfPalError>,
) -> c_int {
    if pal.is_registered == 0 {
        return explain(error, Error::Arguments);
    }
    let words = if pal.parameters == 0 { ptr::dangling() } else { words };
    // SAFETY: the header's duty: as many words as parameters.
    let words = unsafe { slice::from_raw_parts(words, pal.parameters) };
    // SAFETY: the mark says that there is a PAL.
    let registered = unsafe { pal.pal.assume_init_ref() };
    // SAFETY: the header's duty.
    match unsafe { registered.registration().call(words) } {
        Ok(value) => {
            if let Some(result) = result {
                *result = value;
            }
            0
        }
        Err(why) => explain(error, why),
    }
}

/// Gives a PAL `count` ranges of the process's pages, which both use from then on.
///
/// # Safety
///
/// As in the header: both lists have as many numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xmhf_pal_share(
    pal: &XmhfPal,
    addresses: *const u32,
    bytes: *const u32,
    count: usize,
    error: Option<&mut XmhfPalError>,
) -> c_int {
    if pal.is_registered == 0 || count == 0 {
        return explain(error, Error::Arguments);
    }
    // SAFETY: the header's duty.
    let addresses = unsafe { slice::from_raw_parts(addresses, count) };
    // SAFETY: the header's duty.
    let bytes = unsafe { slice::from_raw_parts(bytes, count) };
    // SAFETY: the mark says that there is a PAL.
    let registered = unsafe { pal.pal.assume_init_ref() };
    match registered.registration().share(addresses, bytes) {
        Ok(()) => 0,
        Err(why) => explain(error, why),
    }
}

/// Ends a PAL and gives its memory back.
#[unsafe(no_mangle)]
pub extern "C" fn xmhf_pal_unregister(pal: &mut XmhfPal, error: Option<&mut XmhfPalError>) -> c_int {
    if pal.is_registered == 0 {
        return 0;
    }
    pal.is_registered = 0;
    // SAFETY: the mark said that there is a PAL, and does no more.
    let registered = unsafe { pal.pal.assume_init_read() };
    match registered.unregister() {
        Ok(()) => 0,
        Err(why) => explain(error, why),
    }
}

/// Tells why, and gives a number that is not 0.
fn explain(error: Option<&mut XmhfPalError>, why: Error) -> c_int {
    if let Some(error) = error {
        error.text = [0; 256];
        // What does not fit is left out.
        let _ = write!(Text { error, used: 0 }, "{why}");
    }
    match why {
        Error::Absent => 1,
        Error::Image(_) => 2,
        Error::AddressTaken { .. } | Error::Memory { .. } => 3,
        Error::Refused { .. } => 4,
        Error::Failed(_) => 5,
        Error::Faulted(_) => 6,
        Error::ListFull | Error::Arguments => 7,
    }
}

struct Text<'a> {
    error: &'a mut XmhfPalError,
    used: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays zero.
        let room = &mut self.error.text[self.used..255];
        for (place, byte) in room.iter_mut().zip(text.bytes()) {
            *place = c_char::from_ne_bytes([byte]);
            self.used += 1;
        }
        Ok(())
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    xmhf_pal::microtpm::give_up()
}
