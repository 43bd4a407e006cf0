use super::*;
use crate::tpm::tests::{Memory, pal};
use std::sync::Mutex;

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
    digests.collect()
}

#[test]
fn what_is_measured_was_registered_whatever_the_pal_wrote() {
    let _alone = MEASURING.lock().unwrap();
    let (layout, memory) = pal();
    // A page of one word is kept as that word.
    memory.write(0x10_1000, &[0x90; 4096]);
    let expected = expected(&layout, &memory);
    let mut measurement = Measurement::new(&layout, &memory);
    for page in [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000] {
        memory.write(page, &[1; 4096]);
    }
    assert_eq!(measurement.step(&layout, &memory).cloned(), Some(expected));
}

#[test]
fn a_large_pal_is_measured_in_steps() {
    let _alone = MEASURING.lock().unwrap();
    let (mut layout, memory) = pal();
    layout.sections[0].pages = vec![0x20_0000; 40];
    let mut measurement = Measurement::new(&layout, &memory);
    let mut steps = 1;
    while measurement.step(&layout, &memory).is_none() {
        steps += 1;
    }
    assert_eq!((steps, measurement.step(&layout, &memory).cloned()), (3, Some(expected(&layout, &memory))));
}

#[test]
fn what_there_is_no_room_to_keep_is_measured_at_once() {
    let _alone = MEASURING.lock().unwrap();
    let (mut layout, memory) = pal();
    let pages = KEPT_BYTES_LIMIT / PAGE as usize;
    layout.sections[1].pages = vec![0x10_0000; pages + 1];
    let whole = expected(&layout, &memory);
    let mut large = Measurement::new(&layout, &memory);
    memory.write(0x10_0000, &[1; 4096]);
    assert_eq!(large.step(&layout, &memory).cloned(), Some(whole));
    // And nothing of it counts any more.
    memory.write(0x10_0000, b"no word");
    layout.sections[1].pages.truncate(pages);
    let mut kept = Measurement::new(&layout, &memory);
    assert_eq!(kept.step(&layout, &memory), None);
}

#[test]
fn what_is_kept_has_a_limit_and_is_erased() {
    assert_eq!(KEPT_BYTES_LIMIT, 262_144);
    let mut bytes = [0xa5; 33];
    erase(&mut bytes);
    assert_eq!(bytes, [0; 33]);
}
