//! Hypervisor applications, one file or folder under `src/bin` each.
#![no_std]
