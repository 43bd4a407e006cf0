//! Tables as a firmware writes them, byte by byte.

/// A structure: its type, its length, and what is behind.
pub(super) fn structure(kind: u16, body: &[u8]) -> Vec<u8> {
    cut(kind, 4 + body.len() as u16, body)
}

/// A structure that says to have `length` bytes.
pub(super) fn cut(kind: u16, length: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), body].concat()
}

/// A device scope of one or more steps.
pub(super) fn scope(kind: u8, flags: u8, id: u8, bus: u8, path: &[u8]) -> Vec<u8> {
    [&[kind, 6 + path.len() as u8, flags, 0, id, bus], path].concat()
}

pub(super) fn drhd(flags: u8, size: u8, segment: u16, base: u64, scopes: &[u8]) -> Vec<u8> {
    structure(0, &[&[flags, size][..], &segment.to_le_bytes(), &base.to_le_bytes(), scopes].concat())
}

pub(super) fn rmrr(segment: u16, base: u64, limit: u64, scopes: &[u8]) -> Vec<u8> {
    let fixed = [&[0, 0][..], &segment.to_le_bytes(), &base.to_le_bytes(), &limit.to_le_bytes()];
    structure(1, &[&fixed.concat()[..], scopes].concat())
}

/// ATSR, SATC and SIDP look alike.
pub(super) fn flagged(kind: u16, flags: u8, segment: u16, scopes: &[u8]) -> Vec<u8> {
    structure(kind, &[&[flags, 0][..], &segment.to_le_bytes(), scopes].concat())
}

pub(super) fn rhsa(base: u64, domain: u32) -> Vec<u8> {
    structure(3, &[&[0; 4][..], &base.to_le_bytes(), &domain.to_le_bytes()].concat())
}

pub(super) fn andd(number: u8, name: &[u8]) -> Vec<u8> {
    structure(4, &[&[0, 0, 0, number], name].concat())
}

/// What is behind the header of every table: width, flags and structures.
pub(super) fn body(width: u8, flags: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    [&[width, flags][..], &[0; 10], &structures.concat()].concat()
}
