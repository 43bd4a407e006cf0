//! How the secure loader came to run.

/// The launch that led here; a measured launch (Intel TXT) becomes a second variant, with its own duties
/// before the handoff is read: restoring MTRRs, DMA protection, waking the other processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// The bootloader jumped here; nothing was measured.
    Plain,
}

impl Launch {
    /// Returns the launch of this boot: nothing but a plain jump can lead here yet.
    #[must_use]
    pub const fn of_this_boot() -> Self {
        Self::Plain
    }

    /// Returns the name that the boot line shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
        }
    }
}
