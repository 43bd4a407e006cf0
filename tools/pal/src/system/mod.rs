//! Memory of this process, as the system gives it.

#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux as native;
#[cfg(windows)]
pub mod windows;
#[cfg(windows)]
pub(crate) use windows as native;

/// What the process may do with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
    /// All three.
    All,
}

/// Why the system refused memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked of it.
    pub request: &'static str,
    /// Its error number.
    pub number: i32,
}
