//! The runtime's address space: the hypervisor region, linear at `VIRTUAL_BASE`, no page both writable and
//! executable (SDM, "4-Level Paging and 5-Level Paging").
//!
//! Pages of 4 KiB map the first 4 MiB, where the images are and where the runtime may want guard pages, and
//! wherever two rights meet; pages of 2 MiB map the rest.

use crate::scratch::{COPY, STACK, TABLES};
use core::fmt;
use hw::PhysMemory;
use platform::handoff::{
    HANDOFF_OFFSET, Handoff, ImageHeader, LOADER_SIZE, PhysRange, RUNTIME_OFFSET, VIRTUAL_BASE,
};
use x86::address::HostPhysAddr;
use x86::paging::{PAGE_SIZE, PageFlags};

/// What the runtime may do with a range of its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

/// A range of the region, in bytes from its base, page-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: u64,
    /// First byte behind the range.
    pub end: u64,
    /// What the runtime may do with it.
    pub rights: Rights,
}

/// The finished tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// Physical address of the PML4 table.
    pub root: HostPhysAddr,
    /// Pages of the scratch area that the runtime may use for more tables, by physical address.
    pub free: PhysRange,
}

/// Returns what the runtime sees of a region of `length` bytes; what is not listed is not mapped, among it the page
/// under the stack.
#[must_use]
pub fn layout(runtime: &ImageHeader, length: u64) -> [Mapping; 6] {
    let handoff_end = HANDOFF_OFFSET + (size_of::<Handoff>() as u64).next_multiple_of(PAGE_SIZE);
    let map = |start, end, rights| Mapping { start, end, rights };
    [
        map(0, LOADER_SIZE, Rights::ReadExecute),
        map(HANDOFF_OFFSET, handoff_end, Rights::ReadWrite),
        map(STACK, RUNTIME_OFFSET, Rights::ReadWrite),
        map(RUNTIME_OFFSET, runtime.text_end, Rights::ReadExecute),
        map(runtime.text_end, runtime.rodata_end, Rights::Read),
        map(runtime.rodata_end, length, Rights::ReadWrite),
    ]
}

/// Builds the tables for `mappings` of the region in its scratch area.
///
/// # Errors
///
/// [`OutOfTables`] where the scratch area is too small; no sound [`layout`] needs that many tables.
pub fn build(
    memory: &impl PhysMemory,
    region: PhysRange,
    mappings: &[Mapping],
) -> Result<AddressSpace, OutOfTables> {
    let mut tables = Tables { memory, next: region.base + TABLES, end: region.base + COPY };
    let root = tables.allocate()?;
    let pointers = tables.allocate()?;
    let directory = tables.allocate()?;
    tables.set(root, index(VIRTUAL_BASE, 39), pointers | TABLE);
    tables.set(pointers, index(VIRTUAL_BASE, 30), directory | TABLE);
    for start in (0..region.length / LARGE_PAGE).map(|page| page * LARGE_PAGE) {
        let entry = match uniform_rights(mappings, start) {
            Some(rights) if start >= SMALL_PAGES_END => {
                (region.base + start) | leaf(rights) | PageFlags::PS.bits()
            }
            _ => tables.page_table(region.base, start, mappings)? | TABLE,
        };
        tables.set(directory, index(VIRTUAL_BASE + start, 21), entry);
    }
    let free = PhysRange { base: tables.next, length: region.base + RUNTIME_OFFSET - tables.next };
    Ok(AddressSpace { root: HostPhysAddr::new(root), free })
}

/// Returns the rights of the 2 MiB from `start` on, where they are the same throughout.
fn uniform_rights(mappings: &[Mapping], start: u64) -> Option<Rights> {
    let covers = |m: &&Mapping| m.start <= start && start + LARGE_PAGE <= m.end;
    mappings.iter().find(covers).map(|m| m.rights)
}

fn rights_at(mappings: &[Mapping], offset: u64) -> Option<Rights> {
    mappings.iter().find(|m| (m.start..m.end).contains(&offset)).map(|m| m.rights)
}

struct Tables<'a, M> {
    memory: &'a M,
    next: u64,
    end: u64,
}

impl<M: PhysMemory> Tables<'_, M> {
    fn allocate(&mut self) -> Result<u64, OutOfTables> {
        let table = self.next;
        if table >= self.end {
            return Err(OutOfTables);
        }
        self.next += PAGE_SIZE;
        for entry in 0..512 {
            self.set(table, entry, 0);
        }
        Ok(table)
    }

    fn set(&self, table: u64, index: u64, entry: u64) {
        self.memory.write_u64(HostPhysAddr::new(table + index * 8), entry);
    }

    fn page_table(&mut self, base: u64, start: u64, mappings: &[Mapping]) -> Result<u64, OutOfTables> {
        let table = self.allocate()?;
        for page in 0..512 {
            let offset = start + page * PAGE_SIZE;
            if let Some(rights) = rights_at(mappings, offset) {
                self.set(table, page, (base + offset) | leaf(rights));
            }
        }
        Ok(table)
    }
}

const LARGE_PAGE: u64 = 2 << 20;
const SMALL_PAGES_END: u64 = 2 * LARGE_PAGE;

/// Flags of an entry that names a table: the leaf decides.
const TABLE: u64 = PageFlags::P.union(PageFlags::RW).union(PageFlags::A).bits();

/// Flags of an entry that maps a page; accessed and dirty are set so that the processor never writes them.
const fn leaf(rights: Rights) -> u64 {
    let further = match rights {
        Rights::Read => PageFlags::XD,
        Rights::ReadWrite => PageFlags::RW.union(PageFlags::D).union(PageFlags::XD),
        Rights::ReadExecute => PageFlags::empty(),
    };
    PageFlags::P.union(PageFlags::A).union(further).bits()
}

const fn index(address: u64, shift: u32) -> u64 {
    address >> shift & 0x1ff
}

/// The scratch area holds no more page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTables;

impl fmt::Display for OutOfTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutOfTables: the runtime's page tables exceed the scratch area")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::HashMap;

    const BASE: u64 = 0x7e20_0000;

    /// Memory that holds stale ones wherever nothing was written.
    #[derive(Default)]
    struct Memory(RefCell<HashMap<u64, u64>>);

    impl PhysMemory for Memory {
        fn read(&self, _address: HostPhysAddr, _bytes: &mut [u8]) {
            unreachable!("tables are written by words");
        }
        fn write(&self, _address: HostPhysAddr, _bytes: &[u8]) {
            unreachable!("tables are written by words");
        }
        fn read_u64(&self, address: HostPhysAddr) -> u64 {
            self.0.borrow().get(&address.get()).copied().unwrap_or(u64::MAX)
        }
        fn write_u64(&self, address: HostPhysAddr, value: u64) {
            assert_eq!(address.get() % 8, 0);
            self.0.borrow_mut().insert(address.get(), value);
        }
    }

    /// Walks as the processor does: physical address, writable, executable.
    fn walk(memory: &Memory, root: HostPhysAddr, address: u64) -> Option<(u64, bool, bool)> {
        let (mut table, mut writable, mut executable) = (root.get(), true, true);
        for shift in [39, 30, 21, 12] {
            let entry = memory.read_u64(HostPhysAddr::new(table + (address >> shift & 0x1ff) * 8));
            if entry & 1 == 0 {
                return None;
            }
            writable &= entry & 2 != 0;
            executable &= entry >> 63 == 0;
            table = entry & 0x000f_ffff_ffff_f000;
            if shift == 12 || shift == 21 && entry & 0x80 != 0 {
                let offset = address & ((1 << shift) - 1);
                assert_eq!(table & ((1 << shift) - 1), 0, "a page is aligned to its size");
                return Some((table + offset, writable, executable));
            }
        }
        None
    }

    fn runtime(text_end: u64, rodata_end: u64) -> ImageHeader {
        ImageHeader {
            magic: 0,
            entry: 0,
            text_end,
            rodata_end,
            data_end: rodata_end,
            bss_end: rodata_end,
            pool_bytes: 0,
            pool_bytes_per_cpu: 0,
        }
    }

    fn built(runtime: &ImageHeader, length: u64) -> (Memory, AddressSpace) {
        let memory = Memory::default();
        let region = PhysRange { base: BASE, length };
        let space = build(&memory, region, &layout(runtime, length)).unwrap();
        (memory, space)
    }

    #[test]
    fn every_page_of_a_sample_has_its_rights() {
        let length = 10 << 20;
        let (text_end, rodata_end) = (0x9_3000, 0xa_5000);
        let (memory, space) = built(&runtime(text_end, rodata_end), length);
        for offset in (0..length).step_by(0x1000) {
            let expected = match offset {
                0..0x1_0000 => Some((false, true)),
                0x1_0000..0x1_8000 => Some((true, false)),
                0x1_8000..0x2_0000 => None,
                0x2_0000..0x4_0000 => Some((true, false)),
                0x4_0000..0x9_3000 => Some((false, true)),
                0x9_3000..0xa_5000 => Some((false, false)),
                _ => Some((true, false)),
            };
            let found = walk(&memory, space.root, VIRTUAL_BASE + offset);
            let expected = expected.map(|(w, x)| (BASE + offset, w, x));
            assert_eq!(found, expected, "offset {offset:#x}");
        }
    }

    #[test]
    fn nothing_else_is_mapped() {
        let length = 4 << 20;
        let (memory, space) = built(&runtime(0x5_0000, 0x6_0000), length);
        for address in [0, BASE, 0xb_8000, 0xffff_8000_0000_0000, VIRTUAL_BASE - 1, VIRTUAL_BASE + length] {
            assert_eq!(walk(&memory, space.root, address), None, "{address:#x}");
        }
    }

    #[test]
    fn large_pages_start_behind_the_first_4_mib() {
        let (_, space) = built(&runtime(0x5_0000, 0x6_0000), 512 << 20);
        // PML4, pointers, directory and two page tables; the free pages start behind them.
        assert_eq!(space.free.base, BASE + TABLES + 5 * 0x1000);
        assert_eq!(space.free.end(), Some(BASE + RUNTIME_OFFSET));
        assert_eq!(space.root, HostPhysAddr::new(BASE + TABLES));
    }

    #[test]
    fn too_many_borders_are_an_error_not_an_overrun() {
        let length = 128 << 20;
        let stripes: Vec<Mapping> = (0..64)
            .map(|i| Mapping { start: i << 21, end: (i << 21) + 0x1000, rights: Rights::Read })
            .collect();
        let memory = Memory::default();
        assert_eq!(build(&memory, PhysRange { base: BASE, length }, &stripes), Err(OutOfTables));
        let written = memory.0.borrow().keys().copied().max();
        assert!(written < Some(BASE + COPY));
    }

    proptest! {
        #[test]
        fn no_page_is_writable_and_executable(
            large_pages in 1..=16u64, text in 1..4096u64, rodata in 0..4096u64,
        ) {
            let length = large_pages << 21;
            let clamp = |pages: u64| (RUNTIME_OFFSET + pages * 0x1000).min(length);
            let (memory, space) = built(&runtime(clamp(text), clamp(text + rodata)), length);
            for offset in (0..length).step_by(0x1000) {
                if let Some((hpa, writable, executable)) = walk(&memory, space.root, VIRTUAL_BASE + offset) {
                    prop_assert_eq!(hpa, BASE + offset);
                    prop_assert!(!(writable && executable), "offset {:#x}", offset);
                }
            }
        }
    }
}
