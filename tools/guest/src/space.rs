//! Address spaces: the tables of [`crate::boot`] with a window of small pages of one's own, as a process has them.

use crate::cpu::{read_cr3, write_cr3};
use crate::memory::{read64, write64};

/// Linear address of the first page of the window.
pub const WINDOW: u64 = 2 << 39;
/// Pages of the window.
pub const WINDOW_PAGES: u64 = 512;
/// Bytes of memory that the tables take.
pub const BYTES: u64 = 4 * PAGE;

const PAGE: u64 = 4096;
const PRESENT: u64 = 1;
/// The page can be written.
pub const WRITABLE: u64 = 1 << 1;
/// Ring 3 can use the page.
pub const USER: u64 = 1 << 2;
/// The page cannot be executed, where EFER.NXE is set.
pub const EXECUTE_DISABLE: u64 = 1 << 63;

/// An address space. All else than the window is as in the one that was current when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    root: u64,
}

impl Space {
    /// Makes one, with its tables in [`BYTES`] of memory from `at` on.
    pub fn new(at: u64) -> Self {
        let old = read_cr3() & !0xfff;
        for offset in (0..PAGE).step_by(8) {
            let _ = write64(at + offset, read64(old + offset).unwrap_or(0));
            let _ = write64(at + 3 * PAGE + offset, 0);
        }
        for (entry, table) in [
            (at + WINDOW / (1 << 39) * 8, at + PAGE),
            (at + PAGE, at + 2 * PAGE),
            (at + 2 * PAGE, at + 3 * PAGE),
        ] {
            let _ = write64(entry, table | PRESENT | WRITABLE | USER);
        }
        Self { root: at }
    }

    /// The one whose tables are at `at`.
    pub const fn at(at: u64) -> Self {
        Self { root: at }
    }

    /// Has page `index` of the window be `physical`, with rights; nothing is flushed.
    pub fn map(&self, index: u64, physical: u64, rights: u64) {
        let _ = write64(self.entry(index), physical | rights | PRESENT);
    }

    /// Takes a page out of the window.
    pub fn unmap(&self, index: u64) {
        let _ = write64(self.entry(index), 0);
    }

    /// Physical address of a page's entry.
    pub fn entry(&self, index: u64) -> u64 {
        self.root + 3 * PAGE + 8 * (index % WINDOW_PAGES)
    }

    /// What CR3 is in this space.
    pub fn cr3(&self) -> u64 {
        self.root
    }

    /// Does `act` in this space.
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let old = read_cr3();
        let _ = write_cr3(self.root);
        let result = act();
        let _ = write_cr3(old);
        result
    }
}

/// Linear address of page `index` of the window.
pub const fn window(index: u64) -> u64 {
    WINDOW + index * PAGE
}
