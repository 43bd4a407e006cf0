//! What the notary's program and its PAL say to each other: the PAL's first argument, and a flag of its result.

pub(crate) const DRAW: u32 = 1;
pub(crate) const SEAL: u32 = 2;
pub(crate) const UNSEAL: u32 = 3;
pub(crate) const FINGERPRINT: u32 = 4;
pub(crate) const EXTEND: u32 = 5;
pub(crate) const REGISTER: u32 = 6;
pub(crate) const QUOTE: u32 = 7;
pub(crate) const PUBLIC_KEY: u32 = 8;
pub(crate) const ADD: u32 = 9;

/// Where the page is that process and PAL share.
pub(crate) const SHARED: u32 = 0x5000_0000;

/// Beside a status in the result.
pub(crate) const FAILED: usize = 1 << 31;
