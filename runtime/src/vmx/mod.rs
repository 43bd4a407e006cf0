//! Intel VMX: the guest's processor, and the way in and out of it.

mod apply;
mod bitmaps;
mod cet;
mod compartment;
mod controls;
mod decode;
mod dump;
mod enable;
mod feature_control;
#[cfg(test)]
pub(crate) mod fixture;
mod host_state;
mod inject;
mod invalidate;
#[cfg(test)]
mod machine_tests;
mod nested;
mod observers;
mod probe;
mod run;
mod setup;
mod start;
mod switch;
mod table_format;
mod vcpu;
mod vendor;
mod view;
mod vm_entry;
mod watch;

pub(crate) use table_format::SecondLevelFormat;
pub(crate) use vendor::VMX;

#[cfg(any(test, fuzzing))]
pub use nested::model;
