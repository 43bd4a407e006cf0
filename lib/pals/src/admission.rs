//! Which processes may register PALs, as ring 0 says.

use arrayvec::ArrayVec;
use trustvisor::admission::{ADMIT, ADMITTED, CAPACITY, DISMISS, EVERYBODY};
use trustvisor::status::Status;

/// What ring 0 has said.
#[derive(Debug)]
pub struct Admissions {
    is_open: bool,
    admitted: ArrayVec<u64, CAPACITY>,
}

impl Admissions {
    /// Nobody is admitted yet; where `is_open` that does not matter.
    #[must_use]
    pub const fn new(is_open: bool) -> Self {
        Self { is_open, admitted: ArrayVec::new_const() }
    }

    /// Returns whether the process of this address space may register.
    #[must_use]
    pub fn admits(&self, address_space: u64) -> bool {
        self.is_open || self.admitted.contains(&address_space)
    }

    /// Takes a word of ring 0's.
    ///
    /// # Errors
    ///
    /// [`Status::BAD_PARAMETER`]: it is none; [`Status::OUT_OF_MEMORY`]: too many are admitted.
    pub fn say(&mut self, what: u64, address_space: u64) -> Result<(), Status> {
        match u32::try_from(what) {
            Ok(EVERYBODY) => self.is_open = true,
            Ok(ADMITTED) => self.is_open = false,
            Ok(ADMIT) if self.admitted.contains(&address_space) => {}
            Ok(ADMIT) => self.admitted.try_push(address_space).map_err(|_| Status::OUT_OF_MEMORY)?,
            Ok(DISMISS) => self.admitted.retain(|admitted| *admitted != address_space),
            _ => return Err(Status::BAD_PARAMETER),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_until_ring_0_says_otherwise() {
        let mut admissions = Admissions::new(true);
        assert!(admissions.admits(0x1000));
        assert_eq!(admissions.say(ADMITTED.into(), 0), Ok(()));
        assert!(!admissions.admits(0x1000));
        assert_eq!(admissions.say(ADMIT.into(), 0x1000), Ok(()));
        assert!(admissions.admits(0x1000) && !admissions.admits(0x2000));
        assert_eq!(admissions.say(DISMISS.into(), 0x1000), Ok(()));
        assert!(!admissions.admits(0x1000));
        assert_eq!(admissions.say(EVERYBODY.into(), 0), Ok(()));
        assert!(admissions.admits(0x1000));
        assert!(!Admissions::new(false).admits(0x1000));
    }

    #[test]
    fn words_that_are_none_and_too_many_processes_are_refused() {
        let mut admissions = Admissions::new(false);
        for what in [4, 1 << 32, u64::MAX] {
            assert_eq!(admissions.say(what, 0), Err(Status::BAD_PARAMETER));
        }
        let capacity = CAPACITY as u64;
        assert!((0..capacity).all(|space| admissions.say(ADMIT.into(), space) == Ok(())));
        assert_eq!(admissions.say(ADMIT.into(), 0), Ok(()), "again");
        assert_eq!(admissions.say(ADMIT.into(), capacity), Err(Status::OUT_OF_MEMORY));
    }
}
