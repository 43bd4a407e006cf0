//! Intel VMX: the guest's processor, and the way in and out of it.

#[cfg(target_os = "none")]
mod apply;
#[cfg(target_os = "none")]
mod bitmaps;
#[cfg(target_os = "none")]
mod cet;
#[cfg(target_os = "none")]
mod compartment;
mod controls;
mod decode;
#[cfg(target_os = "none")]
mod dump;
#[cfg(target_os = "none")]
mod enable;
#[cfg(any(test, target_os = "none"))]
mod feature_control;
#[cfg(target_os = "none")]
mod host_state;
mod inject;
#[cfg(target_os = "none")]
mod invalidate;
mod machine_registers;
#[expect(dead_code, reason = "some parts are entered from the machine alone, some from tests")]
mod nested;
mod observers;
mod probe;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod setup;
#[cfg(target_os = "none")]
mod start;
mod switch;
#[cfg(target_os = "none")]
mod table_format;
mod vcpu;
#[cfg(target_os = "none")]
mod vendor;
#[cfg(target_os = "none")]
mod vm_entry;
#[cfg(target_os = "none")]
mod watch;

#[cfg(target_os = "none")]
pub(crate) use table_format::SecondLevelFormat;
#[cfg(target_os = "none")]
pub(crate) use vendor::VMX;

#[cfg(any(test, fuzzing))]
pub use nested::model;
