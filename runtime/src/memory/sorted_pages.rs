//! Lists of single pages in ascending order.

use super::range::GuestRange;
use x86::paging::PAGE_SIZE;

/// Returns whether the page that holds `address` is in `list`, where `page_of` says each entry's; and the pages around it of
/// which the same holds, within `run`.
pub(super) fn run_at<T>(
    list: &[T],
    page_of: impl Fn(&T) -> u64,
    address: u64,
    run: GuestRange,
) -> (GuestRange, bool) {
    if list.is_empty() {
        return (run, false);
    }
    let page = address & !(PAGE_SIZE - 1);
    match list.binary_search_by_key(&page, &page_of) {
        Ok(_) => (GuestRange::between(page, page + PAGE_SIZE), true),
        Err(behind) => {
            let before = behind.checked_sub(1).map_or(0, |index| page_of(&list[index]) + PAGE_SIZE);
            let next = list.get(behind).map_or(u64::MAX, page_of);
            (GuestRange::between(run.start().max(before), run.end().min(next)), false)
        }
    }
}
