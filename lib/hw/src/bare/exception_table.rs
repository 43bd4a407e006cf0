//! Instructions that may fault, and where to go on when they do.
//!
//! An instruction in inline assembly is listed with [`crate::guarded`]'s table row; the hypervisor's
//! exception handlers look the faulting address up before they call it a bug.

/// A row of the table, as the assembly lays it down.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Address of an instruction that may raise an exception.
    pub instruction: u64,
    /// Where execution goes on then.
    pub resume: u64,
}

unsafe extern "C" {
    static __exception_table_start: Entry;
    static __exception_table_end: Entry;
}

/// Where to go on after an exception of the instruction at `rip`; `None` where none is expected.
#[must_use]
pub fn resume_address(rip: u64) -> Option<u64> {
    let start = &raw const __exception_table_start;
    let end = &raw const __exception_table_end;
    // SAFETY: both symbols bound one array of entries in the image (linker.ld).
    let count = unsafe { end.offset_from_unsigned(start) };
    // SAFETY: as above; the array is read-only and lives as long as the image.
    let table = unsafe { core::slice::from_raw_parts(start, count) };
    table.iter().find(|entry| entry.instruction == rip).map(|entry| entry.resume)
}

/// Assembly text of a table row: label 2 may fault, label 3 is where to go on.
#[macro_export]
macro_rules! guarded {
    () => {
        ".pushsection .exception_table, \"a\"\n.quad 2b, 3b\n.popsection"
    };
}
