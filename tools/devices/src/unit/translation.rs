//! Where a device's access goes: root, context and second-level tables, with what the unit keeps of them ("Legacy Mode
//! Address Translation", "Caching Translation Information").

use super::registers::bits16;
use crate::bus::{Bus, SourceId};
use std::collections::HashMap;

/// Why an access is blocked ("Fault Reason Encodings").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    RootNotPresent = 1,
    ContextNotPresent = 2,
    ContextInvalid = 3,
    AddressTooWide = 4,
    WriteNotAllowed = 5,
    ReadNotAllowed = 6,
    RootReserved = 10,
    ContextReserved = 11,
    PageReserved = 12,
    InterruptReserved = 0x20,
    InterruptIndex = 0x21,
    InterruptNotPresent = 0x22,
    InterruptEntryReserved = 0x24,
    CompatibilityFormat = 0x25,
    InterruptSource = 0x26,
}

/// What an access through one page is granted.
#[derive(Clone, Copy, Debug)]
struct Page {
    to: u64,
    size: u64,
    reads: bool,
    writes: bool,
}

/// A context entry: the tables of a device.
#[derive(Clone, Copy, Debug)]
struct Context {
    tables: u64,
    kind: u64,
    width: u64,
    domain: u16,
}

/// How an access goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To this address.
    Mapped(u64),
    /// Untranslated, as the context says.
    PassThrough,
}

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Domain(u16),
    /// Contexts: of this device. Pages: `2^order` of them around the address, in the domain.
    Device(u16),
    Pages {
        domain: u16,
        address: u64,
        order: u32,
    },
}

/// What was read of the tables, until it is invalidated.
#[derive(Default)]
pub(crate) struct Translations {
    contexts: HashMap<SourceId, Context>,
    pages: HashMap<(u16, u64), Page>,
}

const ADDRESS: u64 = 0xffff_ffff_f000;

impl Translations {
    /// Translates an access that stays within a page.
    pub(crate) fn translate(
        &mut self,
        bus: &mut impl Bus,
        root: u64,
        source: SourceId,
        address: u64,
        writes: bool,
    ) -> Result<Target, Reason> {
        let context = match self.contexts.get(&source) {
            Some(context) => *context,
            None => {
                let context = read_context(bus, root, source)?;
                self.contexts.insert(source, context);
                context
            }
        };
        if !matches!(context.width, 1 | 2) || !matches!(context.kind, 0 | 2) {
            return Err(Reason::ContextInvalid);
        }
        if context.kind == 2 {
            return Ok(Target::PassThrough);
        }
        if address >> (30 + 9 * context.width) != 0 {
            return Err(Reason::AddressTooWide);
        }
        let page = match self.cached(context.domain, address) {
            Some(page) => page,
            None => self.walk(bus, context, address, writes)?,
        };
        page.allow(writes)?;
        Ok(Target::Mapped(page.to + (address & (page.size - 1))))
    }

    fn cached(&self, domain: u16, address: u64) -> Option<Page> {
        let of_size =
            |size: u64| self.pages.get(&(domain, address & !(size - 1))).filter(|page| page.size == size);
        [1 << 12, 1 << 21, 1 << 30].into_iter().find_map(of_size).copied()
    }

    /// What faults is not kept.
    fn walk(
        &mut self,
        bus: &mut impl Bus,
        context: Context,
        address: u64,
        writes: bool,
    ) -> Result<Page, Reason> {
        let mut page = Page { to: context.tables, size: 0, reads: true, writes: true };
        for level in (0..context.width + 2).rev() {
            let shift = 12 + 9 * level;
            let entry = bus.read64(page.to + (address >> shift & 0x1ff) * 8);
            page.reads &= entry & 1 != 0;
            page.writes &= entry & 2 != 0;
            page.allow(writes)?;
            let is_leaf = level == 0 || entry & 0x80 != 0;
            page.size = 1 << shift;
            page.to = entry & ADDRESS;
            let misaligned = is_leaf && page.to & (page.size - 1) != 0;
            if entry >> 48 & 0x3fff != 0 || is_leaf && level > 2 || misaligned {
                return Err(Reason::PageReserved);
            }
            if is_leaf {
                self.pages.insert((context.domain, address & !(page.size - 1)), page);
                return Ok(page);
            }
        }
        Err(Reason::PageReserved)
    }

    /// Forgets contexts. As the tables of a device may be others then, software forgets pages behind that.
    pub(crate) fn forget_contexts(&mut self, scope: Scope) {
        self.contexts.retain(|source, context| match scope {
            Scope::All => false,
            Scope::Domain(domain) => context.domain != domain,
            Scope::Device(device) => source.0 != device,
            Scope::Pages { .. } => true,
        });
    }

    /// Forgets pages.
    pub(crate) fn forget_pages(&mut self, scope: Scope) {
        self.pages.retain(|(domain, start), page| match scope {
            Scope::All => false,
            Scope::Domain(of) => *domain != of,
            Scope::Pages { domain: of, address, order } => {
                let size = 0x1000 << order;
                let from = address & !(size - 1);
                *domain != of || start + page.size <= from || from + size <= *start
            }
            Scope::Device(_) => true,
        });
    }
}

impl Page {
    fn allow(&self, writes: bool) -> Result<(), Reason> {
        match writes {
            true if !self.writes => Err(Reason::WriteNotAllowed),
            false if !self.reads => Err(Reason::ReadNotAllowed),
            _ => Ok(()),
        }
    }
}

fn read_context(bus: &mut impl Bus, root: u64, source: SourceId) -> Result<Context, Reason> {
    let [function, number] = source.0.to_le_bytes();
    let [low, high] = read_entry(bus, root & !0xfff, number);
    if low & 1 == 0 {
        return Err(Reason::RootNotPresent);
    }
    if low & 0xffe != 0 || low >> 48 != 0 || high != 0 {
        return Err(Reason::RootReserved);
    }
    let [low, high] = read_entry(bus, low & ADDRESS, function);
    if low & 1 == 0 {
        return Err(Reason::ContextNotPresent);
    }
    if low & 0xff0 != 0 || low >> 48 != 0 || high >> 24 != 0 || high & 0x80 != 0 {
        return Err(Reason::ContextReserved);
    }
    Ok(Context { tables: low & ADDRESS, kind: low >> 2 & 3, width: high & 7, domain: bits16(high, 8) })
}

fn read_entry(bus: &mut impl Bus, table: u64, index: u8) -> [u64; 2] {
    let address = table + u64::from(index) * 16;
    [bus.read64(address), bus.read64(address + 8)]
}
