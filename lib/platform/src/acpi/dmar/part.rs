//! Where in the table something is.

/// A part of the table: offsets of its first byte and of the first behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Physical address of the table.
    pub(super) table: u64,
    pub(super) at: u64,
    pub(super) end: u64,
}
