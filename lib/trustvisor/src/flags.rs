//! What a PAL is registered with: EDX of [`Command::REGISTER_WITH_FLAGS`](crate::command::Command::REGISTER_WITH_FLAGS).
//!
//! They are in the PAL's header: a system that registers a PAL with others makes another PAL of it, which opens nothing
//! of the first one's.

/// The process may share more pages with the PAL.
pub const ACCEPTS_SHARE: u32 = 1 << 0;
/// A suspended call may be given up: the PAL keeps its data in order at every instruction.
pub const ABORTABLE: u32 = 1 << 1;
/// The PAL prints to the hypervisor's log. It opens nothing that PALs without this flag sealed, and every quote says that
/// it has it.
pub const DEBUG: u32 = 1 << 2;
/// All that there are.
pub const ALL: u32 = ACCEPTS_SHARE | ABORTABLE | DEBUG;
/// What the original's registration means.
pub const ORIGINAL: u32 = ACCEPTS_SHARE;
