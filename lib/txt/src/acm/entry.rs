//! How GETSEC\[SENTER\] enters a module, checked beforehand: the processor resets the machine where it is wrong.

use super::{AcmError, Header};

/// Checks entry point, selector and descriptor table (SDM, "GETSEC\[ENTERACCS\] - Execute Authenticated Chipset Code").
pub(super) const fn check(header: &Header<'_>) -> Result<(), AcmError> {
    let Header { entry_point, selector, gdt_base, gdt_limit, size, .. } = *header;
    let code = header.length.saturating_add(header.scratch_size);
    if entry_point < code || entry_point >= size {
        return Err(AcmError::EntryPoint(entry_point));
    }
    // Descriptor 0 cannot be loaded; the code segment's is in the module's own table, of ring 0, and followed by the
    // data segment's.
    let fits = match selector.checked_add(15) {
        Some(last) => last <= gdt_limit,
        None => false,
    };
    if selector < 8 || !selector.is_multiple_of(8) || !fits {
        return Err(AcmError::Selector(selector));
    }
    match gdt_base.checked_add(gdt_limit) {
        Some(last) if last < size => Ok(()),
        _ => Err(AcmError::DescriptorTable(gdt_base)),
    }
}
