use super::*;
use crate::layout::{PAGE, Parameter, STEP_PAGES};
use crate::tpm::tests::{Memory, pal};
use std::sync::Mutex;
use trustvisor::parameter::ParameterType;

/// The count of kept bytes is the whole process's.
static MEASURING: Mutex<()> = Mutex::new(());

/// What registers have to be, hashed at once.
fn expected(layout: &Layout, memory: &Memory) -> PcrBanks {
    let digests = layout.listed.iter().map(|&index| {
        let section = &layout.sections[usize::from(index)];
        let size = section.pages.len() as u64 * PAGE;
        let mut measurement = SectionMeasurement::new(section.kind.number(), section.start, size);
        section.pages.iter().for_each(|page| measurement.update(&memory.0.borrow()[page]));
        measurement.finish()
    });
    PcrBanks::measured(&header(layout).digest(), digests)
}

/// A measurement of a PAL all of whose pages have been taken.
fn begun(layout: &Layout, memory: &Memory) -> Measurement {
    let mut measurement = Measurement::new(layout, Signing::none());
    let pages: Vec<FoundPage> =
        layout.pages().map(|(page, section)| FoundPage { page, kind: section.kind }).collect();
    pages.chunks(STEP_PAGES).for_each(|step| measurement.keep(&step.iter().copied().collect(), memory));
    measurement
}

/// The registers, and how many pieces were hashed.
fn finished(measurement: &mut Measurement, layout: &Layout, memory: &Memory) -> (PcrBanks, usize) {
    let mut pieces = 0;
    while measurement.hash_header(layout) {}
    while let Some(mut piece) = measurement.take(layout, memory) {
        assert!(measurement.banks(layout).is_none());
        piece.hash();
        measurement.give(layout, piece);
        pieces += 1;
    }
    (measurement.banks(layout).cloned().unwrap(), pieces)
}

#[test]
fn what_is_measured_was_registered_whatever_the_pal_wrote() {
    let _alone = MEASURING.lock().unwrap();
    let (layout, memory) = pal();
    // A page of one word is kept as that word.
    memory.write(0x10_1000, &[0x90; 4096]);
    let expected = expected(&layout, &memory);
    let mut measurement = begun(&layout, &memory);
    for page in [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000] {
        memory.write(page, &[1; 4096]);
    }
    assert!(measurement.is_kept());
    assert_eq!(finished(&mut measurement, &layout, &memory).0, expected);
}

#[test]
fn a_pal_is_measured_by_pieces_of_which_one_is_out_at_a_time() {
    let _alone = MEASURING.lock().unwrap();
    let (layout, memory) = pal();
    let mut measurement = begun(&layout, &memory);
    assert!(measurement.banks(&layout).is_none());
    let mut out = measurement.take(&layout, &memory).unwrap();
    assert!(measurement.take(&layout, &memory).is_none());
    out.hash();
    measurement.give(&layout, out);
    // Six pages of eight pieces each.
    let (banks, pieces) = finished(&mut measurement, &layout, &memory);
    assert_eq!((banks, pieces), (expected(&layout, &memory), 47));
}

#[test]
fn a_long_header_is_hashed_by_parts() {
    let _alone = MEASURING.lock().unwrap();
    let (mut layout, memory) = pal();
    let sections = layout.listed.len();
    // The last part is whole, has one record, or none but the parameters'.
    for count in [0, HEADER_RECORDS - sections, HEADER_RECORDS - sections + 1, 64] {
        layout.parameters = vec![Parameter { kind: ParameterType::Pointer, words: 3 }; count];
        let mut measurement = begun(&layout, &memory);
        let mut parts = 0;
        while measurement.hash_header(&layout) {
            parts += 1;
        }
        assert_eq!(parts, (sections + count).div_ceil(HEADER_RECORDS), "{count}");
        assert_eq!(finished(&mut measurement, &layout, &memory).0, expected(&layout, &memory), "{count}");
    }
}

#[test]
fn what_decides_how_a_pal_runs_is_in_the_larger_bank_alone() {
    let _alone = MEASURING.lock().unwrap();
    let (layout, memory) = pal();
    let parameter = |words| Parameter { kind: ParameterType::Pointer, words };
    let others = [
        Layout { entry: layout.entry + 1, ..layout.clone() },
        Layout { flags: 1, ..layout.clone() },
        Layout { word: WordSize::Bits32, ..layout.clone() },
        Layout { parameters: vec![parameter(1)], ..layout.clone() },
        Layout { parameters: vec![parameter(2)], ..layout.clone() },
    ];
    let value = |layout: &Layout, number| {
        let banks = expected(layout, &memory);
        banks.read(PcrIndex::from_number(number).unwrap()).to_vec()
    };
    let mut values: Vec<_> = others.iter().chain([&layout]).map(|layout| value(layout, 0x100)).collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 6);
    assert!(others.iter().all(|other| value(other, 0) == value(&layout, 0)));
}

#[test]
fn what_is_not_kept_is_measured_before_the_pal_runs() {
    let _alone = MEASURING.lock().unwrap();
    let (mut layout, memory) = pal();
    let pages = KEPT_BYTES_LIMIT / PAGE as usize;
    let set = |layout: &mut Layout, count: usize| {
        layout.sections[1].pages = vec![0x10_0000; count];
        layout.sections[1].count = count as u32;
    };
    set(&mut layout, pages + 1);
    let whole = expected(&layout, &memory);
    let mut large = begun(&layout, &memory);
    assert!(!large.is_kept());
    assert_eq!(finished(&mut large, &layout, &memory).0, whole);
    // And nothing of it counts any more, as soon as it is forgotten.
    set(&mut layout, 1);
    assert!(!begun(&layout, &memory).is_kept());
    while large.forget() {}
    assert!(begun(&layout, &memory).is_kept());
}

#[test]
fn what_was_kept_is_forgotten_by_steps_once_it_is_of_no_use() {
    let _alone = MEASURING.lock().unwrap();
    let (mut layout, memory) = pal();
    layout.sections[1].pages = vec![0x10_0000; FORGOTTEN_PAGES + 1];
    layout.sections[1].count = FORGOTTEN_PAGES as u32 + 1;
    let mut measurement = begun(&layout, &memory);
    let writable = measurement.kept.len();
    assert!(measurement.is_kept() && !measurement.forget());
    assert_eq!(measurement.kept.len(), writable);
    let whole = expected(&layout, &memory);
    assert_eq!(finished(&mut measurement, &layout, &memory).0, whole);
    assert!(!measurement.is_kept() && measurement.forget());
    assert_eq!(measurement.kept.len(), writable - FORGOTTEN_PAGES);
    assert!(!measurement.forget() && measurement.kept.is_empty());
}

#[test]
fn what_is_kept_has_a_limit_and_is_erased() {
    assert_eq!(KEPT_BYTES_LIMIT, 262_144);
    let mut bytes = [0xa5; 33];
    erase(&mut bytes);
    assert_eq!(bytes, [0; 33]);
}
