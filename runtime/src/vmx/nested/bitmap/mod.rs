//! The bitmaps under which L2 runs: a bit is set where L1's or the hypervisor's own has it (SDM, "MSR-Bitmap Address";
//! "I/O-Bitmap Addresses").

pub(super) mod io;
pub(super) mod merged_page;
pub(super) mod msr;
pub(super) mod pages;
pub(super) mod watch;
