//! One restart of the machine, told apart from the first boot by a byte of CMOS memory.

use super::Failure;
use crate::{cmos, machine};
use std::thread::sleep;
use std::time::Duration;

/// Byte that neither the BIOS nor its checksum uses.
const MARK: u8 = 0x7e;
const RESTARTED: u8 = 0xa5;

/// Restarts the machine on the first boot; succeeds on the second, after clearing the mark.
pub(super) fn perform() -> Result<(), Failure> {
    let describe = |why| format!("CMOS: {why}");
    if cmos::read(MARK).map_err(describe)? == RESTARTED {
        return cmos::write(MARK, 0).map_err(describe);
    }
    cmos::write(MARK, RESTARTED).map_err(describe)?;
    println!("xmhf-guest: restarting");
    machine::reset();
    // The reset itself takes effect a little after the system call.
    sleep(Duration::from_secs(10));
    Err("the machine did not restart".into())
}
