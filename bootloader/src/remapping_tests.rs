//! Tables of a made-up firmware, what is told of them, and the memory that is left.

use std::cell::RefCell;

use log::{LevelFilter, Log, Metadata, Record};
use platform::handoff::{MEMORY_MAP_CAPACITY, MemoryRange, PhysRange, USABLE};
use platform::physical::Unreadable;

use super::*;

const MIB: u64 = 1 << 20;
const DMAR: usize = 0x5000;

thread_local!(static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

/// Keeps what each thread says.
struct Told;

impl Log for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        TOLD.with_borrow_mut(|told| told.push(format!("{} {}", record.level(), record.args())));
    }

    fn flush(&self) {}
}

/// The first MiB of a machine with ACPI.
struct Firmware(Vec<u8>);

impl ReadPhysical for Firmware {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(address).map_err(|_| Unreadable)?;
        bytes
            .copy_from_slice(self.0.get(start..).and_then(|rest| rest.get(..bytes.len())).ok_or(Unreadable)?);
        Ok(())
    }
}

impl Firmware {
    /// A machine whose RSDT and XSDT both name a DMAR with these structures.
    fn new(structures: &[&[u8]]) -> Self {
        let mut firmware = Self(vec![0; 0x10_0000]);
        firmware.put(0xe_0000, b"RSD PTR ");
        firmware.put(0xe_000f, &[2]);
        firmware.put(0xe_0010, &0x1000_u32.to_le_bytes());
        firmware.put(0xe_0018, &0x2000_u64.to_le_bytes());
        firmware.put(0xe_0014, &36_u32.to_le_bytes());
        firmware.seal(0xe_0000, 20, 8);
        firmware.seal(0xe_0000, 36, 32);
        firmware.table(0x1000, b"RSDT", &(u32::try_from(DMAR).unwrap()).to_le_bytes());
        firmware.table(0x2000, b"XSDT", &(DMAR as u64).to_le_bytes());
        firmware.table(
            DMAR,
            b"DMAR",
            &[&[38, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &structures.concat()[..]].concat(),
        );
        firmware
    }

    fn put(&mut self, address: usize, bytes: &[u8]) {
        self.0[address..address + bytes.len()].copy_from_slice(bytes);
    }

    fn table(&mut self, address: usize, signature: &[u8; 4], body: &[u8]) {
        self.put(address, signature);
        self.put(address + 4, &u32::try_from(36 + body.len()).unwrap().to_le_bytes());
        self.put(address + 36, body);
        self.seal(address, 36 + body.len(), 9);
    }

    fn seal(&mut self, address: usize, length: usize, at: usize) {
        let sum = self.0[address..address + length].iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        self.0[address + at] = sum.wrapping_neg();
    }

    /// The usable memory that is left of `map`, and what was told.
    fn left(&self, map: &MemoryMap) -> (Result<Vec<PhysRange>, SurveyError>, Vec<String>) {
        let (survey, told) = self.survey(map, DeviceProtection::On);
        (survey.map(|survey| survey.free.usable().collect()), told)
    }

    fn survey(
        &self,
        map: &MemoryMap,
        wanted: DeviceProtection,
    ) -> (Result<Survey, SurveyError>, Vec<String>) {
        // The second test finds the logger set.
        let _ = log::set_logger(&Told);
        log::set_max_level(LevelFilter::Trace);
        TOLD.take();
        (survey(self, map, wanted), TOLD.take())
    }
}

fn map(ranges: &[(u64, u64)]) -> MemoryMap {
    let record =
        |&(base, end): &(u64, u64)| MemoryRange { base, length: end - base, kind: USABLE, attributes: 1 };
    MemoryMap::sanitise(&ranges.iter().map(record).collect::<Vec<_>>()).unwrap()
}

fn range(base: u64, end: u64) -> PhysRange {
    PhysRange { base, length: end - base }
}

fn unit(flags: u8, base: u64, scopes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(16 + scopes.len()).unwrap();
    [&[0, 0, length, 0, flags, 0, 0, 0][..], &base.to_le_bytes(), scopes].concat()
}

fn reserved(base: u64, limit: u64) -> Vec<u8> {
    [&[1, 0, 24, 0, 0, 0, 0, 0][..], &base.to_le_bytes(), &limit.to_le_bytes()].concat()
}

const NOTHING_DRIVEN: &str = "; devices are not restricted, and reach all memory";

#[test]
fn units_are_told_once_and_that_nothing_is_restricted() {
    // A register that is none stands for each that nobody answers at.
    let units =
        [unit(0, 0x8_0000, &[]), unit(1, 0x8_1000, &[]), unit(0, 0x8_2000, &[]), unit(0, 1 << 40, &[])];
    let mut firmware = Firmware::new(&units.each_ref().map(Vec::as_slice));
    // QEMU's, and one of 4 and 5 levels of 57 bits without large pages.
    firmware.put(0x8_0008, &0x00d2_008c_2226_0206_u64.to_le_bytes());
    firmware.put(0x8_1008, &(0x3_u64 << 10 | 56 << 16).to_le_bytes());
    firmware.put(0x8_2008, &[0xff; 8]);
    let (left, told) = firmware.left(&map(&[(MIB, 64 * MIB)]));
    assert_eq!(left, Ok(vec![range(MIB, 64 * MIB)]));
    assert_eq!(
        told,
        [
            "DEBUG dmar address=0x5000 host_address_bits=39 flags=0x1",
            "INFO remapping unit base=0x80000 segment=0 levels=3 address_bits=39 page_kib=1048576",
            "INFO remapping unit base=0x81000 segment=0 levels=4,5 address_bits=57 page_kib=4, has all other devices of \
             its segment",
            "WARN remapping unit base=0x82000 segment=0 does not answer",
            "WARN remapping unit base=0x10000000000 segment=0 does not answer",
            &format!(
                "WARN remapping_units=4{NOTHING_DRIVEN}: the remapping unit at 0x10000000000 does not answer"
            ),
        ]
    );
    let (left, told) = Firmware(vec![0; 0x10_0000]).left(&map(&[(MIB, 64 * MIB)]));
    assert_eq!(left, Ok(vec![range(MIB, 64 * MIB)]));
    assert_eq!(told, [format!("INFO remapping_units=0{NOTHING_DRIVEN}")]);
}

#[test]
fn memory_that_devices_go_on_using_is_not_free() {
    let structures = [reserved(8 * MIB + 1, 8 * MIB + 0x1000), reserved(63 * MIB, 65 * MIB - 1)];
    let firmware = Firmware::new(&[&structures[0], &structures[1], &structures[1]]);
    let (left, told) = firmware.left(&map(&[(MIB, 64 * MIB)]));
    let expected = [range(MIB, 8 * MIB), range(8 * MIB + 0x2000, 63 * MIB)];
    assert_eq!(left, Ok(expected.to_vec()));
    assert_eq!(told.iter().filter(|line| line.starts_with("WARN devices use 0x")).count(), 2, "{told:?}");
}

#[test]
fn reserved_memory_that_the_map_calls_so_is_nothing_to_tell() {
    let firmware = Firmware::new(&[&reserved(64 * MIB, 65 * MIB - 1)]);
    let (left, told) = firmware.left(&map(&[(MIB, 64 * MIB), (65 * MIB, 66 * MIB)]));
    assert_eq!(left, Ok(vec![range(MIB, 64 * MIB), range(65 * MIB, 66 * MIB)]));
    assert!(!told.iter().any(|line| line.starts_with("WARN")), "{told:?}");
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_heeded() {
    let scope = [1, 6, 0, 0, 0, 0];
    let firmware = Firmware::new(&[
        &unit(0, 0xfed9_0001, &[]),
        &unit(0, 0xfed9_0000, &scope),
        &reserved(32 * MIB, 33 * MIB - 1),
        &[1, 0, 3, 0],
    ]);
    let (left, told) = firmware.left(&map(&[(MIB, 64 * MIB)]));
    assert_eq!(left, Ok(vec![range(MIB, 32 * MIB), range(33 * MIB, 64 * MIB)]));
    let damage: Vec<_> =
        told.iter().filter_map(|line| line.strip_prefix("WARN the ACPI table DMAR is damaged: ")).collect();
    assert_eq!(
        damage,
        [
            "DRHD at offset 0x30: no registers can be at 0xfed90001",
            "DRHD at offset 0x50: the path of a device scope leads to no device",
            "RMRR at offset 0x6e: 3 bytes cannot be its length",
        ]
    );
    let why = "the firmware's table of remapping units is damaged";
    assert!(told.contains(&format!("WARN remapping_units=1{NOTHING_DRIVEN}: {why}")), "{told:?}");
}

#[test]
fn reserved_memory_in_more_pieces_than_fit_stops_the_boot() {
    let pieces: Vec<_> = (1..=MEMORY_MAP_CAPACITY as u64).map(|at| reserved(at * MIB, at * MIB)).collect();
    let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
    let (left, _) = Firmware::new(&pieces).left(&map(&[(MIB, 1024 * MIB)]));
    assert_eq!(left, Err(SurveyError::MemoryMap(MemoryMapError::TooMany)));
}

/// QEMU's unit, and one of 4 levels with pages of 2 MiB.
const MODERN: u64 = 0x00d2_008c_2226_0206;
const MEDIUM: u64 = 1 << 10 | 47 << 16 | 1 << 34;
const EXTENDED: u64 = 0xf0_0f5a;

/// A machine with these units, whose capability registers read so, and 16 GiB of memory.
fn machine(capabilities: &[u64]) -> (Firmware, MemoryMap) {
    let bases = (0x8_0000..).step_by(0x1000);
    let units: Vec<_> = bases.clone().zip(capabilities).map(|(base, _)| unit(0, base, &[])).collect();
    let mut firmware = Firmware::new(&units.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for (base, capability) in bases.zip(capabilities) {
        let at = usize::try_from(base).unwrap();
        firmware.put(at + 8, &capability.to_le_bytes());
        firmware.put(at + 16, &EXTENDED.to_le_bytes());
    }
    (firmware, map(&[(MIB, 2048 * MIB), (4096 * MIB, 16 * 1024 * MIB)]))
}

#[test]
fn units_that_answer_are_driven_and_have_memory_for_tables() {
    // The form's own test says how many pages these are.
    for (capabilities, pages) in [(vec![MEDIUM], 2 + 1 + 1 + 16 + 512), (vec![MEDIUM | 1 << 35; 2], 4 + 512)]
    {
        let (firmware, map) = machine(&capabilities);
        for wanted in [DeviceProtection::On, DeviceProtection::Require] {
            let (survey, told) = firmware.survey(&map, wanted);
            let survey = survey.unwrap();
            assert_eq!(survey.pool_bytes, pages * 4096);
            let bases: Vec<_> = survey.units.iter().map(|unit| (unit.base, unit.length)).collect();
            assert_eq!(bases, [(0x8_0000, 4096), (0x8_1000, 4096)][..capabilities.len()]);
            let count = capabilities.len();
            let last = format!("INFO remapping_units={count}; devices are kept from the hypervisor");
            assert_eq!(told.last(), Some(&last));
        }
    }
}

#[test]
fn the_command_line_has_units_left_alone() {
    let (firmware, map) = machine(&[MODERN]);
    let (survey, told) = firmware.survey(&map, DeviceProtection::Off);
    let survey = survey.unwrap();
    assert_eq!((survey.units.len(), survey.pool_bytes), (0, 0));
    assert_eq!(told.last(), Some(&format!("INFO remapping_units=1{NOTHING_DRIVEN}")));
}

#[test]
fn what_leaves_devices_free_is_named_and_stops_who_requires_it() {
    let too_many = vec![MODERN; UNIT_CAPACITY + 1];
    let (none, silent, many, unlike) =
        (machine(&[]), machine(&[MODERN, 0]), machine(&too_many), machine(&[MODERN, MEDIUM]));
    for ((firmware, map), why) in [
        (none, Unprotected::NoUnit),
        (silent, Unprotected::Silent(0x8_1000)),
        (many, Unprotected::TooMany),
        (unlike, Unprotected::Width),
    ] {
        let required = firmware.survey(&map, DeviceProtection::Require).0.err();
        assert_eq!(required, Some(SurveyError::Unprotected(why)));
        let (survey, told) = firmware.survey(&map, DeviceProtection::On);
        assert!(survey.unwrap().units.is_empty(), "{why}");
        let line = told.last().unwrap();
        assert!(line.contains(NOTHING_DRIVEN), "{line}");
        assert_eq!(line.ends_with(&why.to_string()), why != Unprotected::NoUnit, "{line}");
    }
}
