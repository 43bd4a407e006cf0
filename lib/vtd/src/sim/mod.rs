//! A made-up unit with its memory and devices, by code of its own: what it makes of tables shares nothing with what the
//! crate writes them by.
//!
//! It is as forgetful and as stubborn as hardware may be: it keeps translations, contexts and tables on the way until
//! they are invalidated, sees of memory what was written back alone, and in caching mode keeps what is not there too.

mod memory;
mod registers;
mod walk;

pub(crate) use memory::SimMemory;

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Fault records.
pub(crate) const RECORDS: usize = 4;
/// Where they and the IOTLB's registers are.
pub(crate) const FAULT_OFFSET: usize = 0x200;
pub(crate) const IOTLB_OFFSET: usize = 0x100;

/// What a unit is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// SAGAW: 2, 4 and 8 stand for 3, 4 and 5 levels.
    pub(crate) widths: u64,
    /// SLLPS: 1 stands for 2 MiB, 2 for 1 GiB.
    pub(crate) large_pages: u64,
    pub(crate) is_coherent: bool,
    pub(crate) has_write_buffer: bool,
    pub(crate) is_caching_mode: bool,
    pub(crate) has_snoop_control: bool,
    pub(crate) has_queue: bool,
    pub(crate) has_page_selective: bool,
    pub(crate) sets_root_alone: bool,
    /// Reads of a register before a command is done; `u32::MAX` for never.
    pub(crate) delay: u32,
}

impl Model {
    /// A modern one.
    pub(crate) const MODERN: Self = Self {
        widths: 4,
        large_pages: 3,
        is_coherent: true,
        has_write_buffer: false,
        is_caching_mode: false,
        has_snoop_control: true,
        has_queue: true,
        has_page_selective: true,
        sets_root_alone: false,
        delay: 2,
    };
    /// The first ones.
    pub(crate) const OLD: Self = Self {
        widths: 2,
        large_pages: 0,
        is_coherent: false,
        has_write_buffer: true,
        is_caching_mode: false,
        has_snoop_control: false,
        has_queue: false,
        has_page_selective: false,
        sets_root_alone: false,
        delay: 3,
    };
    /// One that a hypervisor emulates.
    pub(crate) const EMULATED: Self = Self { is_caching_mode: true, widths: 6, ..Self::MODERN };
    /// All kinds of these.
    pub(crate) const ALL: [Self; 6] = [
        Self::MODERN,
        Self::OLD,
        Self::EMULATED,
        Self { is_coherent: false, ..Self::MODERN },
        Self { has_write_buffer: true, large_pages: 1, ..Self::MODERN },
        Self { sets_root_alone: true, has_queue: false, is_coherent: false, widths: 8, ..Self::MODERN },
    ];

    pub(crate) const fn capability(self) -> u64 {
        let flags = (self.has_write_buffer as u64) << 4
            | (self.is_caching_mode as u64) << 7
            | (self.has_page_selective as u64) << 39
            | (self.sets_root_alone as u64) << 63;
        let regions_and_draining = 1 << 5 | 1 << 6 | 3 << 54;
        let records = (FAULT_OFFSET as u64 / 16) << 24 | (RECORDS as u64 - 1) << 40;
        let widths = self.widths << 8 | 47 << 16 | self.large_pages << 34;
        flags | regions_and_draining | records | widths | 2 | 9 << 48
    }

    pub(crate) const fn extended(self) -> u64 {
        let queue = if self.has_queue { 2 | 8 | 16 } else { 0 };
        self.is_coherent as u64
            | queue
            | (self.has_snoop_control as u64) << 7
            | (IOTLB_OFFSET as u64 / 16) << 8
    }
}

/// A translation that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    to: u64,
    size: u64,
    read: bool,
    write: bool,
}

/// What the unit is made of.
#[derive(Debug)]
pub(crate) struct State {
    register: [u8; 0x400],
    /// As latched.
    root: u64,
    queue_head: u64,
    /// The status that a command leads to, and the reads until then.
    pending: Option<(u32, u32)>,
    /// Reads until a register command, by its offset, is done.
    busy: BTreeMap<usize, u32>,
    contexts: BTreeMap<u16, [u64; 2]>,
    pages: BTreeMap<(u16, u64), Page>,
    /// Tables on the way, by domain, level and the part of the address above.
    tables: BTreeMap<(u16, u32, u64), u64>,
    /// What is not there, in caching mode.
    absent_contexts: BTreeMap<u16, u8>,
    absent_pages: BTreeSet<(u16, u64)>,
    next_record: usize,
    /// Invalidations that were done: contexts, translations, interrupt entries.
    pub(crate) invalidations: [usize; 3],
}

/// The unit.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) model: Model,
    pub(crate) memory: SimMemory,
    pub(crate) state: RefCell<State>,
}

impl Sim {
    pub(crate) fn new(model: Model) -> Self {
        let state = State {
            register: [0; 0x400],
            root: 0,
            queue_head: 0,
            pending: None,
            busy: BTreeMap::new(),
            contexts: BTreeMap::new(),
            pages: BTreeMap::new(),
            tables: BTreeMap::new(),
            absent_contexts: BTreeMap::new(),
            absent_pages: BTreeSet::new(),
            next_record: 0,
            invalidations: [0; 3],
        };
        let memory = SimMemory::new(model.is_coherent, model.has_write_buffer);
        let this = Self { model, memory, state: RefCell::new(state) };
        this.state.borrow_mut().put32(0, 0x10);
        this
    }
}

impl State {
    fn get32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.register[at..at + 4].try_into().unwrap())
    }

    fn get64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.register[at..at + 8].try_into().unwrap())
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.register[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.register[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}
