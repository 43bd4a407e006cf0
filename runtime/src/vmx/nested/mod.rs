//! Nested virtualization: the guest (L1) is a hypervisor and has guests of its own (L2).
//!
//! L1's VMX instructions exit and are carried out here. Of L1's VMCS ([`vmcs12`]), checked as the processor
//! checks it ([`checks`]), and of what the hypervisor itself needs, [`merge`] makes the VMCS under which L2
//! runs. An exit of L2 is the hypervisor's own, L1's, or both ([`route`]); [`reflect`] hands it to L1.
//! Everything but the glue to the machine takes its VMCSs as `&impl hw::Vmcs` and guest memory as
//! `&impl GuestMemory`, and runs in host tests.

mod capability;
mod checks;
mod ept02;
mod ept12;
mod fields;
mod io_bitmap;
mod merged_page;
mod msr_area;
mod msr_bitmap;
mod vmcs12;
mod vpid;
#[cfg(target_os = "none")]
mod watcher;

#[cfg(target_os = "none")]
pub(crate) use ept02::machine::forget_changes;
