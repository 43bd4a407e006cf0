//! What other processors must forget before a change of the second-level tables is complete.

/// Whether every processor must drop its second-level translations.
///
/// Carried out without the lock on the tables: each CPU drops all of them (INVEPT of all contexts on Intel),
/// and then `SecondLevel::flushed` takes this value back, so that dropped tables can be used again.
#[must_use = "until they flush, processors use translations that no longer hold"]
#[derive(Debug, PartialEq, Eq)]
pub struct Flush {
    /// Number of frames retired when the change was made; `None` where nothing need be flushed.
    pub(super) retired: Option<u64>,
}

impl Flush {
    /// Nothing to flush.
    pub const NONE: Self = Self { retired: None };

    /// Some processor may hold what no longer holds.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.retired.is_some()
    }
}
