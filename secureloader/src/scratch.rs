//! Use of the region's scratch area; all offsets are in bytes from the region's base.
//!
//! ```text
//! STACK    the secure loader's stack, on which the runtime is entered too; the page below is not mapped for it
//! TABLES   the runtime's page tables, from the bottom up
//!          ... free for the runtime's further page tables ...
//! COPY     the handoff while it is checked; free once the runtime runs
//! BOOT     the page tables of the secure loader itself, by which the runtime zeroes the region at its end
//! ```

use platform::handoff::{Handoff, LOADER_TABLES_OFFSET};
pub use platform::handoff::{STACK_OFFSET as STACK, STACK_SIZE};
use static_assertions::const_assert;
use x86::paging::PAGE_SIZE;

/// First of the runtime's page tables.
pub const TABLES: u64 = STACK + STACK_SIZE;
/// The private copy of the [`Handoff`].
pub const COPY: u64 = BOOT - 8 * PAGE_SIZE;
/// Page tables that `entry.S` builds: PML4, then directory pointers and directory of the identity map, then
/// those of the linear map.
pub const BOOT: u64 = LOADER_TABLES_OFFSET;

/// Largest hypervisor region that the linear map covers, in bytes.
pub const REGION_LIMIT: u64 = 512 << 20;
/// Virtual offset at which the secure loader's own map shows the first 2 MiB of memory, VGA text included.
pub const LOW_MEMORY: u64 = 511 << 21;

const_assert!(size_of::<Handoff>() as u64 <= BOOT - COPY);
const_assert!(TABLES + 8 * PAGE_SIZE <= COPY);
const_assert!(REGION_LIMIT <= LOW_MEMORY);
