//! Memory: the hypervisor's own, and the guest's.
//!
//! [`policy`] says what every guest-physical page is; [`second_level`] keeps the tables that processors walk
//! as a cache of it, through `radix`, in frames of the pool ([`frame`]). [`protect`] and [`views`] are what
//! hypapps change. `host` is the hypervisor's own address space, [`private`] what of it is mapped at times only; [`guest`] copies to and from the guest.

mod boundaries;
pub mod changes;
pub mod compartment_tables;
mod derived;
pub mod flush;
pub mod frame;
pub mod guarded;
pub mod guest;
pub(crate) mod guest_physical;
pub mod host;
mod lent;
#[cfg(test)]
mod plain_format;
pub mod policy;
pub mod private;
pub mod protect;
mod radix;
pub mod range;
mod refresh;
mod root;
pub mod second_level;
mod sorted_pages;
mod unseen;
pub mod views;
pub mod watch;

pub use flush::Flush;
pub use range::GuestRange;
pub use root::TableRoot;
pub use second_level::{ProtectError, Resolution, SecondLevel};
pub use views::View;
