//! Extended page tables for a guest of this guest (SDM, "The Extended Page Table Mechanism (EPT)").

use super::page;

const PRESENT: u64 = 7;
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0xf_ffff_ffff_f000;
/// Write-back tables of four levels.
const POINTER: u64 = 3 << 3 | 6;

/// Tables of the first 4 GiB and whatever a test changes in them.
#[derive(Debug)]
pub struct Ept {
    root: u64,
}

impl Ept {
    /// The first 4 GiB as they are, by 2 MiB pages, write-back.
    pub fn identity() -> Self {
        let ept = Self { root: page::allocate() };
        let directories = page::allocate();
        page::write(ept.root, directories | PRESENT);
        for gib in 0..4 {
            let table = page::allocate();
            page::write(directories + 8 * gib, table | PRESENT);
            for index in 0..512 {
                let address = gib << 30 | index << 21;
                page::write(table + 8 * index, address | LARGE | WRITE_BACK | PRESENT);
            }
        }
        ept
    }

    /// What the EPT-pointer field takes.
    pub fn pointer(&self) -> u64 {
        self.root | POINTER
    }

    /// Address of the root table.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Address of the entry of `level` (4 is the root's, 1 a 4 KiB page's) for `gpa`; large pages on the way
    /// become tables of the same translations, and missing tables become empty ones.
    pub fn entry(&mut self, gpa: u64, level: u32) -> u64 {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let entry = table + 8 * index(gpa, above);
            table = next(entry, above);
        }
        table + 8 * index(gpa, level)
    }

    /// Makes the 4 KiB page at `gpa` translate to `target` with `rights` (1 read, 2 write, 4 execute).
    pub fn map(&mut self, gpa: u64, target: u64, rights: u64) {
        let entry = self.entry(gpa, 1);
        page::write(entry, target | WRITE_BACK | rights);
    }

    /// Makes the 4 KiB page at `gpa` absent.
    pub fn unmap(&mut self, gpa: u64) {
        let entry = self.entry(gpa, 1);
        page::write(entry, 0);
    }
}

fn index(gpa: u64, level: u32) -> u64 {
    gpa >> (12 + 9 * (level - 1)) & 511
}

/// The table that `entry` of `level` leads to, made where it does not.
fn next(entry: u64, level: u32) -> u64 {
    let value = page::read(entry);
    if value & PRESENT != 0 && value & LARGE == 0 {
        return value & ADDRESS;
    }
    let table = page::allocate();
    if value & PRESENT != 0 {
        let step = 1 << (12 + 9 * (level - 2));
        let flags = if level == 2 { value & 0xfff & !LARGE } else { value & 0xfff };
        for index in 0..512 {
            page::write(table + 8 * index, ((value & ADDRESS) + index * step) | flags);
        }
    }
    page::write(entry, table | PRESENT);
    table
}
