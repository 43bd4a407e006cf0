//! How the secure loader is started.

mod plain;

use platform::handoff::PhysRange;

use crate::plan::Plan;

/// Memory that a launch fills.
pub trait Place {
    /// Copies `length` bytes from one physical address to another; the two ranges may overlap.
    fn copy(&mut self, from: u64, to: u64, length: u64);
    /// Fills a range with zeros.
    fn zero(&mut self, range: PhysRange);
}

/// The ways to start the secure loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// A jump, without measurement.
    Plain,
}

impl Launch {
    /// Returns the launch of this boot.
    #[must_use]
    pub const fn of_this_boot() -> Self {
        Self::Plain
    }

    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
        }
    }

    /// Fills the region, except for the handoff, and gives the physical address of the entry point.
    pub fn place(self, memory: &mut impl Place, plan: &Plan) -> u32 {
        match self {
            Self::Plain => plain::place(memory, plan),
        }
    }
}
