//! Intel VMX: the guest's processor, and the way in and out of it.

#[cfg(target_os = "none")]
mod apply;
#[cfg(target_os = "none")]
mod bitmaps;
#[cfg(target_os = "none")]
mod cet;
#[cfg(target_os = "none")]
pub(crate) mod compartment;
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
mod vcpu;
#[cfg(target_os = "none")]
mod vendor;
#[cfg(target_os = "none")]
mod vm_entry;
#[cfg(target_os = "none")]
mod watch;

#[cfg(target_os = "none")]
pub(crate) use bitmaps::prepare;
#[cfg(target_os = "none")]
pub(crate) use nested::{ask_l1, memory as nested_memory, note_fault, translate as translate_nested};
#[cfg(target_os = "none")]
pub(crate) use start::{run_application_processor, run_bootstrap_processor};
#[cfg(target_os = "none")]
pub(crate) use vendor::VMX;
#[cfg(target_os = "none")]
pub(crate) use watch::{use_second_level, watch_external_interrupts, watch_interrupt_window};

#[cfg(any(test, fuzzing))]
pub use nested::model;

/// Whether a guest of the guest's runs on this CPU.
#[cfg(target_os = "none")]
pub(crate) fn is_nested(cpu: &crate::smp::percpu::PerCpu) -> bool {
    nested::is_l2(cpu)
}

/// Whether it runs under second-level tables of its hypervisor's.
#[cfg(target_os = "none")]
pub(crate) fn has_nested_second_level(cpu: &crate::smp::percpu::PerCpu) -> bool {
    nested::is_l2(cpu) && nested::has_second_level(cpu)
}
