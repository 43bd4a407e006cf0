//! The pages that tables are made of.

use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

/// What a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameState {
    /// Nobody's.
    #[default]
    Free,
    /// A table.
    Table,
    /// Was a table that units may still walk: its content stays.
    Retired,
}

/// No page is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// Pages in a row, and what each is.
#[derive(Debug)]
pub struct Frames<'a> {
    base: HostPhysAddr,
    states: &'a mut [FrameState],
}

impl<'a> Frames<'a> {
    /// As many pages from `base` on as there are `states`, which forget what they were.
    #[must_use]
    pub fn new(base: HostPhysAddr, states: &'a mut [FrameState]) -> Self {
        states.fill(FrameState::Free);
        Self { base, states }
    }

    /// Pages in this state.
    #[must_use]
    pub fn count(&self, state: FrameState) -> usize {
        self.states.iter().filter(|&&of_frame| of_frame == state).count()
    }

    pub(crate) fn allocate(&mut self) -> Result<HostPhysAddr, Exhausted> {
        let free = (0_u64..).zip(self.states.iter_mut()).find(|(_, state)| **state == FrameState::Free);
        let (index, state) = free.ok_or(Exhausted)?;
        *state = FrameState::Table;
        Ok(HostPhysAddr::new(self.base.get() + index * PAGE_SIZE))
    }

    pub(crate) fn retire(&mut self, table: HostPhysAddr) {
        let index = usize::try_from((table.get() - self.base.get()) / PAGE_SIZE).unwrap_or(usize::MAX);
        if let Some(state) = self.states.get_mut(index) {
            *state = FrameState::Retired;
        }
    }

    /// No unit walks them any more.
    pub(crate) fn free_retired(&mut self) {
        for state in self.states.iter_mut().filter(|state| **state == FrameState::Retired) {
            *state = FrameState::Free;
        }
    }
}
