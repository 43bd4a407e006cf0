//! What Xen tells its first domain.

use super::Failure;
use std::fs;

const FOLDER: &str = "/sys/hypervisor";

/// Prints kind of hypervisor and guest, and what Xen can run.
pub(super) fn perform() -> Result<(), Failure> {
    let read = |name: &str| {
        let path = format!("{FOLDER}/{name}");
        fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(|why| format!("{path}: {why}"))
    };
    for name in ["type", "guest_type", "properties/capabilities"] {
        println!("xmhf-guest: xen {name}=\"{}\"", read(name)?);
    }
    Ok(())
}
