//! Fields in somebody's bytes, little-endian; `None` where they would lie outside.

/// The `length` bytes at `at`.
pub(crate) fn part(bytes: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(length)?)
}

/// The `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    part(bytes, at, N)?.try_into().ok()
}

/// The 16-bit number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// The 32-bit number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// The 64-bit number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Puts `field` at `at`.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) -> Option<()> {
    bytes.get_mut(at..at.checked_add(field.len())?)?.copy_from_slice(field);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_outside_are_none_and_no_sum_wraps() {
        let mut bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!((u16_at(&bytes, 6), u16_at(&bytes, 7)), (Some(0x807), None));
        assert_eq!((u32_at(&bytes, 4), u32_at(&bytes, 5)), (Some(0x807_0605), None));
        assert_eq!((u64_at(&bytes, 0), u64_at(&bytes, 1)), (Some(0x807_0605_0403_0201), None));
        assert_eq!(u64_at(&bytes, usize::MAX), None);
        assert_eq!(part(&bytes, 8, 0), Some(&[][..]));
        assert_eq!((put(&mut bytes, 7, &[9]), put(&mut bytes, 7, &[9, 9])), (Some(()), None));
        assert_eq!((put(&mut bytes, usize::MAX, &[9]), bytes[7]), (None, 9));
    }
}
