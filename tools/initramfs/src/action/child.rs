//! Child processes made by fork and exec, the way a shell makes them.
#![expect(unsafe_code, reason = "fork() is an unsafe function")]
// UNSAFETY: init has one thread, so a forked child may run any code.

use super::Failure;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execv, fork};
use std::ffi::CStr;
use std::process::exit;

/// Starts a child that runs `work` and exits with its status.
///
/// # Errors
///
/// The kernel's, where it refuses another process.
pub(crate) fn start(work: impl FnOnce() -> i32) -> Result<Pid, Failure> {
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => exit(work()),
        Ok(ForkResult::Parent { child }) => Ok(child),
        Err(why) => Err(format!("fork: {why}")),
    }
}

/// Waits until the child ends.
///
/// # Errors
///
/// How it ended, where that is not exit status 0.
pub(crate) fn wait(child: Pid) -> Result<(), Failure> {
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(status) => Err(format!("child ended with {status:?}")),
        Err(why) => Err(format!("waitpid: {why}")),
    }
}

/// Waits until `signal` ends the child.
///
/// # Errors
///
/// How it ended, where that is not by this signal.
pub(crate) fn wait_for_signal(child: Pid, signal: Signal) -> Result<(), Failure> {
    match waitpid(child, None) {
        Ok(WaitStatus::Signaled(_, seen, _)) if seen == signal => Ok(()),
        Ok(status) => Err(format!("child ended with {status:?}, not by {signal}")),
        Err(why) => Err(format!("waitpid: {why}")),
    }
}

/// Runs `/bin/busybox true` in a child and waits for it.
///
/// # Errors
///
/// As [`start`] and [`wait`].
pub(crate) fn fork_exec_wait() -> Result<(), Failure> {
    wait(start(|| exec(&[c"/bin/busybox", c"true"]))?)
}

/// Replaces this process by the program `arguments[0]`; returns a status where that fails.
pub(crate) fn exec(arguments: &[&CStr]) -> i32 {
    match execv(arguments[0], arguments) {
        Ok(never) => match never {},
        Err(why) => why as i32,
    }
}

/// Has this process run on `cpu` alone.
///
/// # Errors
///
/// The kernel's, where there is no such CPU.
pub(crate) fn bind(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu).map_err(|why| why.to_string())?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|why| format!("sched_setaffinity: {why}"))
}
