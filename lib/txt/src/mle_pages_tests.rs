use super::*;
use proptest::prelude::*;

const AT: u64 = 0x1000_0000;

/// Memory at `AT` with tables for `mle`.
fn tables(mle: Pages) -> Result<Vec<u8>, MlePagesError> {
    let mut bytes = vec![0xee; size(mle.count)? as usize];
    write(&mut bytes, AT, mle)?;
    Ok(bytes)
}

fn read(bytes: &[u8], at: u64) -> Option<u64> {
    let offset = usize::try_from(at.checked_sub(AT)?).ok()?;
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

fn walked(bytes: &[u8], count: u64) -> Result<Vec<u64>, MlePagesError> {
    let mut pages = Vec::new();
    walk(AT, count, |at| read(bytes, at), |page| pages.push(page))?;
    Ok(pages)
}

/// Two tables' worth of pages behind their tables.
fn mle() -> Pages {
    Pages { base: AT + 0x4000, count: 513 }
}

fn refused(change: impl FnOnce(&mut [u64])) -> MlePagesError {
    let bytes = tables(mle()).unwrap();
    let mut words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    change(&mut words);
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    walked(&bytes, 513).unwrap_err()
}

#[test]
fn sixteen_pages_take_three_tables() {
    let bytes = tables(Pages { base: AT + 0x3000, count: 16 }).unwrap();
    assert_eq!(bytes.len(), 0x3000);
    assert_eq!((read(&bytes, AT), read(&bytes, AT + 8)), (Some(AT + 0x1001), Some(0)));
    assert_eq!((read(&bytes, AT + 0x1000), read(&bytes, AT + 0x1008)), (Some(AT + 0x2001), Some(0)));
    assert_eq!(
        (read(&bytes, AT + 0x2000), read(&bytes, AT + 0x2078)),
        (Some(AT + 0x3001), Some(AT + 0x1_2001))
    );
    assert_eq!(read(&bytes, AT + 0x2080), Some(0));
}

#[test]
fn what_sinit_would_not_take_is_named() {
    // Words of the directory pointer table, the directory, the tables.
    let [pointers, directory, table, second] = [0, 512, 1024, 1536];
    assert_eq!(refused(|words| words[table + 7] = 0), MlePagesError::Gap(7));
    assert_eq!(refused(|words| words[directory + 1] &= !PRESENT), MlePagesError::Gap(512));
    assert_eq!(refused(|words| words[pointers] = 0), MlePagesError::Gap(0));
    assert_eq!(refused(|words| words[directory + 1] |= LARGE), MlePagesError::Large(512));
    assert_eq!(refused(|words| words[table + 3] = words[table + 2]), MlePagesError::Descending(3));
    assert_eq!(refused(|words| words.swap(table + 3, table + 4)), MlePagesError::Descending(4));
    assert_eq!(refused(|words| words[second] = words[table]), MlePagesError::Descending(512));
    assert_eq!(refused(|words| words[directory + 1] = words[directory]), MlePagesError::Descending(512));
    assert_eq!(refused(|words| words[directory] = AT | PRESENT), MlePagesError::Descending(0));
    assert_eq!(refused(|words| words[table] |= 1 << 32), MlePagesError::High(0));
    assert_eq!(refused(|words| words[table] |= 1 << 63), MlePagesError::High(0));
    assert_eq!(refused(|words| words[table] = (AT + 0x2000) | PRESENT), MlePagesError::Place);
    assert_eq!(refused(|words| words[pointers] = 1 << 31 | PRESENT), MlePagesError::Unreadable(1 << 31));
    // The second table behind the first page.
    let late = refused(|words| words[table] = (AT + 0x3000) | PRESENT);
    assert_eq!(late, MlePagesError::Place);
}

#[test]
fn tables_and_mle_have_their_places() {
    let write = |bytes: usize, at, base, count| write(&mut vec![0; bytes], at, Pages { base, count });
    assert_eq!(write(0x3000, AT, AT + 0x3000, 1), Ok(()));
    assert_eq!(write(0x2fff, AT, AT + 0x3000, 1), Err(MlePagesError::NoRoom { needed: 0x3000 }));
    assert_eq!(write(0x3000, AT, AT + 0x2000, 1), Err(MlePagesError::Place));
    assert_eq!(write(0x3000, AT + 1, AT + 0x3000, 1), Err(MlePagesError::Unaligned(AT + 1)));
    assert_eq!(write(0x3000, AT, AT + 0x3001, 1), Err(MlePagesError::Unaligned(AT + 0x3001)));
    assert_eq!(write(0x3000, AT, 0xffff_f000, 1), Ok(()));
    assert_eq!(write(0x3000, AT, 0xffff_f000, 2), Err(MlePagesError::Place));
    assert_eq!(write(0x3000, AT, !0xfff, 1), Err(MlePagesError::Place));
    assert_eq!(write(0x3000, !0xfff, AT, 1), Err(MlePagesError::Place));
    assert_eq!((size(0), size(PAGES_LIMIT)), (Err(MlePagesError::Count(0)), Ok(514 * PAGE)));
    assert_eq!(size(PAGES_LIMIT + 1), Err(MlePagesError::Count(PAGES_LIMIT + 1)));
    assert_eq!(walk(AT, 0, |_| None, |_| ()), Err(MlePagesError::Count(0)));
    assert_eq!(walk(1 << 32, 1, |_| None, |_| ()), Err(MlePagesError::Unaligned(1 << 32)));
    assert_eq!(walk(AT, 1, |_| None, |_| ()), Err(MlePagesError::Unreadable(AT)));
}

proptest! {
    #[test]
    fn pages_that_are_written_are_walked(count in 1_u64..1600, gap in 0_u64..3) {
        let base = AT + size(count).unwrap() + gap * PAGE;
        let bytes = tables(Pages { base, count }).unwrap();
        let pages: Vec<u64> = (0..count).map(|page| base + page * PAGE).collect();
        prop_assert_eq!(walked(&bytes, count), Ok(pages));
        prop_assert_eq!(walked(&bytes, count + 1).is_ok(), false);
    }

    #[test]
    fn any_tables_are_walked_or_refused(
        words in proptest::collection::vec(
            prop_oneof![any::<u64>(), (0_u64..8).prop_map(|page| (AT + page * PAGE) | PRESENT)], 0..2048),
        count: u64,
    ) {
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut last = 0;
        let walked = walk(AT, count, |at| read(&bytes, at), |page| {
            assert!(page > last && page < 1 << 32);
            last = page;
        });
        prop_assert!(walked.is_err() || count * PAGE <= 1 << 32);
    }
}

/// Tables for more than a directory's worth of pages, each directory before its tables.
#[test]
fn a_second_directory_is_the_pointer_table_s_second() {
    const PER_DIRECTORY: u64 = 1 + ENTRIES;
    let (count, base) = (PAGES_LIMIT + 1, 2 * AT);
    let directory = |number: u64| AT + PAGE * (1 + number * PER_DIRECTORY);
    let table = |number: u64| directory(number / ENTRIES) + PAGE * (1 + number % ENTRIES);
    let read = |place: u64| {
        let (page, index) = ((place - AT) / PAGE, (place - AT) % PAGE / ENTRY);
        let Some(behind) = page.checked_sub(1) else { return Some(directory(index) | PRESENT) };
        let (number, within) = (behind / PER_DIRECTORY, behind % PER_DIRECTORY);
        let address = match within.checked_sub(1) {
            None => table(number * ENTRIES + index),
            Some(within) => base + PAGE * ((number * ENTRIES + within) * ENTRIES + index),
        };
        Some(address | PRESENT)
    };
    let (mut pages, mut last) = (0, 0);
    let done = walk(AT, count, read, |page| (pages, last) = (pages + 1, page));
    assert_eq!((done, pages, last), (Ok(()), count, base + PAGES_LIMIT * PAGE));
}

#[test]
fn a_pointer_table_has_512_directories() {
    let limit = PAGES_LIMIT * ENTRIES;
    let walked = |count| walk(AT, count, |_| None, |_| ());
    assert_eq!([1, limit].map(walked), [Err(MlePagesError::Unreadable(AT)); 2]);
    assert_eq!([0, limit + 1].map(walked), [0, limit + 1].map(|count| Err(MlePagesError::Count(count))));
}

#[test]
fn each_error_says_which_page_is_wrong() {
    for (error, text) in [
        (MlePagesError::Count(0), "an MLE of 0 pages cannot be mapped"),
        (MlePagesError::Unaligned(0x1001), "0x1001 is no page below 4 GiB"),
        (MlePagesError::NoRoom { needed: 12288 }, "the MLE's page tables need 12288 bytes"),
        (MlePagesError::Place, "the MLE's page tables are not below it, or it is not below 4 GiB"),
        (MlePagesError::Unreadable(0x1000), "no page table at 0x1000"),
        (MlePagesError::Gap(3), "page 3 of the MLE is not mapped"),
        (MlePagesError::Large(3), "page 3 of the MLE is part of a large one"),
        (MlePagesError::High(3), "page 3 of the MLE or a table of it is above 4 GiB"),
        (MlePagesError::Descending(3), "page 3 of the MLE or a table of it is not behind the one before"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
