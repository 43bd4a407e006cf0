//! Use of the region's scratch area; all offsets are in bytes from the region's base.
//!
//! ```text
//! STACK    the secure loader's stack, on which the runtime is entered too
//! TABLES   the runtime's page tables, from the bottom up
//!          ... free for the runtime's further page tables ...
//! COPY     the handoff while it is checked; free once the runtime runs
//! BOOT     the page tables of the secure loader itself; free once the runtime runs
//! ```

use platform::handoff::{Handoff, RUNTIME_OFFSET, SCRATCH_OFFSET};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 0x1000;

/// Lowest byte of the stack; the page below is not mapped for the runtime.
pub const STACK: u64 = SCRATCH_OFFSET;
/// Size of the stack in bytes.
pub const STACK_SIZE: u64 = 4 * PAGE_SIZE;
/// First of the runtime's page tables.
pub const TABLES: u64 = STACK + STACK_SIZE;
/// The private copy of the [`Handoff`].
pub const COPY: u64 = BOOT - 8 * PAGE_SIZE;
/// Page tables that `entry.S` builds: PML4, then directory pointers and directory of the identity map, then
/// those of the linear map.
pub const BOOT: u64 = RUNTIME_OFFSET - 5 * PAGE_SIZE;

/// Largest hypervisor region that the linear map covers, in bytes.
pub const REGION_LIMIT: u64 = 512 << 20;
/// Virtual offset at which the secure loader's own map shows the first 2 MiB of memory, VGA text included.
pub const LOW_MEMORY: u64 = 511 << 21;

const _: () = assert!(size_of::<Handoff>() as u64 <= BOOT - COPY);
const _: () = assert!(TABLES + 8 * PAGE_SIZE <= COPY);
const _: () = assert!(REGION_LIMIT <= LOW_MEMORY);
