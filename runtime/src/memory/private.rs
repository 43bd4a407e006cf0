//! Private memory: what a hypapp keeps from the rest of the hypervisor, and so from its speculation.
//!
//! The hypervisor has two address spaces. Every VM exit lands in the plain one, which lacks private memory; a hypapp
//! opens the other for as long as it works with its secrets. What is not mapped no wrong branch of ours can load.
//! Entries that lead to private memory are zero in the plain tables, not merely absent: a page-table entry that is not
//! present can still name what the first-level cache has (SDM, "Speculative Execution Side Channels").

use core::ops::Range;
use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::paging::{ADDRESS_MASK, PAGE_SIZE, PageFlags};

const ENTRIES: u64 = x86::paging::ENTRIES as u64;

const LARGE_PAGE: u64 = ENTRIES * PAGE_SIZE;
const TABLE: u64 = PageFlags::P.bits() | PageFlags::RW.bits();
const LARGE: u64 = PageFlags::PS.bits();

/// Takes `range` of linear addresses out of the tables under `root`, and returns the root of tables that still have
/// it. The range is of whole pages and lies in one GiB, which `root` maps; `frames` gives zeroed frames.
///
/// Both share every table but the few above the range, so a page that is mapped later in a table that is there is
/// mapped in both.
pub fn split(
    memory: &impl PhysMemory,
    root: HostPhysAddr,
    range: Range<u64>,
    frames: &mut dyn FnMut() -> HostPhysAddr,
) -> HostPhysAddr {
    // The tables that keep the range: a copy of each on the way to it.
    let with_range = copy(memory, root, frames);
    let mut plain = root;
    let mut kept = with_range;
    for level in [3, 2] {
        let at = index(range.start, level);
        let entry = read(memory, plain, at);
        plain = HostPhysAddr::new(entry & ADDRESS_MASK);
        let next = copy(memory, plain, frames);
        write(memory, kept, at, next.get() | entry & !ADDRESS_MASK);
        kept = next;
    }
    // The plain ones go on in their old places.
    for page in range.start / LARGE_PAGE..range.end.div_ceil(LARGE_PAGE) {
        let start = page * LARGE_PAGE;
        let at = index(start, 1);
        let end = start + LARGE_PAGE;
        let entry = if range.start <= start && end <= range.end {
            0
        } else {
            without(memory, read(memory, plain, at), start, &range, frames)
        };
        write(memory, plain, at, entry);
    }
    with_range
}

/// Returns the entry of a table that maps what `entry` maps from `start` on, but for `range`.
fn without(
    memory: &impl PhysMemory,
    entry: u64,
    start: u64,
    range: &Range<u64>,
    frames: &mut dyn FnMut() -> HostPhysAddr,
) -> u64 {
    let table = frames();
    for at in (0..ENTRIES).filter(|at| !range.contains(&(start + at * PAGE_SIZE))) {
        let small = if entry & LARGE == 0 {
            read(memory, HostPhysAddr::new(entry & ADDRESS_MASK), at)
        } else {
            (entry & !LARGE) + at * PAGE_SIZE
        };
        write(memory, table, at, small);
    }
    table.get() | TABLE
}

fn copy(
    memory: &impl PhysMemory,
    table: HostPhysAddr,
    frames: &mut dyn FnMut() -> HostPhysAddr,
) -> HostPhysAddr {
    let new = frames();
    for at in 0..ENTRIES {
        write(memory, new, at, read(memory, table, at));
    }
    new
}

fn read(memory: &impl PhysMemory, table: HostPhysAddr, at: u64) -> u64 {
    memory.read_u64(HostPhysAddr::new(table.get() + at * 8))
}

fn write(memory: &impl PhysMemory, table: HostPhysAddr, at: u64, entry: u64) {
    memory.write_u64(HostPhysAddr::new(table.get() + at * 8), entry);
}

const fn index(address: u64, level: u32) -> u64 {
    address >> (12 + 9 * level) & (ENTRIES - 1)
}

pub use bare::{Open, open, take, wipe_stack};
#[path = "private_bare.rs"]
mod bare;

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::SimMemory;

    const BASE: u64 = 0xffff_ffff_8000_0000;
    const ROOT: u64 = 0x1000;
    const NO_EXECUTE: u64 = PageFlags::XD.bits();

    /// 8 MiB at [`BASE`] from 4 GiB on: one table of small pages, then large ones.
    fn tables(memory: &SimMemory) {
        let table = |at, index, entry| memory.write_u64(HostPhysAddr::new(at + index * 8), entry);
        table(ROOT, 511, 0x2000 | TABLE);
        table(0x2000, 510, 0x3000 | TABLE);
        table(0x3000, 0, 0x4000 | TABLE);
        for page in 0..ENTRIES {
            table(0x4000, page, ((4 << 30) + page * PAGE_SIZE) | TABLE | NO_EXECUTE);
        }
        for page in 1..4 {
            table(0x3000, page, ((4 << 30) + page * LARGE_PAGE) | TABLE | LARGE | NO_EXECUTE);
        }
    }

    fn translate(memory: &SimMemory, root: HostPhysAddr, address: u64) -> Option<u64> {
        let mut table = root;
        for level in [3, 2, 1, 0] {
            let entry = read(memory, table, index(address, level));
            if entry & TABLE == 0 {
                assert_eq!(entry, 0, "an entry that names something");
                return None;
            }
            let is_leaf = level == 0 || entry & LARGE != 0;
            if is_leaf {
                assert_ne!(entry & NO_EXECUTE, 0);
                let size = 1 << (12 + 9 * level);
                return Some((entry & ADDRESS_MASK & !(size - 1)) | address & (size - 1));
            }
            table = HostPhysAddr::new(entry & ADDRESS_MASK);
        }
        None
    }

    #[test]
    fn the_plain_tables_lack_the_range_and_nothing_else() {
        let ranges = [
            0x1000..0x3000,
            0x1f_f000..0x20_1000,
            0x20_0000..0x40_0000,
            0x1f_f000..0x60_1000,
            0x40_3000..0x40_4000,
            0..0x80_0000,
        ];
        for range in ranges {
            let memory = SimMemory::new(0);
            tables(&memory);
            let mut next = 0x10_0000;
            let mut frames = || {
                next += PAGE_SIZE;
                HostPhysAddr::new(next)
            };
            let root = HostPhysAddr::new(ROOT);
            let open = split(&memory, root, BASE + range.start..BASE + range.end, &mut frames);
            for offset in (0..0x80_0000).step_by(4096) {
                let there = Some((4 << 30) + offset);
                let expected = if range.contains(&offset) { None } else { there };
                assert_eq!(translate(&memory, root, BASE + offset), expected, "{range:x?} {offset:#x}");
                assert_eq!(translate(&memory, open, BASE + offset), there, "{range:x?} {offset:#x}");
            }
        }
    }

    #[test]
    fn what_is_mapped_later_beside_it_is_mapped_in_both() {
        let memory = SimMemory::new(0);
        tables(&memory);
        let mut next = 0x10_0000;
        let mut frames = || {
            next += PAGE_SIZE;
            HostPhysAddr::new(next)
        };
        let open =
            split(&memory, HostPhysAddr::new(ROOT), BASE + LARGE_PAGE..BASE + 2 * LARGE_PAGE, &mut frames);
        memory.write_u64(HostPhysAddr::new(0x4000), 0x9000 | TABLE | NO_EXECUTE);
        for root in [HostPhysAddr::new(ROOT), open] {
            assert_eq!(translate(&memory, root, BASE), Some(0x9000));
        }
    }
}
