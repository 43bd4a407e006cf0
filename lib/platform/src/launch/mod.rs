//! How the secure loader is started: what is placed where, and how the processor leaves for it.

mod plain;

use crate::handoff::PhysRange;
use crate::modules::HypervisorImage;

/// The ways to start the secure loader. The bootloader places and enters; the secure loader says how it came to run.
///
/// A measured launch (Intel TXT) becomes a second variant, with duties of the secure loader's before the handoff is
/// read: restoring MTRRs, DMA protection, waking the other processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// A jump, without measurement.
    Plain,
}

/// What a launch places.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The hypervisor region.
    pub region: PhysRange,
    /// The hypervisor image, where the boot loader put it.
    pub image: HypervisorImage,
    /// The hypapp's module, if there is one.
    pub hypapp: Option<HypappModule>,
}

/// A hypapp's module on its way.
#[derive(Clone, Copy, Debug)]
pub struct HypappModule {
    /// Where the boot loader put it.
    pub file: PhysRange,
    /// Where it goes.
    pub place: PhysRange,
}

/// The region that a launch fills, and the processor that leaves for it.
pub trait Ground {
    /// What leaving gives: on a machine, which does not come back, why it could not.
    type Left;

    /// Copies `length` bytes from one physical address to another, in the region; the two ranges may overlap.
    fn copy(&mut self, from: u64, to: u64, length: u64);
    /// Fills a range of the region with zeros.
    fn zero(&mut self, range: PhysRange);
    /// Jumps to the secure loader, in 32-bit protected mode without paging, EBX = `entry`.
    fn jump(&mut self, entry: Entry) -> Self::Left;
}

/// Physical address of the entry point of a secure loader that was placed.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry(u32);

/// A secure loader in its place.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Placed {
    launch: Launch,
    entry: Entry,
}

impl Launch {
    /// Returns the launch of this boot: nothing but a plain jump can lead to the secure loader yet.
    #[must_use]
    pub const fn of_this_boot() -> Self {
        Self::Plain
    }

    /// Returns the name that the log shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
        }
    }

    /// Fills the region, except for the handoff, whose place it clears.
    pub fn place(self, ground: &mut impl Ground, parts: &Parts) -> Placed {
        match self {
            Self::Plain => plain::place(ground, parts),
        }
        Placed { launch: self, entry: Entry(parts.entry()) }
    }
}

impl Placed {
    /// Leaves for the secure loader.
    pub fn enter<G: Ground>(self, ground: &mut G) -> G::Left {
        match self.launch {
            Launch::Plain => ground.jump(self.entry),
        }
    }
}

impl Entry {
    /// Returns the address.
    #[must_use]
    pub const fn address(&self) -> u32 {
        self.0
    }
}

impl Parts {
    /// Returns the physical address of the secure loader's entry point.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the region ends below 4 GiB")]
    pub const fn entry(&self) -> u32 {
        self.region.base as u32 + self.image.entry
    }
}
