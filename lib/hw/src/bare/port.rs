//! IN and OUT.

use crate::PortWidth;
use x86_64::instructions::port::Port;

/// IN; the value is zero-extended.
pub(super) fn read(port: u16, width: PortWidth) -> u32 {
    match width {
        // SAFETY: port accesses touch no memory of ours; what devices do is the guest's business.
        PortWidth::Byte => u32::from(unsafe { Port::<u8>::new(port).read() }),
        // SAFETY: as above.
        PortWidth::Word => u32::from(unsafe { Port::<u16>::new(port).read() }),
        // SAFETY: as above.
        PortWidth::Dword => unsafe { Port::<u32>::new(port).read() },
    }
}

/// OUT; bits above the width are ignored.
#[expect(clippy::cast_possible_truncation, reason = "the width says how many bits count")]
pub(super) fn write(port: u16, width: PortWidth, value: u32) {
    match width {
        // SAFETY: port accesses touch no memory of ours; what devices do is the guest's business.
        PortWidth::Byte => unsafe { Port::<u8>::new(port).write(value as u8) },
        // SAFETY: as above.
        PortWidth::Word => unsafe { Port::<u16>::new(port).write(value as u16) },
        // SAFETY: as above.
        PortWidth::Dword => unsafe { Port::<u32>::new(port).write(value) },
    }
}
