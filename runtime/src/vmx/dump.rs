//! The current VMCS, field by field, for a stop.

use core::fmt::Write;
use hw::bare::vmx::probe;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, Group};

/// Writes every field of the current VMCS that this processor has, the guest's state only where `with_guest`; nothing
/// where there is no current VMCS.
pub(super) fn dump(to: &mut dyn Write, with_guest: bool) -> core::fmt::Result {
    let Some(reason) = probe(vmcs::EXIT_REASON.encoding()) else { return Ok(()) };
    let reason = ExitReason(u32::try_from(reason).unwrap_or_default());
    writeln!(to, "exit: {} ({:#x})", reason.name(), reason.0)?;
    let groups = [Group::ExitInformation, Group::Guest, Group::Control, Group::Host];
    for group in groups.into_iter().filter(|group| with_guest || *group != Group::Guest) {
        for field in vmcs::FIELDS.iter().filter(|field| field.group() == group) {
            if let Some(value) = probe(field.encoding) {
                writeln!(to, "vmcs {:#06x} {} = {value:#x}", field.encoding, field.name)?;
            }
        }
    }
    Ok(())
}
