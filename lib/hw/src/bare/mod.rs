//! The real machine: every privileged instruction, one family a file.
//!
//! UNSAFETY: this is the one layer that executes privileged instructions; each function states what its
//! caller owes, or why it owes nothing.
#![expect(unsafe_code, reason = "privileged instructions")]

pub mod address_space;
pub mod apic;
pub mod control_registers;
pub mod device;
pub mod exception_table;
pub mod guest_registers;
pub mod memory;
pub mod per_cpu;
pub mod port;
pub mod processor;
pub mod random;
pub mod region;
pub mod speculation;
#[cfg(feature = "count-vmcs-accesses")]
pub mod vmcs_accesses;
pub mod vmx;

pub use processor::Processor;
pub use region::Region;
