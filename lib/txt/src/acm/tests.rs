use super::*;
use crate::capabilities::Capabilities;
use proptest::prelude::*;

/// A module that is made up.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) header_version: u32,
    pub(crate) table_version: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) txt_svn: u16,
    pub(crate) date: u32,
    pub(crate) os_sinit_version: u32,
    pub(crate) min_mle_version: u32,
    pub(crate) capabilities: u32,
    pub(crate) chipsets: Vec<Chipset>,
    pub(crate) masked_chipsets: Vec<Chipset>,
    pub(crate) processors: Vec<ProcessorMatch>,
    pub(crate) tpm: (u32, Vec<u16>),
}

pub(crate) const CHIPSET: Chipset =
    Chipset { flags: 1, vendor: 0x8086, device: 0xb005, revision: 3, device_mask: 0, extended: 0 };
pub(crate) const PROCESSOR: ProcessorMatch =
    ProcessorMatch { signature: 0x306c0, signature_mask: 0xfff_3ff0, platform: 0, platform_mask: 0 };

pub(crate) fn made() -> Made {
    Made {
        header_version: 0,
        table_version: 5,
        kind: 1,
        flags: 0,
        txt_svn: 0,
        date: 0x2014_0915,
        os_sinit_version: 7,
        min_mle_version: 0x2_0000,
        capabilities: 0x16e,
        chipsets: vec![CHIPSET],
        masked_chipsets: Vec::new(),
        processors: vec![PROCESSOR],
        tpm: (3 << 2 | 3, vec![4, 0xb]),
    }
}

const CODE: usize = 256;

impl Made {
    fn words(&self) -> (u32, u32, u32) {
        match self.header_version >> 16 {
            3 => (224, 96, 208),
            4 => (928, 96, 224),
            _ => (161, 64, 143),
        }
    }

    fn chipset_bytes(list: &[Chipset]) -> Vec<u8> {
        let mut bytes = (list.len() as u32).to_le_bytes().to_vec();
        for entry in list {
            bytes.extend(entry.flags.to_le_bytes());
            for half in [entry.vendor, entry.device, entry.revision, entry.device_mask] {
                bytes.extend(half.to_le_bytes());
            }
            bytes.extend(entry.extended.to_le_bytes());
        }
        bytes
    }

    fn processor_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.processors.len() as u32).to_le_bytes().to_vec();
        for entry in &self.processors {
            bytes.extend(entry.signature.to_le_bytes());
            bytes.extend(entry.signature_mask.to_le_bytes());
            bytes.extend(entry.platform.to_le_bytes());
            bytes.extend(entry.platform_mask.to_le_bytes());
        }
        bytes
    }

    fn tpm_bytes(&self) -> Vec<u8> {
        let mut bytes = self.tpm.0.to_le_bytes().to_vec();
        bytes.extend((self.tpm.1.len() as u16).to_le_bytes());
        bytes.extend(self.tpm.1.iter().flat_map(|algorithm| algorithm.to_le_bytes()));
        bytes
    }

    /// The table and what it leads to, which stands at `at`.
    fn information(&self, at: u32) -> Vec<u8> {
        let lists = [Self::chipset_bytes(&self.chipsets), self.processor_bytes(), self.tpm_bytes()];
        let length: u16 = match self.table_version {
            ..=3 => 40,
            4 => 44,
            _ => 48,
        };
        let mut offset = at + u32::from(length);
        let offsets = lists.each_ref().map(|list| {
            let here = offset;
            offset += list.len() as u32;
            here
        });
        let mut table = vec![
            0xaa, 0x3a, 0xc0, 0x7f, 0xa7, 0x46, 0xdb, 0x18, 0x2e, 0xac, 0x69, 0x8f, 0x8d, 0x41, 0x7f, 0x5a,
        ];
        table.extend([self.kind, self.table_version]);
        table.extend(length.to_le_bytes());
        let words = [offsets[0], self.os_sinit_version, self.min_mle_version, self.capabilities, 0x0302_0179];
        for word in words.into_iter().chain([offsets[1], offsets[2]]) {
            table.extend(word.to_le_bytes());
        }
        table.truncate(length.into());
        if self.table_version < 9 {
            table.extend(lists.into_iter().flatten());
            return table;
        }
        let [chipsets, processors, tpm] = lists;
        let masked = Self::chipset_bytes(&self.masked_chipsets);
        let lists = [
            (b"LREV", vec![0; 8]),
            (b"L1SC", chipsets),
            (b"L2SC", masked),
            (b"LUPC", processors),
            (b"LMPT", tpm),
        ];
        for (name, list) in lists.into_iter().chain([(b"LLUN", Vec::new())]) {
            table.extend(name);
            table.extend((list.len() as u32 + 12).to_le_bytes());
            table.extend(0x0100_0000_u32.to_le_bytes());
            table.extend(list);
        }
        table
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (header, key, scratch) = self.words();
        let at = (header + scratch) * 4;
        let mut bytes = vec![0; at as usize];
        bytes.extend(self.information(at));
        let code = bytes.len() as u32;
        bytes.resize((bytes.len() + CODE).next_multiple_of(64), 0);
        let size = bytes.len() as u32;
        let mut word = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        word(0, 2);
        word(4, header);
        word(8, self.header_version);
        word(12, 0xb005 | u32::from(self.flags) << 16);
        word(16, 0x8086);
        word(20, self.date);
        word(24, size / 4);
        word(28, u32::from(self.txt_svn) | 7 << 16);
        word(40, 31);
        word(44, code);
        word(48, 8);
        word(52, code + 32);
        word(120, key);
        word(124, scratch);
        word(128, 0x1234_5678);
        word(128 + key as usize * 4, 17);
        bytes
    }
}

fn refused(change: impl FnOnce(&mut Vec<u8>)) -> AcmError {
    let mut bytes = made().bytes();
    change(&mut bytes);
    Acm::parse(&bytes).unwrap_err()
}

fn word(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn every_version_of_header_and_table_is_read() {
    for header_version in [0, 0x3_0000, 0x4_0000, 0x4_0001] {
        for table_version in 3..=9 {
            let made = Made { header_version, table_version, ..made() };
            let bytes = made.bytes();
            let acm = Acm::parse(&bytes).unwrap();
            let information = acm.information();
            assert_eq!((information.version, information.kind), (table_version, Kind::Sinit));
            assert_eq!(information.os_sinit_version, 7);
            assert_eq!((information.acm_version, information.acm_revision), (0x79, [1, 2, 3]));
            assert_eq!(acm.chipsets().iter().collect::<Vec<_>>(), made.chipsets);
            let processors = acm.processors().map(|list| list.iter().collect::<Vec<_>>());
            assert_eq!(processors, (table_version >= 4).then_some(made.processors));
            let tpm = acm.tpm().map(|tpm| tpm.algorithms().collect::<Vec<_>>());
            assert_eq!(tpm, (table_version >= 5).then_some(made.tpm.1));
            let is_first = header_version == 0;
            assert_eq!(acm.header().exponent, if is_first { 17 } else { 0x1_0001 });
            assert_eq!(acm.header().key.len(), if is_first { 256 } else { 384 });
            assert_eq!(acm.header().signature.len(), acm.header().key.len());
        }
    }
}

#[test]
fn a_flexible_table_has_chipsets_by_mask() {
    let masked = Chipset { device_mask: 0xff00, device: 0xb000, ..CHIPSET };
    let made = Made { table_version: 9, masked_chipsets: vec![masked], chipsets: Vec::new(), ..made() };
    let bytes = made.bytes();
    let acm = Acm::parse(&bytes).unwrap();
    assert!(acm.information().is_flexible() && acm.chipsets().is_empty());
    assert_eq!(acm.masked_chipsets().iter().collect::<Vec<_>>(), [masked]);
    assert_eq!(acm.masked_chipsets().len(), 1);
}

#[test]
fn what_lies_behind_a_module_is_padding() {
    let mut bytes = made().bytes();
    let size = bytes.len();
    bytes.resize(size + 0x1_0000, 0xff);
    let acm = Acm::parse(&bytes).unwrap();
    assert_eq!((acm.bytes().len(), acm.padding()), (size, 0x1_0000));
}

#[test]
fn what_a_tpm_list_says_is_told_apart() {
    let capabilities = |word| {
        let bytes = Made { tpm: (word, Vec::new()), ..made() }.bytes();
        Acm::parse(&bytes).unwrap().tpm().unwrap().capabilities
    };
    let other = capabilities(0x82);
    assert_eq!((other.extend_policy(), other.nv_index_set()), (2, 0));
    let capabilities = capabilities(0x40 | 0xa << 2 | 1);
    assert_eq!(capabilities.families(), Family::DISCRETE_2_0 | Family::FIRMWARE_2_0);
    assert_eq!((capabilities.extend_policy(), capabilities.nv_index_set()), (1, 1));
    let bytes = Made { tpm: (0, vec![4, 0xb, 0xc]), ..made() }.bytes();
    let tpm = Acm::parse(&bytes).unwrap().tpm().unwrap();
    assert_eq!(tpm.algorithms().collect::<Vec<_>>(), [4, 0xb, 0xc]);
}

#[test]
fn a_wrong_header_is_named() {
    assert_eq!(refused(|bytes| bytes.truncate(127)), AcmError::TooShort);
    assert_eq!(refused(|bytes| bytes.truncate(600)), AcmError::TooShort);
    let size = made().bytes().len() as u64;
    let cut = AcmError::Truncated { module: size, file: size - 1 };
    assert_eq!(refused(|bytes| bytes.truncate(size as usize - 1)), cut);
    let wraps = refused(|bytes| word(bytes, 24, 0x4000_0010));
    assert_eq!(wraps, AcmError::Truncated { module: 0x1_0000_0040, file: size });
    assert_eq!(refused(|bytes| word(bytes, 0, 3)), AcmError::NotOfChipset(3));
    assert_eq!(refused(|bytes| word(bytes, 16, 0x1022)), AcmError::ForeignVendor(0x1022));
    for version in [0x1_0000, 0x2_0000, 0x5_0000] {
        assert_eq!(refused(|bytes| word(bytes, 8, version)), AcmError::HeaderVersion(version));
    }
    for words in [160, 0x4000_0000, u32::MAX] {
        assert_eq!(refused(|bytes| word(bytes, 4, words)), AcmError::HeaderLength(words));
    }
    assert_eq!(refused(|bytes| word(bytes, 4, 1_000_000)), AcmError::HeaderLength(1_000_000));
    assert_eq!(refused(|bytes| word(bytes, 120, 0x3fff_ffff)), AcmError::HeaderLength(161));
    let uneven = u32::try_from(size).unwrap() - 4;
    assert_eq!(refused(|bytes| word(bytes, 24, uneven / 4)), AcmError::UnevenSize(uneven));
    assert_eq!(refused(|bytes| word(bytes, 24, 0)), AcmError::UnevenSize(0));
}

#[test]
fn an_entry_that_would_reset_the_machine_is_named() {
    let size = made().bytes().len() as u32;
    for at in [0, 161 * 4, 304 * 4 - 1, size, u32::MAX] {
        assert_eq!(refused(|bytes| word(bytes, 52, at)), AcmError::EntryPoint(at));
    }
    for selector in [0, 7, 9, 12, 24, u32::MAX - 7] {
        assert_eq!(refused(|bytes| word(bytes, 48, selector)), AcmError::Selector(selector));
    }
    for base in [size - 31, u32::MAX] {
        assert_eq!(refused(|bytes| word(bytes, 44, base)), AcmError::DescriptorTable(base));
    }
    let mut bytes = made().bytes();
    word(&mut bytes, 44, size - 32);
    assert!(Acm::parse(&bytes).is_ok());
}

#[test]
fn a_wrong_table_or_list_is_named() {
    const TABLE: usize = 304 * 4;
    assert_eq!(refused(|bytes| bytes[TABLE] ^= 1), AcmError::NoInformation);
    assert!(matches!(refused(|bytes| word(bytes, 124, 0x3fff_ffff)), AcmError::EntryPoint(_)));
    let old = refused(|bytes| bytes[TABLE + 17] = 2);
    assert_eq!(old, AcmError::InformationVersion { version: 2, length: 48 });
    let short = refused(|bytes| bytes[TABLE + 18] = 47);
    assert_eq!(short, AcmError::InformationVersion { version: 5, length: 47 });
    let long = refused(|bytes| bytes[TABLE + 19] = 0xff);
    assert_eq!(long, AcmError::InformationVersion { version: 5, length: 0xff30 });
    assert_eq!(refused(|bytes| word(bytes, TABLE + 20, u32::MAX)), AcmError::List("an offset"));
    let size = made().bytes().len() as u32;
    assert_eq!(refused(|bytes| word(bytes, TABLE + 20, size - 3)), AcmError::List("chipsets"));
    assert_eq!(refused(|bytes| word(bytes, TABLE + 48, u32::MAX)), AcmError::List("chipsets"));
    assert_eq!(refused(|bytes| word(bytes, TABLE + 48 + 20, 0x1000_0000)), AcmError::List("processors"));
    assert_eq!(refused(|bytes| word(bytes, TABLE + 44, size - 5)), AcmError::List("TPMs"));
}

#[test]
fn flexible_lists_without_end_or_length_are_named() {
    let made = Made { table_version: 9, ..made() };
    let table = 304 * 4 + 48;
    let refused = |at: usize, value: u32| {
        let mut bytes = made.bytes();
        word(&mut bytes, at, value);
        Acm::parse(&bytes).unwrap_err()
    };
    // A list of no length at all, one shorter than its own head, and one that reaches out of the module.
    for length in [0, 11, 0xffff_fff0] {
        assert_eq!(refused(table + 4, length), AcmError::List("a name"), "{length}");
    }
    let end = made.information(0).len() - 12 + 304 * 4;
    assert_eq!(refused(end, 0), AcmError::List("a name"));
}

#[test]
fn lists_have_their_lengths() {
    for count in [0, 1, 2, 3] {
        let bytes = Made { chipsets: vec![CHIPSET; count], ..made() }.bytes();
        let acm = Acm::parse(&bytes).unwrap();
        assert_eq!((acm.chipsets().len(), acm.chipsets().is_empty()), (count, count == 0));
    }
}

#[test]
fn key_and_signature_are_apart_by_the_exponent_of_old_headers() {
    for (header_version, exponent) in [(0, 4), (0x3_0000, 0)] {
        let mut bytes = Made { header_version, ..made() }.bytes();
        let (header, key, _) = Made { header_version, ..made() }.words();
        let (key, behind) = (key as usize * 4, 128 + key as usize * 4);
        assert!(behind + exponent + key <= header as usize * 4);
        bytes[128..behind].fill(1);
        bytes[behind + exponent..][..key].fill(2);
        let acm = Acm::parse(&bytes).unwrap();
        assert_eq!((acm.header().key, acm.header().signature), (&vec![1; key][..], &vec![2; key][..]));
    }
}

#[test]
fn a_module_may_begin_right_behind_its_scratch_room() {
    let mut bytes = made().bytes();
    let (header, _, scratch) = made().words();
    word(&mut bytes, 52, (header + scratch) * 4);
    assert!(Acm::parse(&bytes).is_ok());
}

#[test]
fn a_header_as_long_as_its_module_leaves_no_code() {
    let size = made().bytes().len() as u32;
    let entry = refused(|bytes| word(bytes, 4, size / 4));
    assert!(matches!(entry, AcmError::EntryPoint(_)), "{entry:?}");
    assert_eq!(refused(|bytes| word(bytes, 4, size / 4 + 1)), AcmError::HeaderLength(size / 4 + 1));
}

#[test]
fn a_module_s_bytes_are_not_printed() {
    let bytes = made().bytes();
    let acm = Acm::parse(&bytes).unwrap();
    let text = format!("{acm:?}");
    assert!(text.starts_with("Acm { information: ") && text.ends_with(", .. }"), "{text}");
}

#[test]
fn errors_say_what_is_wrong() {
    let cut = AcmError::Truncated { module: 64, file: 63 };
    assert_eq!(cut.to_string(), "the module has 64 bytes and the file only 63: it was cut");
    assert_eq!(AcmError::HeaderVersion(0x5_0004).to_string(), "unknown header version 5.4");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Acm::parse(&bytes);
    }

    #[test]
    fn any_change_of_a_module_is_read_or_refused(
        header in prop_oneof![Just(0_u32), Just(0x3_0000), Just(0x4_0000)],
        table_version in 3_u8..11,
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..8),
        cut in 0_usize..64,
    ) {
        let mut bytes = Made { header_version: header, table_version, ..made() }.bytes();
        let length = bytes.len();
        bytes.truncate(length - cut);
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Ok(acm) = Acm::parse(&bytes) {
            prop_assert!(acm.bytes().len() <= bytes.len());
            prop_assert!(acm.chipsets().len() * 16 <= bytes.len());
            let _ = (acm.masked_chipsets().iter().count(), acm.tpm().map(|tpm| tpm.algorithms().count()));
        }
    }
}

#[test]
fn capabilities_are_those_of_the_table() {
    let bytes = made().bytes();
    let capabilities = Acm::parse(&bytes).unwrap().information().capabilities;
    assert!(capabilities.contains(Capabilities::PLATFORM_CLIENT | Capabilities::RLP_WAKE_MONITOR));
}
