//! What devices may reach of the guest's memory.
//!
//! The core tells it here for each page that it takes from the guest's CPUs or gives back. Where the machine has no unit
//! that remaps DMA, or `dmap=off` asks for none, devices reach all memory, and whoever relies on more is told so by
//! [`Devices::is_enforced`].

pub(crate) mod remapping;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use x86::address::HostPhysAddr;

use crate::memory::second_level::ProtectError;

/// What devices may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceAccess {
    /// Read and write it.
    Open,
    /// Nothing.
    Closed,
}

/// What keeps devices from memory.
pub(crate) trait Remapping: fmt::Debug + fmt::Display + Send {
    /// Sets what devices may do with a page, from the next [`Remapping::flush`] on.
    ///
    /// # Errors
    ///
    /// [`ProtectError`]; devices go by what was before.
    fn set_access(&mut self, page: HostPhysAddr, access: DeviceAccess) -> Result<(), ProtectError>;
    /// Returns when no device goes by what was set before.
    ///
    /// # Errors
    ///
    /// What is wrong with the hardware: devices may go by anything.
    fn flush(&mut self) -> Result<(), HardwareFault>;
    /// Tells what was refused since the last time.
    fn tell_faults(&self);
    /// Returns how many aligned 2 MiB of memory can have closed pages at a time.
    fn closed_regions_limit(&self) -> usize;
}

/// Remapping hardware did not do what it was told; printed.
#[derive(Debug)]
pub(crate) struct HardwareFault(pub(crate) vtd::unit::UnitError);

/// The machine's devices, as far as they are held to the guest's memory.
#[derive(Debug)]
pub(crate) struct Devices {
    /// Something was ever driven: where nothing is, no lock is taken.
    is_driven: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Devices reach all memory.
    Free,
    /// They are held by units.
    Held(&'static mut dyn Remapping),
    /// A unit did not follow: what it lets through is not known.
    Failed,
}

impl Devices {
    /// No device is held to anything.
    pub(crate) const fn new() -> Self {
        Self { is_driven: AtomicBool::new(false), state: Mutex::new(State::Free) }
    }

    /// Holds every device by `remapping` from now on.
    pub(crate) fn hold(&self, remapping: &'static mut dyn Remapping) {
        log::info!("devices are kept from the hypervisor: {remapping}");
        *self.state.lock() = State::Held(remapping);
        self.is_driven.store(true, Ordering::SeqCst);
    }

    /// Returns whether devices are held to what is set.
    pub(crate) fn is_enforced(&self) -> bool {
        self.is_driven() && matches!(*self.state.lock(), State::Held(_))
    }

    /// Returns how many aligned 2 MiB of memory can have closed pages at a time; `None` where nothing is enforced.
    pub(crate) fn closed_regions_limit(&self) -> Option<usize> {
        match &*self.state.lock() {
            State::Held(remapping) => Some(remapping.closed_regions_limit()),
            State::Free | State::Failed => None,
        }
    }

    /// Sets what devices may do with a page, from the next [`Self::flush`] on.
    ///
    /// # Errors
    ///
    /// [`ProtectError::Exhausted`], and devices go by what was before; [`ProtectError::Devices`] where a page is to be
    /// closed and a unit has failed.
    pub(crate) fn set_access(&self, page: HostPhysAddr, access: DeviceAccess) -> Result<(), ProtectError> {
        if !self.is_driven() {
            return Ok(());
        }
        match &mut *self.state.lock() {
            State::Held(remapping) => remapping.set_access(page, access),
            State::Failed if access == DeviceAccess::Closed => Err(ProtectError::Devices),
            State::Failed | State::Free => Ok(()),
        }
    }

    /// Returns when no device goes by what was set before, and tells what was refused meanwhile.
    ///
    /// # Errors
    ///
    /// [`ProtectError::Devices`]: a unit does not follow, and no device is relied on to be held from now on.
    pub(crate) fn flush(&self) -> Result<(), ProtectError> {
        if !self.is_driven() {
            return Ok(());
        }
        let mut state = self.state.lock();
        let State::Held(remapping) = &mut *state else { return Ok(()) };
        remapping.tell_faults();
        let followed = remapping.flush();
        if let Err(error) = followed {
            log::error!("devices may reach all memory, and nothing more is closed to them: {}", error.0);
            *state = State::Failed;
            return Err(ProtectError::Devices);
        }
        Ok(())
    }

    /// Tells what units refused since the last time; nothing where another CPU is at the units. A machine that ends may have
    /// given that one up, and is not to wait for it.
    pub(crate) fn tell_faults(&self) {
        if let Some(state) = self.state.try_lock()
            && let State::Held(remapping) = &*state
        {
            remapping.tell_faults();
        }
    }

    fn is_driven(&self) -> bool {
        self.is_driven.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vtd::unit::UnitError;

    /// What a fake was told, and whether it follows.
    #[derive(Debug, Default)]
    struct Told {
        acts: Vec<String>,
        has_failed: bool,
    }

    #[derive(Debug)]
    struct Fake(Arc<Mutex<Told>>);

    impl fmt::Display for Fake {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a fake")
        }
    }

    impl Remapping for Fake {
        fn set_access(&mut self, page: HostPhysAddr, access: DeviceAccess) -> Result<(), ProtectError> {
            self.0.lock().acts.push(format!("{access:?} {:#x}", page.get()));
            if page.get() == 0 { Err(ProtectError::Exhausted) } else { Ok(()) }
        }

        fn flush(&mut self) -> Result<(), HardwareFault> {
            let mut told = self.0.lock();
            told.acts.push("flush".into());
            if told.has_failed { Err(HardwareFault(UnitError::Absent)) } else { Ok(()) }
        }

        fn tell_faults(&self) {
            self.0.lock().acts.push("faults".into());
        }

        fn closed_regions_limit(&self) -> usize {
            7
        }
    }

    fn held() -> (Devices, Arc<Mutex<Told>>) {
        let told = Arc::default();
        let devices = Devices::new();
        devices.hold(Box::leak(Box::new(Fake(Arc::clone(&told)))));
        (devices, told)
    }

    fn page(at: u64) -> HostPhysAddr {
        HostPhysAddr::new(at)
    }

    #[test]
    fn what_is_set_is_followed_and_what_was_refused_told() {
        let (devices, told) = held();
        assert!(devices.is_enforced());
        assert_eq!(devices.closed_regions_limit(), Some(7));
        assert_eq!(devices.set_access(page(0x1000), DeviceAccess::Closed), Ok(()));
        assert_eq!(devices.set_access(page(0), DeviceAccess::Open), Err(ProtectError::Exhausted));
        assert_eq!(devices.flush(), Ok(()));
        assert_eq!(told.lock().acts, ["Closed 0x1000", "Open 0x0", "faults", "flush"]);
        devices.tell_faults();
        assert_eq!(told.lock().acts.len(), 5);
    }

    #[test]
    fn behind_a_failure_nothing_is_closed_and_all_can_be_opened() {
        let (devices, told) = held();
        told.lock().has_failed = true;
        assert_eq!(devices.flush(), Err(ProtectError::Devices));
        assert!(!devices.is_enforced());
        assert_eq!(devices.closed_regions_limit(), None);
        assert_eq!(devices.set_access(page(0x1000), DeviceAccess::Closed), Err(ProtectError::Devices));
        assert_eq!(devices.set_access(page(0x1000), DeviceAccess::Open), Ok(()));
        assert_eq!(devices.flush(), Ok(()));
        assert_eq!(told.lock().acts, ["faults", "flush"]);
    }

    #[test]
    fn an_end_does_not_wait_for_a_cpu_that_is_at_the_units() {
        let (devices, told) = held();
        let state = devices.state.lock();
        devices.tell_faults();
        assert!(told.lock().acts.is_empty());
        drop(state);
        devices.tell_faults();
        assert_eq!(told.lock().acts, ["faults"]);
    }

    #[test]
    fn without_a_unit_nothing_is_held_and_nothing_fails() {
        let devices = Devices::new();
        assert!(!devices.is_enforced());
        assert_eq!(devices.closed_regions_limit(), None);
        assert_eq!(devices.set_access(page(0x1000), DeviceAccess::Closed), Ok(()));
        assert_eq!(devices.flush(), Ok(()));
        devices.tell_faults();
    }
}
