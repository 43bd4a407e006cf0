//! The one pointer by which code finds the data of the processor that executes it: of a thread, here.

use core::cell::Cell;
use core::ptr::null;

thread_local! {
    static DATA: Cell<*const ()> = const { Cell::new(null()) };
}

/// Makes `data` what [`data`] returns on this processor.
///
/// # Safety
///
/// As on the real machine.
pub unsafe fn set_data(data: *const ()) {
    DATA.set(data);
}

/// Returns this processor's data.
///
/// # Panics
///
/// Where the thread has none.
///
/// # Safety
///
/// As on the real machine.
#[must_use]
pub unsafe fn data() -> *const () {
    let data = DATA.get();
    assert!(!data.is_null(), "this thread is no CPU of the hypervisor's");
    data
}
