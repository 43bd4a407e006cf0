//! TXT heaps of any bytes.
#![no_main]
use txt::heap::{BiosData, Heap, OsMleData, OsSinitData, Part, SinitMleData};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let heap = Heap::new(input);
    let parts = [Part::BiosData, Part::OsMleData, Part::OsSinitData, Part::SinitMleData];
    let parts = parts.into_iter().filter_map(|part| heap.part(part).ok());
    for part in parts.map(|(_, bytes)| bytes).chain([input]) {
        let _ = BiosData::parse(part).map(|data| data.elements.iter().count());
        let _ = OsMleData::parse(part).map(|data| data.ranges().len());
        let _ = SinitMleData::parse(part).map(|data| (data.memory().count(), data.dmar().len()));
        if let Ok((data, elements)) = OsSinitData::parse(part) {
            // What was read is written alike.
            let elements: Vec<_> = elements.iter().collect();
            let mut room = vec![0; data.size(&elements).unwrap() + 16];
            let size = data.write(&elements, &mut room).unwrap();
            let (again, read) = OsSinitData::parse(&room[8..size]).unwrap();
            assert!(again == data && read.iter().eq(elements));
        }
    }
});
