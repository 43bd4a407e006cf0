//! DMA through the made-up unit: its walk, what it keeps of it, and the records of what it refuses.

use super::{FAULT_OFFSET, Page, RECORDS, Sim, State};

/// Bits of a physical address that a table may have.
const ADDRESS: u64 = 0xffff_ffff_f000;

impl Sim {
    /// Where an access of a device's within one page goes; else it is recorded and the reason given, 0 for protected
    /// memory.
    pub(crate) fn dma(&self, source: u16, address: u64, is_write: bool) -> Result<u64, u8> {
        let result = self.translate(source, address, is_write);
        if let Err(reason @ 1..) = result {
            self.state.borrow_mut().record(source, address, is_write, reason);
        }
        result
    }

    fn translate(&self, source: u16, address: u64, is_write: bool) -> Result<u64, u8> {
        if self.state.borrow().get32(0x1c) >> 31 == 0 {
            return if self.state.borrow().is_protected(address) { Err(0) } else { Ok(address) };
        }
        let [low, high] = self.context(source)?;
        let (kind, width, domain) = (low >> 2 & 3, high & 7, (high >> 8) as u16);
        if kind != 0 || !(1..=3).contains(&width) || self.model.widths >> width & 1 == 0 {
            return Err(3);
        }
        if address >> (30 + 9 * width) != 0 {
            return Err(4);
        }
        let refused = if is_write { 5 } else { 6 };
        let kept = {
            let state = self.state.borrow();
            if state.absent_pages.contains(&(domain, address & !0xfff)) {
                return Err(refused);
            }
            let sizes = [0x1000, 0x20_0000, 0x4000_0000];
            let find = |size: u64| {
                let page = state.pages.get(&(domain, address & !(size - 1)));
                page.copied().filter(|page| page.size == size)
            };
            sizes.into_iter().find_map(find)
        };
        let page = match kept {
            Some(page) => page,
            None => self.walk(domain, low & ADDRESS, width as u32 + 2, address, refused)?,
        };
        let may = if is_write { page.write } else { page.read };
        if may { Ok(page.to + (address & (page.size - 1))) } else { Err(refused) }
    }

    /// The device's context, from what is kept or from the tables.
    fn context(&self, source: u16) -> Result<[u64; 2], u8> {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = state.contexts.get(&source) {
            return Ok(*entry);
        }
        if let Some(reason) = state.absent_contexts.get(&source) {
            return Err(*reason);
        }
        let mut absent = |reason| {
            if self.model.is_caching_mode {
                state.absent_contexts.insert(source, reason);
            }
            Err(reason)
        };
        let at = (state.root & !0xfff) + u64::from(source >> 8) * 16;
        let [root, more] = [at, at + 8].map(|half| self.memory.walked(half));
        if root & 1 == 0 {
            return absent(1);
        }
        if root & 0xffe != 0 || root >> 48 != 0 || more != 0 {
            return Err(10);
        }
        let at = (root & ADDRESS) + u64::from(source & 0xff) * 16;
        let entry = [at, at + 8].map(|half| self.memory.walked(half));
        if entry[0] & 1 == 0 {
            return absent(2);
        }
        if entry[0] & 0xff0 != 0 || entry[0] >> 48 != 0 || entry[1] >> 24 != 0 || entry[1] & 0x80 != 0 {
            return Err(11);
        }
        state.contexts.insert(source, entry);
        Ok(entry)
    }

    fn walk(&self, domain: u16, root: u64, levels: u32, address: u64, refused: u8) -> Result<Page, u8> {
        let state = &mut *self.state.borrow_mut();
        // It begins at the lowest table that is kept, whatever those above say by now.
        let kept = |level: u32| {
            let above = address >> (12 + 9 * level) << (12 + 9 * level);
            state.tables.get(&(domain, level + 1, above)).map(|table| (level, *table))
        };
        let (start, mut table) = (1..levels).find_map(kept).unwrap_or((levels, root));
        let (mut read, mut write) = (true, true);
        for level in (1..=start).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry = self.memory.walked(table + (address >> shift & 0x1ff) * 8);
            (read, write) = (read && entry & 1 != 0, write && entry & 2 != 0);
            if entry & 3 == 0 {
                if self.model.is_caching_mode {
                    state.absent_pages.insert((domain, address & !0xfff));
                }
                return Err(refused);
            }
            let is_leaf = level == 1 || entry & 0x80 != 0;
            let large = level > 1 && is_leaf;
            let has_size = !large || level <= 3 && self.model.large_pages >> (level - 2) & 1 == 1;
            let reserved = entry >> 48 & 0x3fff != 0
                || entry & 0x800 != 0 && (!self.model.has_snoop_control || !is_leaf)
                || large && entry & ADDRESS & ((1 << shift) - 1) != 0;
            if !has_size || reserved {
                return Err(12);
            }
            if is_leaf {
                let size = 1 << shift;
                let page = Page { to: entry & ADDRESS, size, read, write };
                state.pages.insert((domain, address & !(size - 1)), page);
                return Ok(page);
            }
            table = entry & ADDRESS;
            state.tables.insert((domain, level, address & !((1 << shift) - 1)), table);
        }
        unreachable!("level 1 has leaves alone");
    }
}

impl State {
    fn is_protected(&self, address: u64) -> bool {
        const MORE: u64 = 0x1f_ffff;
        let low = u64::from(self.get32(0x68))..=u64::from(self.get32(0x6c)) | MORE;
        let high = self.get64(0x70)..=self.get64(0x78) | MORE;
        self.get32(0x64) & 1 == 1 && (low.contains(&address) || high.contains(&address))
    }

    fn record(&mut self, source: u16, address: u64, is_write: bool, reason: u8) {
        let at = FAULT_OFFSET + 16 * self.next_record;
        if self.get32(0x34) & 1 != 0 || self.get64(at + 8) >> 63 == 1 {
            let overflown = self.get32(0x34) | 1;
            return self.put32(0x34, overflown);
        }
        self.put64(at, address & !0xfff);
        let why = u64::from(source) | u64::from(reason) << 32 | u64::from(!is_write) << 62;
        self.put64(at + 8, why | 1 << 63);
        self.next_record = (self.next_record + 1) % RECORDS;
    }
}
