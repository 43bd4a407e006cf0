//! What a PAL prints that was registered to be debugged.

use crate::layout::Layout;
use crate::machine::{Inaccessible, Pages};
use arrayvec::ArrayString;
use trustvisor::command::LOG_BYTES_LIMIT;
use trustvisor::flags::DEBUG;
use trustvisor::status::Status;

/// A line of the log.
pub type Line = ArrayString<LOG_BYTES_LIMIT>;

/// Returns the `length` characters at `address` in the PAL's memory; a dot for each byte that is no printable one of
/// ASCII, so that nobody prints lines that look like the hypervisor's.
///
/// # Errors
///
/// [`Status::NOT_DEBUG`], [`Status::BAD_PARAMETER`] or [`Status::BAD_ADDRESS`].
pub fn line(layout: &Layout, memory: &impl Pages, address: u64, length: u64) -> Result<Line, Status> {
    if layout.flags & DEBUG == 0 {
        return Err(Status::NOT_DEBUG);
    }
    let length = usize::try_from(length).ok().filter(|&length| length <= LOG_BYTES_LIMIT);
    let length = length.ok_or(Status::BAD_PARAMETER)?;
    let mut bytes = [0; LOG_BYTES_LIMIT];
    let read = layout.pieces(address, length, false, |page, offset, count| {
        memory.read(page, &mut bytes[offset..offset + count]);
    });
    read.map_err(|Inaccessible| Status::BAD_ADDRESS)?;
    let mut line = Line::new();
    for byte in &bytes[..length] {
        let is_printable = byte.is_ascii_graphic() || *byte == b' ';
        // There is room for as many as were read.
        let _ = line.try_push(if is_printable { char::from(*byte) } else { '.' });
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::tests::pal;

    #[test]
    fn a_line_is_of_printable_characters() {
        let (mut layout, memory) = pal();
        layout.flags = DEBUG;
        memory.write(0x10_3000, b"a = 7\n[0 INFO] \xc3\xa9\0~");
        assert_eq!(line(&layout, &memory, 0x3000, 19).unwrap().as_str(), "a = 7.[0 INFO] ...~");
        assert_eq!(line(&layout, &memory, 0x3000, 0).unwrap().as_str(), "");
    }

    #[test]
    fn only_pals_to_be_debugged_print_and_only_their_own() {
        let (mut layout, memory) = pal();
        for (flags, address, length, status) in [
            (0, 0x3000, 1, Status::NOT_DEBUG),
            (DEBUG - 1, 0x3000, 1, Status::NOT_DEBUG),
            (DEBUG, 0x3000, 257, Status::BAD_PARAMETER),
            (DEBUG, 0x3000, u64::MAX, Status::BAD_PARAMETER),
            (DEBUG, 0x7000, 1, Status::BAD_ADDRESS),
            (DEBUG, 0x6fff, 2, Status::BAD_ADDRESS),
            (DEBUG, u64::MAX, 2, Status::BAD_ADDRESS),
        ] {
            layout.flags = flags;
            assert_eq!(line(&layout, &memory, address, length), Err(status), "{address:#x} {length}");
        }
        layout.flags = DEBUG;
        assert_eq!(line(&layout, &memory, 0x3000, 256).map(|line| line.len()), Ok(256));
    }
}
