//! A compartment: everything that one piece of guest software can reach, and nothing else.
//!
//! It has second-level tables and guest page tables of its own, both built from scratch in frames of the
//! hypervisor, so nothing the guest does to its page tables changes what the compartment is. Its guest-physical
//! addresses are made up: the pages lie at 0 and on, page after page, and the guest page tables at
//! [`TABLES_START`] and on, read-only. Each CPU has one compartment, which is filled for what is to run there next; the
//! frames come from a stock that grows beforehand, so that filling cannot run out. Neighbours: `radix`
//! for the tables of the guest at large; the vendor's part enters and leaves compartments.

use super::root::TableRoot;
use core::marker::PhantomData;
use hw::PhysMemory;
use x86::address::HostPhysAddr;
use x86::mtrr::MemoryType;
use x86::paging::PAGE_SIZE;
use x86::paging::{Attributes, Entry, PageFlags, PageSize, Rights, TableFormat};

/// Most pages of a compartment: 16 MiB.
pub const PAGES_LIMIT: usize = 4096;
/// Most frames of a compartment's stock.
pub const STOCK_LIMIT: usize = 512;
/// Guest-physical address of the first guest page table.
pub const TABLES_START: u64 = 64 << 20;

const ZEROES: [u8; 4096] = [0; 4096];
/// Levels of second-level tables above the lowest: one table each serves all of a compartment.
const UPPER_LEVELS: usize = 3;
const TABLE_FLAGS: PageFlags = PageFlags::P.union(PageFlags::RW).union(PageFlags::US).union(PageFlags::A);

/// How linear addresses are translated in a compartment (SDM, "Paging Modes and Control Bits").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Two levels of 32-bit entries.
    Bits32,
    /// PDPTE registers and two levels of 64-bit entries.
    Pae,
    /// Four levels.
    Levels4,
    /// Five levels.
    Levels5,
}

impl Mode {
    /// Returns the number of levels that have tables.
    const fn levels(self) -> u8 {
        match self {
            Self::Bits32 | Self::Pae => 2,
            Self::Levels4 => 4,
            Self::Levels5 => 5,
        }
    }

    /// Bit of a linear address at which the index into a table of `level` begins; of level 3 for PDPTE registers.
    const fn shift(self, level: u8) -> u8 {
        match self {
            Self::Bits32 => 2 + 10 * level,
            _ => 3 + 9 * level,
        }
    }

    /// Tables of the highest level: four for PAE, one for each register.
    const fn tops(self) -> usize {
        if matches!(self, Self::Pae) { 4 } else { 1 }
    }
}

/// A page of a compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its linear address.
    pub linear: u64,
    /// Where it is.
    pub frame: HostPhysAddr,
    /// What may be done with it; reads always may.
    pub rights: Rights,
}

/// What a processor needs to run in a filled compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Root of the second-level tables.
    pub second_level: TableRoot,
    /// CR3.
    pub cr3: u64,
    /// The PDPTE registers, for PAE paging.
    pub pdptes: [u64; 4],
}

/// The stock lacks frames: it was not grown for what is to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall;

/// Why a compartment was not filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// As [`TooSmall`] says.
    TooSmall,
    /// A page would have been memory that is not the guest's.
    Foreign,
}

/// Returns the number of frames that a compartment needs for `runs` of pages (linear address, count), in ascending
/// order.
#[must_use]
pub fn frames_needed(mode: Mode, runs: impl IntoIterator<Item = (u64, u64)>) -> usize {
    let mut last = [None; 6];
    let mut tables = mode.tops() as u64;
    let mut pages = 0;
    for (start, count) in runs {
        pages += count;
        let end = start.saturating_add(count.saturating_mul(PAGE_SIZE)).saturating_sub(1);
        for level in 1..mode.levels() {
            let shift = mode.shift(level + 1);
            let (first, behind) = (start >> shift, (end >> shift) + 1);
            let seen = &mut last[usize::from(level)];
            // The table that the run before ended in serves this one too.
            tables += behind - first - u64::from(*seen == Some(first));
            *seen = Some(behind - 1);
        }
    }
    let lowest = pages.div_ceil(512) + tables.div_ceil(512);
    usize::try_from(tables + lowest).map_or(usize::MAX, |count| count + UPPER_LEVELS)
}

/// The compartment of one CPU. All zero before its first frame.
#[derive(Debug)]
pub struct Compartment<F> {
    /// A frame with the addresses of the stock's frames.
    directory: HostPhysAddr,
    stock: usize,
    used: usize,
    /// What the compartment is filled for; 0 for nothing.
    serial: u64,
    roots: Roots,
    format: PhantomData<F>,
}

impl<F: TableFormat> Default for Compartment<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: TableFormat> Compartment<F> {
    /// Makes an empty compartment without frames.
    #[must_use]
    pub const fn new() -> Self {
        let none = HostPhysAddr::new(0);
        Self {
            directory: none,
            stock: 0,
            used: 0,
            serial: 0,
            roots: Roots { second_level: TableRoot::new(none), cr3: 0, pdptes: [0; 4] },
            format: PhantomData,
        }
    }

    /// Lets the stock grow to `count` frames, from `take`. Frames are kept for good.
    ///
    /// # Errors
    ///
    /// What `take` says, or [`TooSmall`] above [`STOCK_LIMIT`].
    pub fn grow<M: PhysMemory, E: From<TooSmall>>(
        &mut self,
        memory: &M,
        count: usize,
        mut take: impl FnMut() -> Result<HostPhysAddr, E>,
    ) -> Result<(), E> {
        if count > STOCK_LIMIT {
            return Err(TooSmall.into());
        }
        if self.directory == HostPhysAddr::new(0) {
            self.directory = take()?;
        }
        while self.stock < count {
            let frame = take()?;
            memory.write_u64(self.slot(self.stock), frame.get());
            self.stock += 1;
        }
        Ok(())
    }

    /// Frames of the stock.
    #[must_use]
    pub const fn stock(&self) -> usize {
        self.stock
    }

    /// Returns where to enter, if the compartment is filled for `serial`.
    #[must_use]
    pub fn roots(&self, serial: u64) -> Option<Roots> {
        (serial != 0 && self.serial == serial).then_some(self.roots)
    }

    /// Makes the compartment consist of `pages`, for `serial`, which stands for just these pages in just this mode; all
    /// of them are the guest's, as `is_guests` says of each. Translations that the processor cached for the compartment
    /// before have to be dropped.
    ///
    /// # Errors
    ///
    /// [`FillError`]; the compartment is empty then.
    pub fn fill<M: PhysMemory>(
        &mut self,
        memory: &M,
        serial: u64,
        mode: Mode,
        pages: impl IntoIterator<Item = Page>,
        is_guests: impl Fn(HostPhysAddr) -> bool,
    ) -> Result<Roots, FillError> {
        // Nothing is to be entered while the tables are neither the old ones nor the new, nor where the stock ends
        // too soon.
        self.serial = 0;
        // All of them, before one is used again: an entry left over would map a page of the compartment before.
        for index in 0..self.used {
            memory.write(self.frame(memory, index), &ZEROES);
        }
        self.used = 0;
        let mut builder = Builder { compartment: self, memory, mode, guest_tables: 0 };
        let roots = builder.build(pages, is_guests)?;
        self.roots = roots;
        // Last: what is complete can be entered.
        self.serial = serial;
        Ok(roots)
    }

    fn slot(&self, index: usize) -> HostPhysAddr {
        HostPhysAddr::new(self.directory.get() + 8 * index as u64)
    }

    fn frame<M: PhysMemory>(&self, memory: &M, index: usize) -> HostPhysAddr {
        HostPhysAddr::new(memory.read_u64(self.slot(index)))
    }
}

/// A compartment on its way.
struct Builder<'a, M, F> {
    compartment: &'a mut Compartment<F>,
    memory: &'a M,
    mode: Mode,
    guest_tables: u64,
}

/// A guest page table: where it is, and where the compartment has it.
#[derive(Clone, Copy)]
struct GuestTable {
    frame: HostPhysAddr,
    gpa: u64,
}

impl<M: PhysMemory, F: TableFormat> Builder<'_, M, F> {
    fn build(
        &mut self,
        pages: impl IntoIterator<Item = Page>,
        is_guests: impl Fn(HostPhysAddr) -> bool,
    ) -> Result<Roots, FillError> {
        // The first frame of all, by which `compartment_root` finds it again.
        let root = self.take()?;
        let mut tops = [GuestTable { frame: root, gpa: 0 }; 4];
        for top in tops.iter_mut().take(self.mode.tops()) {
            *top = self.make_guest_table(root)?;
        }
        for (gpa, page) in (0..).step_by(4096).zip(pages) {
            if !is_guests(page.frame) {
                return Err(FillError::Foreign);
            }
            self.map(root, gpa, page.frame, page.rights | Rights::READ)?;
            self.map_linear(root, &tops, page, gpa)?;
        }
        let second_level = TableRoot::new(root);
        let pdpte = |table: GuestTable| table.gpa | PageFlags::P.bits();
        Ok(match self.mode {
            Mode::Pae => Roots { second_level, cr3: 0, pdptes: tops.map(pdpte) },
            _ => Roots { second_level, cr3: tops[0].gpa, pdptes: [0; 4] },
        })
    }

    fn take(&mut self) -> Result<HostPhysAddr, TooSmall> {
        if self.compartment.used >= self.compartment.stock {
            return Err(TooSmall);
        }
        self.compartment.used += 1;
        let frame = self.compartment.frame(self.memory, self.compartment.used - 1);
        Ok(frame)
    }

    /// Maps `frame` at the guest-physical address `gpa`.
    fn map(
        &mut self,
        root: HostPhysAddr,
        gpa: u64,
        frame: HostPhysAddr,
        rights: Rights,
    ) -> Result<(), TooSmall> {
        let mut table = root;
        for level in (2..=4).rev() {
            let slot = HostPhysAddr::new(table.get() + 8 * (gpa >> (3 + 9 * level) & 0x1ff));
            table = match F::decode(self.memory.read_u64(slot), level) {
                Entry::Table(next) => next,
                Entry::Empty | Entry::Leaf { .. } => {
                    let next = self.take()?;
                    self.memory.write_u64(slot, F::table(next));
                    next
                }
            };
        }
        let slot = HostPhysAddr::new(table.get() + 8 * (gpa >> 12 & 0x1ff));
        // Nobody else maps the page: its type is the hypervisor's own, whatever the guest's MTRRs and PAT say.
        let attributes = Attributes { memory_type: MemoryType::WriteBack, rights, is_decoy: false };
        self.memory.write_u64(slot, F::own_leaf(frame, PageSize::Size4K, attributes));
        Ok(())
    }

    fn make_guest_table(&mut self, root: HostPhysAddr) -> Result<GuestTable, TooSmall> {
        let frame = self.take()?;
        let gpa = TABLES_START + self.guest_tables * PAGE_SIZE;
        self.guest_tables += 1;
        self.map(root, gpa, frame, Rights::READ)?;
        Ok(GuestTable { frame, gpa })
    }

    /// Maps `page.linear` to `gpa` in the guest page tables. Accessed and dirty flags are set from the
    /// start, so the processor never writes; fetches are left to the second-level tables.
    fn map_linear(
        &mut self,
        root: HostPhysAddr,
        tops: &[GuestTable; 4],
        page: Page,
        gpa: u64,
    ) -> Result<(), TooSmall> {
        let register = if self.mode == Mode::Pae { page.linear >> 30 & 3 } else { 0 };
        let register = usize::try_from(register).unwrap_or(0);
        let mut table = tops.get(register).unwrap_or(&tops[0]).frame;
        for level in (2..=self.mode.levels()).rev() {
            let entry = self.entry(table, page.linear, level);
            table = if entry & PageFlags::P.bits() != 0 {
                self.guest_frame(entry)
            } else {
                let next = self.make_guest_table(root)?;
                self.set_entry(table, page.linear, level, next.gpa | TABLE_FLAGS.bits());
                next.frame
            };
        }
        let mut flags = PageFlags::P | PageFlags::US | PageFlags::A | PageFlags::D;
        flags.set(PageFlags::RW, page.rights.contains(Rights::WRITE));
        self.set_entry(table, page.linear, 1, gpa | flags.bits());
        Ok(())
    }

    /// Returns where the guest page table is that an entry names.
    fn guest_frame(&self, entry: u64) -> HostPhysAddr {
        let gpa = entry & !(PAGE_SIZE - 1);
        let mut table = self.compartment_root();
        for level in (1..=4_u8).rev() {
            let slot = HostPhysAddr::new(table.get() + 8 * (gpa >> (3 + 9 * level) & 0x1ff));
            match F::decode(self.memory.read_u64(slot), level) {
                Entry::Table(next) => table = next,
                Entry::Leaf { page, .. } => return page,
                Entry::Empty => return table,
            }
        }
        table
    }

    fn compartment_root(&self) -> HostPhysAddr {
        self.compartment.frame(self.memory, 0)
    }

    fn entry(&self, table: HostPhysAddr, linear: u64, level: u8) -> u64 {
        let index = linear >> self.mode.shift(level);
        if self.mode == Mode::Bits32 {
            let mut bytes = [0; 4];
            self.memory.read(HostPhysAddr::new(table.get() + 4 * (index & 0x3ff)), &mut bytes);
            u64::from(u32::from_le_bytes(bytes))
        } else {
            self.memory.read_u64(HostPhysAddr::new(table.get() + 8 * (index & 0x1ff)))
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a compartment's guest-physical addresses are small")]
    fn set_entry(&self, table: HostPhysAddr, linear: u64, level: u8, entry: u64) {
        let index = linear >> self.mode.shift(level);
        if self.mode == Mode::Bits32 {
            let slot = HostPhysAddr::new(table.get() + 4 * (index & 0x3ff));
            self.memory.write(slot, &(entry as u32).to_le_bytes());
        } else {
            self.memory.write_u64(HostPhysAddr::new(table.get() + 8 * (index & 0x1ff)), entry);
        }
    }
}

impl From<TooSmall> for FillError {
    fn from(_: TooSmall) -> Self {
        Self::TooSmall
    }
}

#[cfg(test)]
#[path = "compartment_tables_tests.rs"]
mod tests;
