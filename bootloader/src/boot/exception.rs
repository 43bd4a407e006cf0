//! Exceptions of the bootloader itself: an expected one goes on elsewhere, any other stops the boot.

use hw::bare::exception_table::resume_address;

/// What `entry.S` and the processor leave on the stack (SDM, "64-Bit Mode Stack Frame").
#[repr(C)]
pub(super) struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
}

/// Called by `entry.S` for each of the 32 exceptions, NMI among them.
pub(super) extern "C" fn exception(frame: &mut Frame) {
    match resume_address(frame.vector, frame.rip) {
        Some(resume) => frame.rip = resume,
        None => {
            super::console::seize();
            super::refuse(format_args!(
                "stop: bootloader: exception: vector {} error code {:#x} at {:#x}; report it",
                frame.vector, frame.error_code, frame.rip
            ))
        }
    }
}
