//! Virtual-processor identifiers: L1's numbers to the hardware's.
//!
//! A processor tags its translations with the number of the virtual processor. L1's numbers are names to the
//! hypervisor: each CPU gives hardware numbers to those that L1 used last there, apart from L1's own. A number
//! that is given again is flushed first. An L1 that uses no identifiers runs L2 under number 0000H, whose
//! translations every entry and exit drops; such an L2 has a number of its own, dropped at each entry that L1
//! makes, so that exits which L1 never sees cost it nothing.

use crate::vmx::nested::instruction::VpidScope;

/// Type of INVVPID that drops all of one number.
const SINGLE: u64 = 1;
/// Numbers of L1 that a CPU keeps at a time.
const CAPACITY: usize = 32;
/// The number for an L2 without an identifier. L1's own is 1.
const UNTAGGED: u16 = 2;
const FIRST: u16 = UNTAGGED + 1;

/// Numbers of one CPU.
#[derive(Debug)]
pub(crate) struct VpidMap {
    entries: [Entry; CAPACITY],
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// L1's number; 0 where there is none.
    vpid12: u16,
    /// Time of the last use.
    used: u64,
}

/// What to run L2 under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The hardware's number.
    pub(crate) vpid: u16,
    /// Translations under it are to be dropped before the entry.
    pub(crate) is_stale: bool,
}

/// An INVVPID to execute on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invvpid {
    /// Type.
    pub(crate) kind: u64,
    /// The hardware's number.
    pub(crate) vpid: u16,
    /// Linear address, for the type that takes one.
    pub(crate) address: u64,
}

impl Invvpid {
    /// Returns the INVVPID that drops all translations under the hardware's number `vpid`.
    pub(crate) const fn of(vpid: u16) -> Self {
        Self { kind: SINGLE, vpid, address: 0 }
    }
}

impl Default for VpidMap {
    fn default() -> Self {
        Self::new()
    }
}

impl VpidMap {
    /// No number is given.
    pub(crate) const fn new() -> Self {
        Self { entries: [Entry { vpid12: 0, used: 0 }; CAPACITY], clock: 0 }
    }

    /// Returns the hardware's number for an entry that L1 makes: under its number `vpid12`, or without one where it
    /// enables none.
    ///
    /// Without one, L1's own translations are of number 0000H too, as it sees them: the caller drops those of the
    /// hardware's number 1 with each such entry and exit.
    pub(crate) fn enter(&mut self, vpid12: Option<u16>) -> Assigned {
        let Some(vpid12) = vpid12.filter(|&vpid| vpid != 0) else {
            return Assigned { vpid: UNTAGGED, is_stale: true };
        };
        self.clock += 1;
        let known = self.entries.iter().position(|entry| entry.vpid12 == vpid12);
        let oldest = || (0..CAPACITY).min_by_key(|&index| self.entries[index].used);
        let index = known.or_else(oldest).unwrap_or(0);
        self.entries[index] = Entry { vpid12, used: self.clock };
        // A number that was never given may still have translations of before a warm start.
        Assigned { vpid: number(index), is_stale: known.is_none() }
    }

    /// Calls `act` with each INVVPID that carries out one of L1's on this CPU.
    pub(crate) fn invalidate(&self, scope: VpidScope, mut act: impl FnMut(Invvpid)) {
        let (kind, vpid12, address) = match scope {
            VpidScope::Address(vpid, address) => (0, Some(vpid), address.get()),
            VpidScope::Single(vpid) => (SINGLE, Some(vpid), 0),
            VpidScope::SingleRetainingGlobals(vpid) => (3, Some(vpid), 0),
            VpidScope::All => (SINGLE, None, 0),
        };
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.vpid12 != 0 && vpid12.is_none_or(|vpid| vpid == entry.vpid12) {
                act(Invvpid { kind, vpid: number(index), address });
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an index is below CAPACITY")]
const fn number(index: usize) -> u16 {
    FIRST + index as u16
}

#[cfg(test)]
#[path = "vpid_tests.rs"]
mod tests;
