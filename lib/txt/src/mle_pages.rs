//! The page tables by which SINIT walks a measured launched environment (TXT guide, "MLE Page Table").
//!
//! Three levels as of physical-address extension: a directory pointer table, directories, tables of 4 KiB pages. Linear
//! address 0 is the MLE's first byte; pages stand without a gap and ascend in memory; the tables lie below the MLE and
//! ascend too. SINIT resets the machine where that is not so, hence the check here, before it is asked.

use crate::bytes::put;
use core::fmt;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// Bytes of an entry.
const ENTRY: u64 = 8;
const PRESENT: u64 = 1 << 0;
/// In a directory: a large page, which SINIT does not take.
const LARGE: u64 = 1 << 7;
/// Bits of an entry that are the address: SINIT takes none above 4 GiB.
const ADDRESS: u64 = 0xffff_f000;
const HIGH: u64 = 0xffff_ffff_0000_0000;
/// Pages that one directory maps, and these tables with it: 1 GiB.
const PAGES_LIMIT: u64 = ENTRIES * ENTRIES;

/// A part of memory in whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Physical address of the first.
    pub base: u64,
    /// How many.
    pub count: u64,
}

/// What is wrong with page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlePagesError {
    /// There is no page, or there are more than the tables can map.
    Count(u64),
    /// The tables' address is not that of a page below 4 GiB.
    Unaligned(u64),
    /// The tables need more bytes than there are.
    NoRoom {
        /// Bytes that they need.
        needed: u64,
    },
    /// The tables are not below the MLE, or either is not below 4 GiB.
    Place,
    /// A table cannot be read.
    Unreadable(u64),
    /// An entry maps nothing where a page is wanted; the page's number.
    Gap(u64),
    /// An entry maps a large page; the page's number.
    Large(u64),
    /// An entry's address is above 4 GiB; the page's number.
    High(u64),
    /// A page or table does not lie behind the one before; the page's number.
    Descending(u64),
}

/// Tables that map `pages` pages have so many bytes.
///
/// # Errors
///
/// [`MlePagesError::Count`].
pub const fn size(pages: u64) -> Result<u64, MlePagesError> {
    if pages == 0 || pages > PAGES_LIMIT {
        return Err(MlePagesError::Count(pages));
    }
    Ok((2 + pages.div_ceil(ENTRIES)) * PAGE)
}

/// Fills `bytes`, which lie at physical address `at`, with the tables that map `mle`; what is left of them is zeroed.
///
/// # Errors
///
/// [`MlePagesError`]: the tables or the MLE are not where SINIT takes them.
pub fn write(bytes: &mut [u8], at: u64, mle: Pages) -> Result<(), MlePagesError> {
    let needed = size(mle.count)?;
    if !at.is_multiple_of(PAGE) || !mle.base.is_multiple_of(PAGE) {
        return Err(MlePagesError::Unaligned(if at.is_multiple_of(PAGE) { mle.base } else { at }));
    }
    if needed > bytes.len() as u64 {
        return Err(MlePagesError::NoRoom { needed });
    }
    let behind_tables = at.checked_add(needed).ok_or(MlePagesError::Place)?;
    let behind = mle.base.checked_add(mle.count * PAGE).ok_or(MlePagesError::Place)?;
    if behind_tables > mle.base || behind > 1 << 32 {
        return Err(MlePagesError::Place);
    }
    bytes.fill(0);
    let mut entry = |table: u64, index: u64, address: u64| {
        let place = usize::try_from(table * PAGE + index * ENTRY).ok();
        let done = place.and_then(|place| put(bytes, place, &(address | PRESENT).to_le_bytes()));
        done.ok_or(MlePagesError::NoRoom { needed })
    };
    entry(0, 0, at + PAGE)?;
    for table in 0..mle.count.div_ceil(ENTRIES) {
        entry(1, table, at + (2 + table) * PAGE)?;
    }
    for page in 0..mle.count {
        entry(2 + page / ENTRIES, page % ENTRIES, mle.base + page * PAGE)?;
    }
    Ok(())
}

/// Walks the tables at physical address `at` as SINIT does, and gives `found` the address of each of the first `count`
/// pages, in order. `read` gives the 64-bit number at a physical address, or `None` where there is no memory.
///
/// # Errors
///
/// [`MlePagesError`]: the first thing that SINIT would not take. `found` has had the pages before it.
pub fn walk(
    at: u64,
    count: u64,
    read: impl Fn(u64) -> Option<u64>,
    mut found: impl FnMut(u64),
) -> Result<(), MlePagesError> {
    if count == 0 || count > PAGES_LIMIT * ENTRIES {
        return Err(MlePagesError::Count(count));
    }
    if !at.is_multiple_of(PAGE) || at & HIGH != 0 {
        return Err(MlePagesError::Unaligned(at));
    }
    let mut last_table = at;
    let [mut directory, mut table] = [0; 2];
    let [mut first, mut last] = [0; 2];
    for page in 0..count {
        let entry = |table: u64, index: u64| entry(&read, table, index, page);
        if page.is_multiple_of(PAGES_LIMIT) {
            directory = ascending(&mut last_table, entry(at, page / PAGES_LIMIT)? & ADDRESS, page)?;
        }
        if page.is_multiple_of(ENTRIES) {
            let value = entry(directory, page / ENTRIES % ENTRIES)?;
            if value & LARGE != 0 {
                return Err(MlePagesError::Large(page));
            }
            table = ascending(&mut last_table, value & ADDRESS, page)?;
        }
        let address = ascending(&mut last, entry(table, page % ENTRIES)? & ADDRESS, page)?;
        first = if page == 0 { address } else { first };
        // Pages ascend: a table below the first is below all.
        if last_table >= first {
            return Err(MlePagesError::Place);
        }
        found(address);
    }
    Ok(())
}

fn entry(read: impl Fn(u64) -> Option<u64>, table: u64, index: u64, page: u64) -> Result<u64, MlePagesError> {
    let place = table + index * ENTRY;
    let value = read(place).ok_or(MlePagesError::Unreadable(place))?;
    if value & PRESENT == 0 {
        return Err(MlePagesError::Gap(page));
    }
    if value & HIGH != 0 {
        return Err(MlePagesError::High(page));
    }
    Ok(value)
}

/// Takes `address` as the next one, where it lies behind `last`.
const fn ascending(last: &mut u64, address: u64, page: u64) -> Result<u64, MlePagesError> {
    if address <= *last {
        return Err(MlePagesError::Descending(page));
    }
    *last = address;
    Ok(address)
}

impl fmt::Display for MlePagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "an MLE of {count} pages cannot be mapped"),
            Self::Unaligned(at) => write!(f, "{at:#x} is no page below 4 GiB"),
            Self::NoRoom { needed } => write!(f, "the MLE's page tables need {needed} bytes"),
            Self::Place => f.write_str("the MLE's page tables are not below it, or it is not below 4 GiB"),
            Self::Unreadable(at) => write!(f, "no page table at {at:#x}"),
            Self::Gap(page) => write!(f, "page {page} of the MLE is not mapped"),
            Self::Large(page) => write!(f, "page {page} of the MLE is part of a large one"),
            Self::High(page) => write!(f, "page {page} of the MLE or a table of it is above 4 GiB"),
            Self::Descending(page) => {
                write!(f, "page {page} of the MLE or a table of it is not behind the one before")
            }
        }
    }
}

impl core::error::Error for MlePagesError {}

#[cfg(test)]
#[path = "mle_pages_tests.rs"]
mod tests;
