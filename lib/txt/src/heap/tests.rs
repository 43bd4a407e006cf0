use super::*;
use crate::capabilities::Capabilities;
use proptest::prelude::*;

/// A part with its size field.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64 + 8).to_le_bytes(), bytes].concat()
}

fn bios_data(version: u32) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend(0x1_5580_u32.to_le_bytes());
    bytes.extend([0x1000_u64, 0x200].iter().flat_map(|long| long.to_le_bytes()));
    bytes.extend(4_u32.to_le_bytes());
    // Flags, HEAP_BIOS_SPEC_VER_ELEMENT, the end; in what the version has of them.
    bytes.extend([1, 0, 0, 0, 0b011, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 14, 0, 0, 0, 2, 0, 1, 0, 5, 0]);
    bytes.extend([0, 0, 0, 0, 8, 0, 0, 0]);
    bytes.truncate(match version {
        2 => 28,
        3 => 36,
        _ => bytes.len(),
    });
    bytes
}

fn os_mle_data() -> OsMleData {
    let ranges =
        [MtrrRange { base: 6, mask: 0xf_c000_0800 }, MtrrRange { base: 0x4000_0006, mask: 0xf_e000_0800 }];
    OsMleData::new(0x85_0089, 0xc00, 0x1234_5000, &ranges).unwrap()
}

const OS_SINIT_DATA: OsSinitData = OsSinitData {
    version: 7,
    flags: 1,
    mle_pages: 0x1000_0000,
    mle_size: 0x1_0000,
    mle_header: 0,
    low_protected: (0x1000_0000, 0x80_0000),
    high_protected: (0, 0),
    policy: (0x2000_0000, 0x100),
    capabilities: Capabilities::RLP_WAKE_MONITOR,
    rsdp: 0xf_5ad0,
};

fn sinit_mle_data(version: u32) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let mut word = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    word(0, version);
    word(24, 0x11);
    word(116, 0x22);
    word(120, 0x3f40_0000);
    let tables = if version >= 9 { 200 } else { 160 };
    for (at, value) in [(128, 2), (132, tables + 8), (136, 5), (140, tables + 48 + 8), (144, 0x33)] {
        word(at, value);
    }
    if version >= 9 {
        word(152, 8);
    }
    let tables = tables as usize;
    word(tables + 8, 0x8000_0000);
    word(tables + 24, 0xe000_0000);
    word(tables + 32, 0x1000_0000);
    word(tables + 40, 3);
    bytes[56..76].fill(0xab);
    bytes[tables + 48..tables + 53].copy_from_slice(b"DMAR!");
    bytes
}

fn heap() -> Vec<u8> {
    let mut bytes = sized(&bios_data(6));
    let mut room = vec![0; 1024];
    let length = os_mle_data().write(&mut room).unwrap();
    bytes.extend(&room[..length]);
    let log = AgileLog { address: 0x1_2345_6000, size: 0x8000, first: 0, next: 0x41 };
    let length = OS_SINIT_DATA.write(&[Element::AgileLog(log)], &mut room).unwrap();
    bytes.extend(&room[..length]);
    bytes.extend(sized(&sinit_mle_data(9)));
    bytes
}

#[test]
fn the_four_parts_are_read_back() {
    let bytes = heap();
    let heap = Heap::new(&bytes);
    let bios = heap.bios_data().unwrap();
    assert_eq!((bios.version, bios.sinit_size, bios.processors), (6, 0x1_5580, 4));
    assert_eq!((bios.policy_base, bios.policy_size), (0x1000, 0x200));
    assert_eq!(bios.kind(), Some(Capabilities::PLATFORM_CLIENT));
    let specification = Element::BiosSpecification { major: 2, minor: 1, revision: 5 };
    assert_eq!(bios.elements.iter().collect::<Vec<_>>(), [specification]);
    assert_eq!(heap.os_mle_data(), Ok(os_mle_data()));
    let (wanted, elements) = heap.os_sinit_data().unwrap();
    assert_eq!((wanted, elements.iter().count()), (OS_SINIT_DATA, 1));
    let found = heap.sinit_mle_data().unwrap();
    assert_eq!((found.wake_address, found.processor_status), (0x3f40_0000, 0x33));
    assert_eq!((found.mle_hash, found.dmar()), ([0xab; 20], &b"DMAR!"[..]));
    assert_eq!((found.senter_flags, found.policy_control), (0x11, 0x22));
    assert_eq!(heap.behind(Part::SinitMleData), Ok(bytes.len()));
}

#[test]
fn a_version_has_the_fields_that_it_brought() {
    for version in 2..=6 {
        let bytes = bios_data(version);
        let bios = BiosData::parse(&bytes).unwrap();
        assert_eq!(bios.flags, if version >= 3 { 0x3_0000_0001 } else { 0 });
        assert_eq!(bios.elements.iter().count(), usize::from(version >= 4));
        assert_eq!(bios.kind().is_some(), version >= 6);
        assert!(BiosData::parse(&bytes[..bytes.len() - 1]).is_err(), "{version}");
        assert!(bios.is_known());
    }
    assert!(!BiosData::parse(&bios_data(7)).unwrap().is_known());
    for version in 6..=9 {
        let bytes = sinit_mle_data(version);
        let found = SinitMleData::parse(&bytes).unwrap();
        assert_eq!(found.processor_status, if version >= 8 { 0x33 } else { 0 });
    }
    let old = HeapError::Version { part: Part::BiosData, version: 1 };
    assert_eq!(BiosData::parse(&bios_data(1)), Err(old));
    let old = HeapError::Version { part: Part::SinitMleData, version: 5 };
    assert_eq!(SinitMleData::parse(&sinit_mle_data(5)), Err(old));
}

#[test]
fn wanted_data_has_the_size_of_its_version() {
    let size =
        |version, elements: &[Element<'_>]| OsSinitData { version, rsdp: 0, ..OS_SINIT_DATA }.size(elements);
    let log = Element::EventLog12(0x1000);
    assert_eq!([4, 5, 6, 8].map(|version| size(version, &[])), [Ok(84), Ok(92), Ok(100), Ok(100)]);
    assert_eq!(size(7, &[log]), Ok(116));
    let refused = |version| Err(HeapError::Version { part: Part::OsSinitData, version });
    assert_eq!((size(3, &[]), size(9, &[]), size(5, &[log])), (refused(3), refused(9), refused(5)));
    assert_eq!(OsSinitData { version: 4, ..OS_SINIT_DATA }.size(&[]), refused(4));
    assert_eq!(OS_SINIT_DATA.write(&[], &mut [0; 107]), Err(HeapError::NoRoom { needed: 112 }));
}

#[test]
fn sizes_that_cannot_be_are_named() {
    let refused = |at: usize, size: u64| {
        let mut bytes = heap();
        bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
        Heap::new(&bytes).part(Part::SinitMleData).unwrap_err()
    };
    let bytes = heap();
    for part in Part::ALL {
        let (at, _) = Heap::new(&bytes).part(part).unwrap();
        for size in [0, 7, bytes.len() as u64 + 1, u64::MAX, 1 << 32] {
            assert_eq!(refused(at, size), HeapError::Size { part, size });
        }
    }
    let cut = HeapError::Size { part: Part::BiosData, size: 0 };
    assert_eq!(Heap::new(&bytes[..7]).bios_data(), Err(cut));
}

#[test]
fn elements_without_size_or_end_are_named() {
    let parse = |bytes: &[u8]| Elements::parse(bytes, Part::BiosData).map(|elements| elements.iter().count());
    let no_end = HeapError::NoEnd(Part::BiosData);
    assert_eq!(parse(&[]), Err(no_end));
    assert_eq!(parse(&[9, 0, 0, 0, 8, 0, 0, 0]), Err(no_end));
    assert_eq!(parse(&[9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]), Ok(1));
    for size in [0, 7, 17] {
        let refused = HeapError::Element { kind: 9, size: size.into() };
        assert_eq!(parse(&[9, 0, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]), Err(refused));
    }
    // A log pointer without its pointer, and more logs than there are.
    let refused = HeapError::Element { kind: 5, size: 12 };
    assert_eq!(parse(&[5, 0, 0, 0, 12, 0, 0, 0, 1, 2, 3, 4]), Err(refused));
    let refused = HeapError::Element { kind: 7, size: 12 };
    assert_eq!(parse(&[7, 0, 0, 0, 12, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Err(refused));
}

#[test]
fn memory_is_good_where_one_range_says_so() {
    let bytes = sinit_mle_data(8);
    let found = SinitMleData::parse(&bytes).unwrap();
    let ranges: Vec<_> = found.memory().collect();
    assert_eq!(ranges[0], MemoryRange { base: 0, length: 0x8000_0000, kind: MemoryKind::Good });
    assert_eq!(ranges[1].kind, MemoryKind::PcieConfiguration);
    assert!(found.is_good(0x7fff_f000, 0x1000) && found.is_good(0, 0x8000_0000));
    assert!(
        !found.is_good(0x7fff_f000, 0x1001) && !found.is_good(0xe000_0000, 1) && !found.is_good(u64::MAX, 2)
    );
}

#[test]
fn tables_outside_are_named() {
    for (at, value) in [(128, u32::MAX), (128, 5), (132, 7), (132, 0xffff_fff0), (136, 300), (140, 0)] {
        let mut bytes = sinit_mle_data(8);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(SinitMleData::parse(&bytes), Err(HeapError::Table(Part::SinitMleData)), "{at}");
    }
}

#[test]
fn a_log_s_records_are_inside_of_it() {
    let log = AgileLog { address: 0, size: 16, first: 4, next: 12 };
    let memory = [7; 16];
    assert_eq!(log.records(&memory), Ok(&memory[4..12]));
    for (first, next) in [(12, 4), (4, 17), (u32::MAX, u32::MAX)] {
        assert_eq!(AgileLog { first, next, ..log }.records(&memory), Err(HeapError::Log));
    }
    assert_eq!(log.records(&memory[..15]), Err(HeapError::Log));
    let legacy = LegacyLog { algorithm: 0xb, address: 0, size: 16, first: 4, next: 12 };
    assert_eq!(legacy.records(&memory), Ok(&memory[4..12]));
}

#[test]
fn more_mtrrs_than_can_be_kept_are_refused() {
    let ranges = [MtrrRange::default(); MTRRS_LIMIT + 1];
    assert!(OsMleData::new(0, 0, 0, &ranges[1..]).is_ok());
    assert!(matches!(OsMleData::new(0, 0, 0, &ranges), Err(HeapError::NoRoom { .. })));
    let mut room = [0; 80];
    os_mle_data().write(&mut room).unwrap();
    room[12] = 33;
    assert_eq!(OsMleData::parse(&room[8..]), Err(HeapError::Table(Part::OsMleData)));
    room[8] = 2;
    let version = HeapError::Version { part: Part::OsMleData, version: 2 };
    assert_eq!(OsMleData::parse(&room[8..]), Err(version));
}

#[test]
fn as_many_mtrrs_as_can_be_kept_are_read_back() {
    let ranges = [MtrrRange { base: 6, mask: 0xf_c000_0800 }; MTRRS_LIMIT];
    let data = OsMleData::new(1, 2, 3, &ranges).unwrap();
    let mut room = [0; 1024];
    let size = data.write(&mut room).unwrap();
    assert_eq!(OsMleData::parse(&room[8..size]), Ok(data));
}

/// A client or a server (bits 34 and 33), from version 6 on.
#[test]
fn the_firmware_says_what_machine_it_is_since_version_6() {
    let bytes = bios_data(6);
    let kind = |version, bits: u64| {
        BiosData { version, flags: bits << 33, ..BiosData::parse(&bytes).unwrap() }.kind()
    };
    let kinds = [None, Some(Capabilities::PLATFORM_CLIENT), Some(Capabilities::PLATFORM_SERVER), None];
    assert_eq!([0, 1, 2, 3].map(|bits| kind(6, bits)), kinds);
    assert_eq!([0, 1, 2, 3].map(|bits| kind(7, bits)), kinds);
    assert_eq!([0, 1, 2, 3].map(|bits| kind(5, bits)), [None; 4]);
}

#[test]
fn wanted_data_is_written_in_each_version() {
    let mut room = [0; 256];
    for version in 4..=8 {
        let data = OsSinitData { version, rsdp: if version >= 5 { 0xf_5ad0 } else { 0 }, ..OS_SINIT_DATA };
        let elements: &[Element<'_>] = if version >= 6 { &[Element::EventLog12(0x1000)] } else { &[] };
        let size = data.write(elements, &mut room).unwrap();
        let (read, found) = OsSinitData::parse(&room[8..size]).unwrap();
        assert_eq!((read, found.iter().collect::<Vec<_>>()), (data, elements.to_vec()), "{version}");
    }
}

#[test]
fn an_element_is_as_long_as_what_is_written_of_it() {
    for (kind, body) in [(0, 6), (1, 4 + 24), (2, 16 + 24), (3, 8), (4, 24), (5, 4 + 48), (7, 24), (8, 24)] {
        let element = some_element(kind, &[7; 24], 9, &[[1; 24], [2; 24]]);
        assert_eq!(element.size(), 8 + body, "{kind}");
        let mut room = [0xee; 512];
        let size = OS_SINIT_DATA.write(&[element], &mut room).unwrap();
        let (_, found) = OsSinitData::parse(&room[8..size]).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [element], "{kind}");
    }
    let logs = [[1; 24], [2; 24]];
    let mut bytes = [0xee; 53];
    assert_eq!((LegacyLogs::new(&logs).write(&mut bytes), LegacyLogs::new(&logs).size()), (Some(()), 52));
    assert_eq!(bytes, *[&[2, 0, 0, 0][..], &[1; 24], &[2; 24], &[0xee]].concat());
}

#[test]
fn each_error_names_its_part() {
    let part = Part::BiosData;
    for (error, text) in [
        (HeapError::Size { part, size: 7 }, "the TXT heap's BiosData has the impossible size 0x7"),
        (HeapError::Version { part, version: 1 }, "BiosData of the unknown version 1"),
        (HeapError::Short(part), "BiosData ends before its fields"),
        (HeapError::Element { kind: 3, size: 7 }, "an element of type 3 with the impossible size 0x7"),
        (HeapError::NoEnd(part), "the elements of BiosData have no end"),
        (HeapError::Table(part), "a table of BiosData lies outside of it"),
        (HeapError::NoRoom { needed: 112 }, "112 bytes do not fit"),
        (HeapError::Log, "a record lies outside of the event log"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    // Not its bytes, which are many and may be secret.
    let bytes = heap();
    assert_eq!(format!("{:?}", Heap::new(&bytes)), format!("Heap {{ size: {}, .. }}", bytes.len()));
}

fn some_element(kind: u8, data: &[u8], number: u64, logs: &[[u8; 24]]) -> Element<'static> {
    let data: &'static [u8] = Box::leak(data.to_vec().into_boxed_slice());
    let logs: &'static [[u8; 24]] = Box::leak(logs.to_vec().into_boxed_slice());
    let [low, high] = [number as u32, (number >> 32) as u32];
    match kind {
        0 => {
            Element::BiosSpecification { major: low as u16, minor: (low >> 16) as u16, revision: high as u16 }
        }
        1 => Element::Acms(&data[..data.len() / 8 * 8]),
        2 => Element::Custom { uuid: [low as u8; 16], data },
        3 => Element::EventLog12(number),
        4 => Element::Madt(data),
        5 => Element::EventLogs20(LegacyLogs::new(logs)),
        6 => Element::AgileLog(AgileLog { address: number, size: low, first: high, next: !low }),
        7 => Element::Mcfg(data),
        _ => Element::Other { kind: 100 + low % 100, data },
    }
}

fn some_elements() -> impl Strategy<Value = Vec<Element<'static>>> {
    let log = (any::<u16>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>());
    let log = log.prop_map(|(algorithm, address, size, first, next)| {
        LegacyLog { algorithm, address, size, first, next }.to_bytes()
    });
    let logs = proptest::collection::vec(log, 0..4);
    let data = proptest::collection::vec(any::<u8>(), 0..40);
    let element = (0_u8..9, data, any::<u64>(), logs);
    proptest::collection::vec(
        element.prop_map(|(kind, data, number, logs)| some_element(kind, &data, number, &logs)),
        0..5,
    )
}

proptest! {
    #[test]
    fn wanted_data_that_is_written_is_read(
        version in 3_u32..10,
        flags: u32,
        longs: [u64; 9],
        capabilities: u32,
        rsdp in prop_oneof![Just(0), any::<u64>()],
        elements in some_elements(),
    ) {
        let [mle_pages, mle_size, mle_header, a, b, c, d, e, f] = longs;
        let capabilities = Capabilities::from_bits_retain(capabilities);
        let data = OsSinitData {
            version, flags, mle_pages, mle_size, mle_header, capabilities, rsdp,
            low_protected: (a, b), high_protected: (c, d), policy: (e, f),
        };
        let mut room = vec![0xee; 2048];
        if let Ok(size) = data.write(&elements, &mut room) {
            prop_assert_eq!(size % 8, 0);
            prop_assert!(room[size..].iter().all(|byte| *byte == 0xee));
            let (read, found) = OsSinitData::parse(&room[8..size]).unwrap();
            prop_assert_eq!(read, data);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), elements.clone());
            let needed = HeapError::NoRoom { needed: size };
            prop_assert_eq!(data.write(&elements, &mut room[..size - 1]), Err(needed));
        }
    }

    #[test]
    fn logs_that_are_written_are_read(logs in proptest::collection::vec(any::<[u8; 20]>(), 0..4)) {
        let made: Vec<_> = logs.iter().map(|bytes| {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            LegacyLog { algorithm: bytes[0].into(), address: word(0).into(), size: word(4), first: word(8), next: word(12) }
        }).collect();
        let bytes: Vec<_> = made.iter().map(LegacyLog::to_bytes).collect();
        prop_assert_eq!(LegacyLogs::new(&bytes).iter().collect::<Vec<_>>(), made);
    }

    #[test]
    fn any_change_of_a_heap_is_read_or_refused(
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..12),
        cut in 0_usize..600,
    ) {
        let mut bytes = heap();
        let length = bytes.len();
        bytes.truncate(length.saturating_sub(cut));
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
        }
        let heap = Heap::new(&bytes);
        let _ = (heap.bios_data(), heap.os_mle_data(), heap.os_sinit_data());
        if let Ok(found) = heap.sinit_mle_data() {
            let _ = (found.memory().count(), found.elements.iter().count(), found.is_good(0, 1));
        }
    }

    #[test]
    fn any_bytes_are_no_heap_s_fault(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = (BiosData::parse(&bytes), OsMleData::parse(&bytes), OsSinitData::parse(&bytes));
        let _ = (SinitMleData::parse(&bytes), Heap::new(&bytes).part(Part::SinitMleData));
    }
}
