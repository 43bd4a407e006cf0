//! Tables that no firmware should have, and what is told of each.

use super::super::sdt::tests::put_table;
use super::table_bytes::{andd, body, cut, drhd, flagged, rhsa, rmrr, scope, structure};
use super::*;
use crate::physical::TestMemory;

const TABLE: usize = 0x4000;
const BASE: u64 = 0xfed9_0000;
/// The width that means 39 bits.
const WIDTH: u8 = 38;

fn name(structure: &Structure) -> String {
    match structure {
        Structure::Drhd(drhd) => format!("DRHD {:#x}", drhd.register_base),
        Structure::Rmrr(rmrr) => format!("RMRR {:#x}-{:#x}", rmrr.base, rmrr.limit),
        Structure::Atsr(_) => "ATSR".into(),
        Structure::Rhsa(_) => "RHSA".into(),
        Structure::Andd(_) => "ANDD".into(),
        Structure::Satc(_) => "SATC".into(),
        Structure::Sidp(_) => "SIDP".into(),
        Structure::Unknown(kind) => format!("type {kind}"),
    }
}

/// All that is told of the table at [`TABLE`], in order: structures, their devices, faults.
fn told(memory: &TestMemory) -> Vec<String> {
    let table = Table::read(memory, TABLE as u64).unwrap();
    let dmar = match Dmar::read(memory, &table) {
        Ok(dmar) => dmar,
        Err(error) => return vec![error.to_string()],
    };
    let mut told = Vec::new();
    for result in dmar.structures(memory) {
        match result {
            Ok(structure) => {
                told.push(name(&structure));
                let devices = structure.scopes().map(|scopes| scopes.devices(memory));
                told.extend(devices.into_iter().flatten().map(|device| match device {
                    Ok(device) => format!("{:?} of {} steps", device.kind, device.path.len()),
                    Err(error) => error.to_string(),
                }));
            }
            Err(error) => told.push(error.to_string()),
        }
    }
    told
}

fn told_of(body: &[u8]) -> Vec<String> {
    let mut memory = TestMemory::new();
    put_table(&mut memory, TABLE, b"DMAR", body);
    told(&memory)
}

fn good() -> Vec<u8> {
    drhd(1, 0, 0, BASE, &[])
}

const GOOD: &str = "DRHD 0xfed90000";

/// One case: its name, the structures, what is told.
type Case = (&'static str, Vec<Vec<u8>>, &'static [&'static str]);

fn expect(cases: Vec<Case>) {
    assert!(cases.len() >= 8);
    for (name, structures, expected) in cases {
        assert_eq!(told_of(&body(WIDTH, 1, &structures)), expected, "{name}");
    }
}

#[test]
fn lengths_that_cannot_be_end_the_walk_by_name() {
    let shorter = |kind, length: u16| vec![cut(kind, length, &vec![0; usize::from(length) - 4]), good()];
    expect(vec![
        ("no structure", vec![], &[]),
        ("a byte behind", vec![good(), vec![0]], &[GOOD, "offset 0x40: 1 bytes are no structure"]),
        ("three bytes behind", vec![good(), vec![0; 3]], &[GOOD, "offset 0x40: 3 bytes are no structure"]),
        (
            "zeros behind",
            vec![good(), vec![0; 16]],
            &[GOOD, "DRHD at offset 0x40: 0 bytes cannot be its length"],
        ),
        (
            "length 0",
            vec![cut(1, 0, &[0; 20]), good()],
            &["RMRR at offset 0x30: 0 bytes cannot be its length"],
        ),
        (
            "length 3",
            vec![cut(9, 3, &[0; 20])],
            &["structure of type 9 at offset 0x30: 3 bytes cannot be its length"],
        ),
        ("short DRHD", shorter(0, 15), &["DRHD at offset 0x30: 15 bytes cannot be its length"]),
        ("short RMRR", shorter(1, 23), &["RMRR at offset 0x30: 23 bytes cannot be its length"]),
        ("short ATSR", shorter(2, 7), &["ATSR at offset 0x30: 7 bytes cannot be its length"]),
        ("short RHSA", shorter(3, 19), &["RHSA at offset 0x30: 19 bytes cannot be its length"]),
        ("short ANDD", shorter(4, 8), &["ANDD at offset 0x30: 8 bytes cannot be its length"]),
        ("short SATC", shorter(5, 7), &["SATC at offset 0x30: 7 bytes cannot be its length"]),
        ("short SIDP", shorter(6, 7), &["SIDP at offset 0x30: 7 bytes cannot be its length"]),
        (
            "a byte too long",
            vec![cut(0, 17, &good()[4..])],
            &["DRHD at offset 0x30: 17 bytes cannot be its length"],
        ),
        (
            "longest",
            vec![cut(0, 0xffff, &good()[4..])],
            &["DRHD at offset 0x30: 65535 bytes cannot be its length"],
        ),
    ]);
}

#[test]
fn what_a_structure_cannot_say_costs_no_other() {
    let named = |name: &[u8]| vec![andd(1, name), good()];
    let endless = [&[b'A'; 300][..], &[0]].concat();
    expect(vec![
        (
            "unit at 0",
            vec![drhd(0, 0, 0, 0, &[]), good()],
            &["DRHD at offset 0x30: no registers can be at 0x0", GOOD],
        ),
        (
            "unit inside a page",
            vec![drhd(0, 0, 0, BASE + 8, &[]), good()],
            &["DRHD at offset 0x30: no registers can be at 0xfed90008", GOOD],
        ),
        (
            "unit beyond memory",
            vec![drhd(0, 0, 0, 1 << 52, &[]), good()],
            &["DRHD at offset 0x30: no registers can be at 0x10000000000000", GOOD],
        ),
        (
            "unit across the end",
            vec![drhd(0, 1, 0, (1 << 52) - 0x1000, &[]), good()],
            &["DRHD at offset 0x30: no registers can be at 0xffffffffff000", GOOD],
        ),
        (
            "unit that wraps",
            vec![drhd(0, 15, 0, u64::MAX - 0xfff, &[]), good()],
            &["DRHD at offset 0x30: no registers can be at 0xfffffffffffff000", GOOD],
        ),
        (
            "memory that ends first",
            vec![rmrr(0, 0x2000, 0x1fff, &[]), good()],
            &["RMRR at offset 0x30: no memory goes from 0x2000 to 0x1fff", GOOD],
        ),
        (
            "memory without end",
            vec![rmrr(0, 0, u64::MAX, &[]), good()],
            &["RMRR at offset 0x30: no memory goes from 0x0 to 0xffffffffffffffff", GOOD],
        ),
        ("memory of a byte", vec![rmrr(0, 7, 7, &[])], &["RMRR 0x7-0x7"]),
        ("empty name", named(&[0]), &["ANDD at offset 0x30: the name of an ACPI object is none", GOOD]),
        ("endless name", named(b"\\_SB"), &["ANDD at offset 0x30: the name of an ACPI object is none", GOOD]),
        ("long name", named(&endless), &["ANDD at offset 0x30: the name of an ACPI object is none", GOOD]),
        (
            "binary name",
            named(b"\\\x1b[2J\0"),
            &["ANDD at offset 0x30: the name of an ACPI object is none", GOOD],
        ),
        ("name and more", named(b"\\_SB\0\xff\xff"), &["ANDD", GOOD]),
        (
            "unknown kind",
            vec![structure(7, &[0xff; 9]), structure(0xffff, &[]), good()],
            &["type 7", "type 65535", GOOD],
        ),
        (
            "longer affinity",
            vec![[cut(3, 24, &rhsa(BASE, 1)[4..]), vec![0; 4]].concat(), good()],
            &["RHSA", GOOD],
        ),
    ]);
}

#[test]
fn device_scopes_that_cannot_be_cost_no_unit() {
    let unit = |scopes: &[Vec<u8>]| vec![drhd(0, 0, 0, BASE, &scopes.concat()), rmrr(0, 0, 0xfff, &[])];
    let fine = scope(1, 0, 0, 0, &[2, 0]);
    const FINE: &str = "Endpoint of 1 steps";
    const NEXT: &str = "RMRR 0x0-0xfff";
    const NO_PATH: &str = "DRHD at offset 0x40: the path of a device scope leads to no device";
    for length in [0_u8, 5, 17, 255] {
        let structures = unit(&[vec![1, length, 0, 0, 0, 0, 2, 0], fine.clone()]);
        let fault = format!("DRHD at offset 0x40: {length} bytes cannot be a device scope's length");
        assert_eq!(told_of(&body(WIDTH, 1, &structures)), [GOOD, &fault, NEXT], "length {length}");
    }
    expect(vec![
        (
            "five bytes",
            unit(&[vec![1, 6, 0, 0, 0]]),
            &[GOOD, "DRHD at offset 0x40: 5 bytes cannot be a device scope's length", NEXT],
        ),
        ("no step", unit(&[scope(1, 0, 0, 0, &[]), fine.clone()]), &[GOOD, NO_PATH, FINE, NEXT]),
        ("half a step", unit(&[scope(1, 0, 0, 0, &[2, 0, 3]), fine.clone()]), &[GOOD, NO_PATH, FINE, NEXT]),
        ("device 32", unit(&[scope(1, 0, 0, 0, &[32, 0]), fine.clone()]), &[GOOD, NO_PATH, FINE, NEXT]),
        ("function 8", unit(&[scope(1, 0, 0, 0, &[31, 8]), fine.clone()]), &[GOOD, NO_PATH, FINE, NEXT]),
        (
            "bad second step",
            unit(&[scope(2, 0, 0, 0, &[1, 0, 0xff, 0]), fine.clone()]),
            &[GOOD, NO_PATH, FINE, NEXT],
        ),
        ("last device", unit(&[scope(2, 0, 0, 255, &[31, 7])]), &[GOOD, "SubHierarchy of 1 steps", NEXT]),
        ("longest path", unit(&[scope(2, 0, 0, 0, &[1; 248])]), &[GOOD, "SubHierarchy of 124 steps", NEXT]),
        (
            "unknown kind",
            unit(&[scope(6, 0, 0, 0, &[0xff; 3]), fine]),
            &[GOOD, "Unknown(6) of 0 steps", FINE, NEXT],
        ),
        ("a header alone", unit(&[scope(6, 0, 0, 0, &[])]), &[GOOD, "Unknown(6) of 0 steps", NEXT]),
    ]);
}

#[test]
fn faults_of_the_table_itself_are_named() {
    for length in 0..12 {
        let told = told_of(&body(WIDTH, 0, &[])[..length]);
        assert_eq!(told, ["offset 0x0: the table ends before its first structure"], "{length}");
    }
    for (width, bits) in [(0, 1), (11, 12), (64, 65), (255, 256)] {
        let expected = [format!("offset 0x24: no address has {bits} bits"), GOOD.into()];
        assert_eq!(told_of(&body(width, 0, &[good()])), expected);
    }
    for width in [12, 51, 63] {
        assert_eq!(told_of(&body(width, 0xff, &[good()])), [GOOD]);
    }
}

#[test]
fn a_table_at_the_end_of_memory_is_walked_to_an_end() {
    let mut memory = TestMemory::new();
    let body = body(WIDTH, 0, &[good(), flagged(2, 0, 0, &scope(1, 0, 0, 0, &[1, 0]))]);
    put_table(&mut memory, TABLE, b"DMAR", &body);
    let whole = memory.0.clone();
    let table = Table::read(&memory, TABLE as u64).unwrap();
    for end in TABLE..TABLE + 36 + body.len() {
        memory.0 = whole[..end].to_vec();
        let told = match Dmar::read(&memory, &table) {
            Ok(dmar) => dmar.structures(&memory).count(),
            Err(error) => {
                assert_eq!(error.fault, Fault::Unreadable);
                1
            }
        };
        assert!((1..=2).contains(&told), "{told} of {end:#x}");
    }
}

#[test]
fn reserved_memory_is_opened_in_whole_pages() {
    for (base, limit, start, end) in [
        (0, 0, 0, 0x1000),
        (0, 0xfff, 0, 0x1000),
        (7, 0x1000, 0, 0x2000),
        (0x1fff, 0x2000, 0x1000, 0x3000),
        (0x7b80_0000, 0x7fff_ffff, 0x7b80_0000, 0x8000_0000),
        ((1 << 52) - 1, (1 << 52) - 1, (1 << 52) - 0x1000, 1 << 52),
    ] {
        let mut memory = TestMemory::new();
        put_table(&mut memory, TABLE, b"DMAR", &body(WIDTH, 0, &[rmrr(0, base, limit, &[])]));
        let table = Table::read(&memory, TABLE as u64).unwrap();
        let structure = Dmar::read(&memory, &table).unwrap().structures(&memory).next();
        let Some(Ok(Structure::Rmrr(rmrr))) = structure else { panic!("{structure:?}") };
        let pages = rmrr.pages();
        assert_eq!((pages.base, pages.base + pages.length), (start, end), "{base:#x}-{limit:#x}");
    }
}
