//! The I/O bitmaps under which L2 runs: L1's and the hypervisor's, merged.
