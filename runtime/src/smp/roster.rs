//! Which CPUs there are: those that answer.
//!
//! Firmware may hide a CPU or name one that does not exist, and the list comes by a bootloader that nobody has
//! measured. A CPU that the hypervisor does not know could be started by the guest, and would run beside the
//! hypervisor in all of its memory. So every CPU is called, and the list only says in which order they come.

use arrayvec::ArrayVec;
use platform::handoff::CPU_CAPACITY;

/// The CPUs that have answered, by local APIC ID; the executing one is the first.
#[derive(Debug)]
pub(crate) struct Roster {
    answers: ArrayVec<u32, CPU_CAPACITY>,
}

/// More CPUs answer than the hypervisor has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Roster {
    /// Nobody has answered yet.
    pub(crate) const fn new() -> Self {
        Self { answers: ArrayVec::new_const() }
    }

    /// Takes note of an answer; a second of the same CPU says nothing new.
    pub(crate) fn answer(&mut self, id: u32) -> Result<(), Full> {
        if self.answers.contains(&id) {
            return Ok(());
        }
        self.answers.try_push(id).map_err(|_| Full)
    }

    /// Those of `listed` that have not answered.
    pub(crate) fn missing<'a>(&'a self, listed: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        listed.iter().copied().filter(|id| !self.answers.contains(id))
    }

    /// Those that have answered and are not in `listed`.
    pub(crate) fn unlisted<'a>(&'a self, listed: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        self.answers.iter().copied().filter(|id| !listed.contains(id))
    }

    /// Returns every CPU there is, once: the executing one first, then the others that are `listed`, in that order.
    pub(crate) fn members<'a>(&'a self, listed: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let (own, others) = self.answers.split_at(self.answers.len().min(1));
        let known = listed
            .iter()
            .enumerate()
            .filter(|&(index, id)| others.contains(id) && !listed[..index].contains(id));
        let unlisted = others.iter().filter(|id| !listed.contains(id));
        own.iter().chain(known.map(|(_, id)| id)).chain(unlisted).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(own: u32, answers: &[u32]) -> Roster {
        let mut roster = Roster::new();
        for &id in [own].iter().chain(answers) {
            roster.answer(id).unwrap();
        }
        roster
    }

    #[test]
    fn an_unlisted_cpu_is_a_member_and_a_silent_listed_one_is_none() {
        let roster = roster(2, &[7, 1, 0, 1]);
        let listed = [2, 0, 0x17, 1, 0];
        assert!(roster.members(&listed).eq([2, 0, 1, 7]));
        assert!(roster.unlisted(&listed).eq([7]));
        assert!(roster.missing(&listed).eq([0x17]));
    }

    #[test]
    fn the_executing_cpu_is_the_first_whatever_the_list_says() {
        for listed in [&[][..], &[5], &[5, 3]] {
            assert!(roster(3, &[5]).members(listed).eq([3, 5]), "{listed:?}");
        }
    }

    #[test]
    fn one_cpu_more_than_there_is_room_for_is_told() {
        let mut roster = Roster::new();
        for id in 0..CPU_CAPACITY as u32 {
            assert_eq!(roster.answer(id), Ok(()));
        }
        assert_eq!(roster.answer(CPU_CAPACITY as u32), Err(Full));
        assert_eq!(roster.answer(1), Ok(()));
        assert_eq!(roster.members(&[]).count(), CPU_CAPACITY);
    }
}
