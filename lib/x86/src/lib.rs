//! Architectural layouts of x86-64 and Intel VMX: constants, bit fields, pure decoding.
//!
//! No hardware is touched here and nothing is unsafe. References name sections of the Intel 64 and IA-32
//! Architectures Software Developer's Manual ("SDM") by title, revision 084.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod address;
pub mod apic;
pub mod cet;
pub mod cpuid;
pub mod cr;
pub mod debug;
pub mod event;
pub mod feature_control;
pub mod msr;
pub mod mtrr;
pub mod paging;
pub mod pat;
pub mod segment;
pub mod speculation;
pub mod vmx;
