//! The exception table of this image (see [`crate::exception_table`]).

use crate::exception_table::{self, Entry};

unsafe extern "C" {
    static __exception_table_start: Entry;
    static __exception_table_end: Entry;
}

/// Returns where to go on after exception `vector` of the instruction at `rip`; `None` where none is expected.
#[must_use]
pub fn resume_address(vector: u64, rip: u64) -> Option<u64> {
    let start = &raw const __exception_table_start;
    let end = &raw const __exception_table_end;
    // SAFETY: both symbols bound one array of entries in the image (linker.ld).
    let count = unsafe { end.offset_from_unsigned(start) };
    // SAFETY: as above; the array is read-only and lives as long as the image.
    let table = unsafe { core::slice::from_raw_parts(start, count) };
    exception_table::resume_address(table, vector, rip)
}
