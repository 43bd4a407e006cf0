//! What the hypapp's logic needs of the machine, as traits: the process that calls, and pages of memory.

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The process cannot access the memory that was named, or not in that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inaccessible;

/// What a page is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be executed and read.
    Execute,
    /// To be written and read.
    Write,
    /// To be executed, written and read.
    WriteAndExecute,
}

/// A process, by its own page tables and with its own rights.
pub trait Process {
    /// Copies `bytes.len()` bytes at the linear address `address` out.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`].
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Inaccessible>;

    /// Copies `bytes` to the linear address `address`.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`]; nothing is written then.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Inaccessible>;

    /// Returns the physical address of the page at the linear address `address`, which the process may put to `wanted`.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`].
    fn page(&self, address: u64, wanted: Use) -> Result<u64, Inaccessible>;
}

/// What the rest of the guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Nothing: reads give zeros, and all else comes to the hypapp.
    Hidden,
    /// Reads and fetches.
    ReadOnly,
    /// Reads and writes; fetches come to the hypapp.
    NoFetch,
    /// Everything.
    Open,
}

/// Pages of the guest's memory, by physical address.
pub trait Pages {
    /// Returns whether the page is ordinary memory of the guest's.
    fn is_memory(&self, page: u64) -> bool;

    /// Covers pages for all CPUs, from when it returns on.
    ///
    /// # Errors
    ///
    /// [`Inaccessible`] where there is no room for one more; some pages may be covered then.
    fn cover(&self, pages: &mut dyn Iterator<Item = (u64, Cover)>) -> Result<(), Inaccessible>;

    /// Copies bytes out of one page, covered or not.
    fn read(&self, address: u64, bytes: &mut [u8]);

    /// Copies bytes into one page, covered or not.
    fn write(&self, address: u64, bytes: &[u8]);
}
