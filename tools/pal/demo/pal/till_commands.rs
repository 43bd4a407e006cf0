//! What a till's program and its PAL say to each other: the PAL's first argument, and a flag of its result.

pub(crate) const ADD: u32 = 1;
/// Seals the sum for versions from the number on; gives the blob's length.
pub(crate) const SAVE: u32 = 2;
/// Opens a blob of so many bytes.
pub(crate) const LOAD: u32 = 3;

/// Beside a status in the result.
pub(crate) const FAILED: usize = 1 << 31;
