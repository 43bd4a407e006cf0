//! Memory for the logic of the crate `pals`: a process by its own page tables, and single pages.

use pals::machine::{Cover, Inaccessible, Pages, Process, Use};
use runtime::memory::guest::{Access, Intent, Privilege};
use runtime::services::pages::{self, AddressSpace};
use runtime::vcpu::Vcpu;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::event::Event;

/// The process that runs on a CPU.
pub(crate) struct Caller(AddressSpace);

impl Caller {
    /// Returns the process that runs on `vcpu`.
    pub(crate) fn of(vcpu: &dyn Vcpu) -> Self {
        Self(pages::address_space(vcpu))
    }

    /// Reads, and gives what the processor would raise where it cannot.
    pub(crate) fn try_read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Event> {
        self.0.read(GuestLinearAddr::new(address), bytes, Privilege::User)
    }
}

impl Process for Caller {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Inaccessible> {
        self.try_read(address, bytes).map_err(|_| Inaccessible)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Inaccessible> {
        let written = self.0.write(GuestLinearAddr::new(address), bytes, Privilege::User);
        written.map_err(|_| Inaccessible)
    }

    fn page(&self, address: u64, wanted: Use) -> Result<u64, Inaccessible> {
        let intent = match wanted {
            Use::Execute => Intent::Fetch,
            Use::Write => Intent::Write,
            Use::WriteAndExecute => {
                self.page(address, Use::Execute)?;
                Intent::Write
            }
        };
        let access = Access { intent, privilege: Privilege::User };
        let found = self.0.translate(GuestLinearAddr::new(address), access);
        found.map(|gpa| gpa.page().get()).map_err(|_| Inaccessible)
    }
}

/// The guest's pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine;

impl Pages for Machine {
    fn is_memory(&self, page: u64) -> bool {
        pages::is_memory(GuestPhysAddr::new(page))
    }

    fn cover(&self, covers: &mut dyn Iterator<Item = (u64, Cover)>) -> Result<(), Inaccessible> {
        let covers = covers.map(|(page, cover)| {
            let cover = match cover {
                Cover::Hidden => pages::Cover::Hidden,
                Cover::ReadOnly => pages::Cover::ReadOnly,
                Cover::NoFetch => pages::Cover::NoFetch,
                Cover::Open => pages::Cover::Open,
            };
            (GuestPhysAddr::new(page), cover)
        });
        pages::cover(covers).map_err(|_| Inaccessible)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        if pages::read(GuestPhysAddr::new(address), bytes).is_err() {
            bytes.fill(0);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if pages::write(GuestPhysAddr::new(address), bytes).is_err() {
            log::warn!("a PAL's page at {address:#x} is no memory any more");
        }
    }
}
