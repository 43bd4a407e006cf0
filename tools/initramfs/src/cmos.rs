//! The battery-backed memory of the real-time clock, which a reset leaves alone.
#![expect(unsafe_code, reason = "port instructions, and the system call that allows them")]
// UNSAFETY: the cloud kernel has no device file for ports or CMOS memory.

use nix::errno::Errno;
use x86_64::instructions::port::Port;

const INDEX_PORT: u16 = 0x70;
const DATA_PORT: u16 = 0x71;

/// Reads the byte `index`, below 0x80.
///
/// # Errors
///
/// The kernel's, where it keeps the ports to itself.
pub(crate) fn read(index: u8) -> Result<u8, Errno> {
    select(index)?;
    // SAFETY: `select` made the kernel allow this port; reading the selected byte changes nothing else.
    Ok(unsafe { Port::new(DATA_PORT).read() })
}

/// Writes the byte `index`, below 0x80 and not one that the clock, the BIOS or its checksum uses.
///
/// # Errors
///
/// The kernel's, where it keeps the ports to itself.
pub(crate) fn write(index: u8, value: u8) -> Result<(), Errno> {
    select(index)?;
    // SAFETY: `select` made the kernel allow this port, and the caller chose a byte that nobody uses.
    unsafe { Port::new(DATA_PORT).write(value) };
    Ok(())
}

fn select(index: u8) -> Result<(), Errno> {
    // SAFETY: the two ports are the clock's alone.
    Errno::result(unsafe { nix::libc::ioperm(INDEX_PORT.into(), 2, 1) })?;
    // SAFETY: the kernel allowed the port; selecting a byte changes none. Bit 7 clear leaves NMIs on.
    unsafe { Port::new(INDEX_PORT).write(index & 0x7f) };
    Ok(())
}
