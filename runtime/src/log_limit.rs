//! How much a guest can have the log say: of each reason so many lines at once, then one in a while.
//!
//! A reason is the place in the source that logs. What is left out is counted, and told before the reason's next line
//! and at the end.

use arrayvec::ArrayVec;

/// Lines of one reason that come through at once.
pub(crate) const BURST: u32 = 16;
/// Ticks of the time-stamp counter after which a reason has one line more: less than a second.
const REFILL: u64 = 1 << 30;
/// Most reasons that are told apart.
const REASONS: usize = 48;

/// Returns the time in ticks that a guest cannot set, by a time-stamp counter and what all writes have added to it
/// (SDM, "IA32_TSC_ADJUST Register Support"). Where the processor does not say what, no time passes: a guest that writes
/// the counter would give itself as many lines as it likes.
pub(crate) const fn time(counter: u64, adjustment: Option<u64>) -> u64 {
    match adjustment {
        Some(added) => counter.wrapping_sub(added),
        None => 0,
    }
}

/// Why something is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The module.
    pub(crate) module: &'static str,
    /// The line in its file.
    pub(crate) line: u32,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    reason: Reason,
    /// Lines that may come now.
    credit: u32,
    /// When the credit was last raised.
    since: u64,
    left_out: u64,
}

/// What was logged of each reason.
#[derive(Debug)]
pub(crate) struct Limits {
    accounts: ArrayVec<Account, REASONS>,
}

impl Limits {
    /// Nothing logged yet.
    pub(crate) const fn new() -> Self {
        Self { accounts: ArrayVec::new_const() }
    }

    /// Returns whether a line of `reason` comes through at the time `now`, in ticks: with the number of lines left out
    /// before it.
    pub(crate) fn admit(&mut self, reason: Reason, now: u64) -> Option<u64> {
        let account = self.account(reason, now)?;
        // No time passes where the counter goes back, on this CPU or from one to another.
        let refills = now.saturating_sub(account.since) / REFILL;
        account.since += refills * REFILL;
        account.credit =
            u32::try_from(refills.saturating_add(account.credit.into())).unwrap_or(BURST).min(BURST);
        if account.credit == 0 {
            account.left_out += 1;
            return None;
        }
        account.credit -= 1;
        Some(core::mem::take(&mut account.left_out))
    }

    /// Returns the reasons of which lines were left out since their last one, with the number.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.accounts
            .iter()
            .filter(|account| account.left_out != 0)
            .map(|account| (account.reason, account.left_out))
    }

    /// Reasons beyond the table's size share the last account.
    fn account(&mut self, reason: Reason, now: u64) -> Option<&mut Account> {
        let known = self.accounts.iter().position(|account| account.reason == reason);
        if known.is_none() {
            let _ = self.accounts.try_push(Account { reason, credit: BURST, since: now, left_out: 0 });
        }
        let last = self.accounts.len().saturating_sub(1);
        self.accounts.get_mut(known.unwrap_or(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: Reason = Reason { module: "hypapp", line: 12 };
    const OTHER: Reason = Reason { module: "hypapp", line: 13 };

    fn flood(limits: &mut Limits, lines: u32, now: u64) -> usize {
        (0..lines).filter_map(|_| limits.admit(FLOOD, now)).count()
    }

    #[test]
    fn a_flood_ends_after_a_burst_and_other_reasons_go_on() {
        let mut limits = Limits::new();
        assert_eq!(flood(&mut limits, 10_000, 5), BURST as usize);
        assert_eq!(limits.admit(OTHER, 5), Some(0));
        assert_eq!(limits.left_out().collect::<Vec<_>>(), [(FLOOD, 10_000 - u64::from(BURST))]);
    }

    #[test]
    fn the_next_line_says_how_many_were_left_out() {
        let mut limits = Limits::new();
        flood(&mut limits, BURST + 7, 0);
        assert_eq!(limits.admit(FLOOD, REFILL - 1), None);
        assert_eq!(limits.admit(FLOOD, REFILL), Some(8));
        assert_eq!(limits.admit(FLOOD, REFILL), None);
        assert_eq!(limits.admit(FLOOD, 3 * REFILL - 1), Some(1));
    }

    #[test]
    fn a_long_silence_gives_one_burst_and_no_more() {
        let mut limits = Limits::new();
        flood(&mut limits, BURST, 0);
        assert_eq!(flood(&mut limits, 10_000, u64::MAX), BURST as usize);
    }

    #[test]
    fn a_counter_that_goes_back_gives_no_burst() {
        let mut limits = Limits::new();
        flood(&mut limits, BURST, 5 * REFILL);
        let lines: usize = (0..100).map(|at| flood(&mut limits, 1, at % 2 * 5 * REFILL)).sum();
        assert_eq!(lines, 0);
    }

    #[test]
    fn a_guest_that_sets_its_counter_gives_itself_no_time() {
        let passed = |written: u64| time(written.wrapping_add(7), Some(written));
        assert_eq!([0, 40 * REFILL, u64::MAX].map(passed), [7; 3]);
        assert_eq!(
            [0, 7, u64::MAX].map(|counter| time(counter, None)),
            [0; 3],
            "nobody says what was written"
        );
    }

    #[test]
    fn reasons_beyond_the_table_share_one_account() {
        let mut limits = Limits::new();
        let lines = (0..10_000).filter_map(|line| limits.admit(Reason { line, ..FLOOD }, 0)).count();
        assert_eq!(lines, REASONS - 1 + BURST as usize);
    }
}
