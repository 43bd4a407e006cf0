//! Reset and power-off: how a guest asks for them, what the guest's end undoes, and what is left in memory behind it.
//!
//! Every way leads through `end_guest`: a guest's port write ([`power_ports`], [`keyboard_controller`]), its triple
//! fault, an INIT that resets, or a hypapp. A reset that only leads back to real mode ([`shutdown_status`]) is no end.

pub(crate) mod end_guest;
pub(crate) mod ending;
pub mod kept_registers;
pub mod keyboard_controller;
pub mod pci_configuration;
pub mod power_ports;
pub(crate) mod scrub;
pub mod shutdown_status;
