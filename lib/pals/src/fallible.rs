//! Vectors whose memory is asked for: where there is none, somebody is told. Nothing else that a process can reach
//! allocates.

use alloc::vec::Vec;
use trustvisor::status::Status;

/// Returns an empty vector with room for `count`; memory that is out is the program's error, not ours.
pub(crate) fn reserved<T>(count: usize) -> Result<Vec<T>, Status> {
    let mut items = Vec::new();
    items.try_reserve_exact(count).map_err(|_| Status::OUT_OF_MEMORY)?;
    Ok(items)
}

/// Puts `item` behind the others, where there is room.
pub(crate) fn put<T>(items: &mut Vec<T>, item: T) -> Result<(), Status> {
    if items.len() == items.capacity() {
        items.try_reserve(1).map_err(|_| Status::OUT_OF_MEMORY)?;
    }
    #[expect(clippy::disallowed_methods, reason = "there is room")]
    items.push(item);
    Ok(())
}

/// `count` times `item`.
pub(crate) fn filled<T: Clone>(count: usize, item: T) -> Result<Vec<T>, Status> {
    let mut items = reserved(count)?;
    #[expect(clippy::disallowed_methods, reason = "there is room")]
    items.resize(count, item);
    Ok(items)
}

/// Returns a copy of `bytes`.
pub(crate) fn copied(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let mut items = reserved(bytes.len())?;
    #[expect(clippy::disallowed_methods, reason = "there is room")]
    items.extend_from_slice(bytes);
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert_eq!(reserved::<u64>(usize::MAX), Err(Status::OUT_OF_MEMORY));
        assert_eq!(filled(usize::MAX / 2, 0u64), Err(Status::OUT_OF_MEMORY));
        let mut items = Vec::new();
        assert_eq!(
            (put(&mut items, 7), filled(2, 1u8), copied(b"ab")),
            (Ok(()), Ok(vec![1, 1]), Ok(vec![97, 98]))
        );
        assert_eq!(items, [7]);
    }
}
