//! Devices that a machine in the emulator is given for tests: a unit that remaps DMA and interrupts as VT-d has it
//! (Intel Virtualization Technology for Directed I/O, Architecture Specification), and an engine that does DMA through
//! it in the name of any device.
//!
//! The emulator loads them as a plugin, unpatched. They are written from the specification and share no code with the
//! hypervisor, so that a number which is wrong there does not come right here. They are simulated hardware: what they
//! show they show of the hypervisor's use of such a unit, not of any chipset.
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "a test may stop where it is, and knows its numbers"
    )
)]

mod bus;
mod dmar;
#[cfg(not(test))]
mod emulator;
mod engine;
#[cfg(not(test))]
mod plugin;
mod unit;
