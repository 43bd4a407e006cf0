//! Who may register PALs: ECX of [`Command::ADMIT`](crate::command::Command::ADMIT). At first everybody may, unless
//! the boot command line says `pal_register=admitted`.

/// Every process.
pub const EVERYBODY: u32 = 0;
/// Only the processes that have been admitted.
pub const ADMITTED: u32 = 1;
/// Admits the process whose top page table is at EDX.
pub const ADMIT: u32 = 2;
/// Takes that back, and leaves its PALs alone.
pub const DISMISS: u32 = 3;
/// Most processes that are admitted at a time.
pub const CAPACITY: usize = 64;
