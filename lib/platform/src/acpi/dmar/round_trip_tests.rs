//! What a firmware writes is what is read.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::sdt::tests::put_table;
use super::table_bytes::{andd, body, drhd, flagged, rhsa, rmrr, scope, structure};
use super::*;
use crate::physical::TestMemory;

/// A device scope's kind, flags, ID, bus and path.
type PlainScope = (u8, u8, u8, u8, Vec<(u8, u8)>);

/// A structure with its scopes beside it, as a test makes it.
#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Drhd {
        is_for_all: bool,
        size: u8,
        segment: u16,
        page: u64,
        scopes: Vec<PlainScope>,
    },
    Rmrr {
        segment: u16,
        base: u64,
        limit: u64,
        scopes: Vec<PlainScope>,
    },
    /// Type, flag, segment; without flags in a SIDP.
    Flagged {
        kind: u16,
        flag: bool,
        segment: u16,
        scopes: Vec<PlainScope>,
    },
    Rhsa {
        base: u64,
        domain: u32,
    },
    Andd {
        number: u8,
        name: Vec<u8>,
    },
    Unknown {
        kind: u16,
        rest: usize,
    },
}

fn scope_bytes(scopes: &[PlainScope]) -> Vec<u8> {
    let bytes = |(kind, flags, id, bus, path): &PlainScope| {
        let path: Vec<_> = path.iter().flat_map(|&(device, function)| [device, function]).collect();
        scope(*kind, *flags, *id, *bus, &path)
    };
    scopes.iter().flat_map(bytes).collect()
}

impl Plain {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Drhd { is_for_all, size, segment, page, scopes } => {
                drhd((*is_for_all).into(), *size, *segment, page << 12, &scope_bytes(scopes))
            }
            Self::Rmrr { segment, base, limit, scopes } => {
                rmrr(*segment, *base, *limit, &scope_bytes(scopes))
            }
            Self::Flagged { kind, flag, segment, scopes } => {
                flagged(*kind, (*flag).into(), *segment, &scope_bytes(scopes))
            }
            Self::Rhsa { base, domain } => rhsa(*base, *domain),
            Self::Andd { number, name } => andd(*number, &[&name[..], &[0]].concat()),
            Self::Unknown { kind, rest } => structure(*kind, &vec![0xa5; *rest]),
        }
    }

    /// What was read, in the words of the test; of what is unknown only the kind can be.
    fn of(structure: Structure, memory: &TestMemory) -> Self {
        let scopes = structure.scopes().map(|scopes| scopes.devices(memory)).into_iter().flatten();
        let plain = |scope: DeviceScope| {
            let kind = match scope.kind {
                ScopeKind::Endpoint => 1,
                ScopeKind::SubHierarchy => 2,
                ScopeKind::IoApic => 3,
                ScopeKind::Hpet => 4,
                ScopeKind::Namespace => 5,
                ScopeKind::Unknown(kind) => kind,
            };
            let path = scope.path.iter().map(|hop| (hop.device, hop.function)).collect();
            (kind, scope.flags, scope.enumeration_id, scope.start_bus, path)
        };
        let scopes = scopes.map(|scope| plain(scope.unwrap())).collect();
        match structure {
            Structure::Drhd(Drhd { is_for_all, register_bytes, segment, register_base, .. }) => {
                let size = (register_bytes / 4096).ilog2() as u8;
                Self::Drhd { is_for_all, size, segment, page: register_base >> 12, scopes }
            }
            Structure::Rmrr(Rmrr { segment, base, limit, .. }) => Self::Rmrr { segment, base, limit, scopes },
            Structure::Atsr(Atsr { is_for_all: flag, segment, .. }) => {
                Self::Flagged { kind: 2, flag, segment, scopes }
            }
            Structure::Satc(Satc { is_required: flag, segment, .. }) => {
                Self::Flagged { kind: 5, flag, segment, scopes }
            }
            Structure::Sidp(Sidp { segment, .. }) => Self::Flagged { kind: 6, flag: false, segment, scopes },
            Structure::Rhsa(Rhsa { register_base: base, proximity_domain: domain }) => {
                Self::Rhsa { base, domain }
            }
            Structure::Andd(Andd { number, name }) => Self::Andd { number, name: name.to_vec() },
            Structure::Unknown(kind) => Self::Unknown { kind, rest: 0 },
        }
    }
}

fn scopes() -> impl Strategy<Value = Vec<PlainScope>> {
    vec((1..6_u8, any::<u8>(), any::<u8>(), any::<u8>(), vec((0..32_u8, 0..8_u8), 1..5)), 0..4)
}

fn plain() -> impl Strategy<Value = Plain> {
    prop_oneof![
        (any::<bool>(), 0..16_u8, any::<u16>(), 1..1_u64 << 39, scopes()).prop_map(
            |(is_for_all, size, segment, page, scopes)| Plain::Drhd {
                is_for_all,
                size,
                segment,
                page,
                scopes
            }
        ),
        (any::<u16>(), 0..1_u64 << 51, 0..1_u64 << 51, scopes()).prop_map(|(segment, base, more, scopes)| {
            Plain::Rmrr { segment, base, limit: base + more, scopes }
        }),
        (prop_oneof![Just(2_u16), Just(5), Just(6)], any::<bool>(), any::<u16>(), scopes()).prop_map(
            |(kind, flag, segment, scopes)| Plain::Flagged { kind, flag: flag && kind != 6, segment, scopes }
        ),
        (any::<u64>(), any::<u32>()).prop_map(|(base, domain)| Plain::Rhsa { base, domain }),
        (any::<u8>(), vec(0x21..0x7f_u8, 1..40)).prop_map(|(number, name)| Plain::Andd { number, name }),
        (7..=u16::MAX, 0..20_usize).prop_map(|(kind, rest)| Plain::Unknown { kind, rest }),
    ]
}

proptest! {
    #[test]
    fn structures_are_read_as_they_were_written(
        width in 12..64_u8, flags in any::<u8>(), structures in vec(plain(), 0..12),
    ) {
        let mut memory = TestMemory::new();
        let written: Vec<_> = structures.iter().map(Plain::bytes).collect();
        put_table(&mut memory, 0x4000, b"DMAR", &body(width, flags, &written));
        let table = Table::read(&memory, 0x4000).unwrap();
        let dmar = Dmar::read(&memory, &table).unwrap();
        prop_assert_eq!((dmar.host_address_bits, dmar.flags.bits()), (u16::from(width) + 1, flags));
        let read: Vec<_> =
            dmar.structures(&memory).map(|structure| Plain::of(structure.unwrap(), &memory)).collect();
        let expected: Vec<_> = structures
            .into_iter()
            .map(|plain| match plain {
                Plain::Unknown { kind, .. } => Plain::Unknown { kind, rest: 0 },
                known => known,
            })
            .collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_bytes_are_a_table_that_is_walked_to_an_end(bytes in vec(any::<u8>(), 0..600)) {
        check_any(&bytes);
    }

    #[test]
    fn a_table_with_some_bytes_changed_is_walked_to_an_end(
        structures in vec(plain(), 1..8), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let written: Vec<_> = structures.iter().map(Plain::bytes).collect();
        let mut bytes = [vec![0; 36], body(38, 1, &written)].concat();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        check_any(&bytes);
    }
}
