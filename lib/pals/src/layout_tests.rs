//! Named cases of good and hostile lists.

use super::{FoundPage, Kind, Layout, PAGE, STEP_PAGES, Section};
use crate::fake::{Fake, PAL, PARAMETERS, SECTIONS, standard, whole};
use crate::lists::{USER_END_32, USER_END_64, check_range};
use crate::machine::{Cover, Pages};
use trustvisor::flags;
use trustvisor::parameter::{ParameterType, WordSize};
use trustvisor::section::{CAPACITY, PAGES_LIMIT, SectionRecord, SectionType};
use trustvisor::status::Status;

fn read(fake: &Fake) -> Result<Layout, Status> {
    whole(fake, WordSize::Bits64, [SECTIONS, PARAMETERS, PAL])
}

fn with_sections(sections: &[SectionRecord]) -> Result<Layout, Status> {
    let fake = Fake::with_pal(&[]);
    fake.list_sections(sections);
    read(&fake)
}

fn record(kind: SectionType, start: u64, pages: u32) -> SectionRecord {
    SectionRecord { kind: kind as u32, pages, start }
}

#[test]
fn a_good_list_gives_pages_in_order_and_keeps_its_own_order() {
    let [code, data, parameters, stack] = standard();
    let layout =
        with_sections(&[stack, code, parameters, data]).unwrap_or_else(|status| panic!("{status:?}"));
    let starts: Vec<u64> = layout.sections.iter().map(|section| section.start).collect();
    assert_eq!(starts, [PAL, PAL + PAGE, PAL + 2 * PAGE, PAL + 3 * PAGE]);
    assert_eq!(layout.listed.as_slice(), [3, 0, 2, 1]);
    assert_eq!(layout.sections[1].pages, [(PAL + PAGE) * 16]);
    assert_eq!(layout.translate(PAL + 5, false), Some(PAL * 16 + 5));
    assert_eq!(layout.translate(PAL + 5, true), None);
    assert_eq!(layout.translate(PAL + PAGE + 5, true), Some((PAL + PAGE) * 16 + 5));
    assert_eq!((layout.translate(PAL - 1, false), layout.translate(PAL + 4 * PAGE, false)), (None, None));
}

#[test]
fn counts_and_types_that_are_none_are_refused() {
    assert_eq!(with_sections(&[]), Err(Status::SECTION_COUNT));
    assert_eq!(with_sections(&[standard()[0]; CAPACITY + 1]), Err(Status::SECTION_COUNT));
    let mut sections = standard();
    sections[1].kind = 6;
    assert_eq!(with_sections(&sections), Err(Status::SECTION_TYPE));
    let fake = Fake::with_pal(&[]);
    fake.poke(SECTIONS, &u32::MAX.to_le_bytes());
    assert_eq!(read(&fake), Err(Status::SECTION_COUNT));
    fake.list_sections(&standard());
    fake.poke(PARAMETERS, &65_u32.to_le_bytes());
    assert_eq!(read(&fake), Err(Status::PARAMETER_COUNT));
    fake.poke(PARAMETERS, &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(read(&fake), Err(Status::PARAMETER_TYPE));
}

#[test]
fn ranges_that_wrap_or_leave_the_program_are_refused() {
    let data = |start, pages| {
        let mut sections = standard();
        sections[1] = record(SectionType::Data, start, pages);
        with_sections(&sections)
    };
    for (start, pages) in
        [(0, 1), (PAL + PAGE + 1, 1), (1 << 47, 1), ((1 << 47) - PAGE, 2), (!0xfff, 1), (1 << 63, 1)]
    {
        assert_eq!(data(start, pages), Err(Status::SECTION_ADDRESS), "{start:#x}");
    }
    for pages in [0, 4097, u32::MAX] {
        assert_eq!(data(PAL + 16 * PAGE, pages), Err(Status::SECTION_SIZE), "{pages}");
    }
    assert_eq!(data(PAL + 16 * PAGE, 4094), Err(Status::SECTION_SIZE), "all together");
    assert_eq!(data(PAL + 16 * PAGE, 4093), Err(Status::SECTION_NOT_MAPPED));
    assert_eq!(data(PAL, 1), Err(Status::SECTION_OVERLAP));
    assert_eq!(data(PAL - PAGE, 2), Err(Status::SECTION_OVERLAP));
    let fake = Fake::with_pal(&[]);
    let narrow = whole(&fake, WordSize::Bits32, [SECTIONS, PARAMETERS, PAL]);
    assert!(narrow.is_ok());
    let mut sections = standard();
    sections[1].start = 1 << 32;
    fake.list_sections(&sections);
    let narrow = whole(&fake, WordSize::Bits32, [SECTIONS, PARAMETERS, PAL]);
    assert_eq!(narrow, Err(Status::SECTION_ADDRESS));
}

#[test]
fn a_range_may_reach_each_limit_and_not_a_page_beyond() {
    for (word, end) in [(WordSize::Bits32, USER_END_32), (WordSize::Bits64, USER_END_64)] {
        for pages in [1, 2, PAGES_LIMIT] {
            assert_eq!(check_range(word, PAGE, pages), Ok(()), "{pages} pages");
            assert_eq!(check_range(word, end - pages * PAGE, pages), Ok(()), "{pages} pages to the end");
            let beyond = end - (pages - 1) * PAGE;
            assert_eq!(check_range(word, beyond, pages), Err(Status::SECTION_ADDRESS), "{pages} pages");
        }
        for pages in [0, PAGES_LIMIT + 1, u64::MAX] {
            assert_eq!(check_range(word, PAGE, pages), Err(Status::SECTION_SIZE), "{pages} pages");
        }
        for start in [0, 1, PAGE - 1, PAGE + 1, !(PAGE - 1)] {
            assert_eq!(check_range(word, start, 1), Err(Status::SECTION_ADDRESS), "{start:#x}");
        }
    }
    assert_eq!((USER_END_32, USER_END_64), (1 << 32, 1 << 47));
}

#[test]
fn the_longest_list_is_read_whole() {
    let mut fake = Fake::with_pal(&[(ParameterType::Integer, 0); trustvisor::parameter::CAPACITY]);
    let data = |index| record(SectionType::Data, PAL + 16 * PAGE + index * PAGE, 1);
    let rest = (0..).map(data).take(CAPACITY - 4);
    let sections: Vec<SectionRecord> = standard().into_iter().chain(rest).collect();
    sections.iter().for_each(|section| fake.map(section.start, true, section.kind == 1));
    fake.list_sections(&sections);
    let layout = read(&fake).unwrap_or_else(|status| panic!("{status:?}"));
    let starts: Vec<u64> = layout.sections.iter().map(|section| section.start).collect();
    assert_eq!(starts, sections.iter().map(|section| section.start).collect::<Vec<_>>());
    assert_eq!(layout.parameters.len(), trustvisor::parameter::CAPACITY);
    fake.devices.insert(sections[CAPACITY - 1].start * 16);
    assert_eq!(read(&fake), Err(Status::PAGE_NOT_MEMORY), "the last section is looked at too");
}

#[test]
fn each_page_of_a_section_is_the_one_behind_its_own_address() {
    let fake = Fake::with_pal(&[]);
    let data = record(SectionType::Data, PAL + 16 * PAGE, 3);
    (16..19).for_each(|index| fake.map(PAL + index * PAGE, true, false));
    let [code, _, parameters, stack] = standard();
    fake.list_sections(&[code, data, parameters, stack]);
    let layout = read(&fake).unwrap_or_else(|status| panic!("{status:?}"));
    let section = layout.section(SectionType::Data).map(|section| section.pages.clone());
    assert_eq!(section, Some([16, 17, 18].map(|index| (PAL + index * PAGE) * 16).to_vec()));
    let pieces = |linear, length| {
        let mut pieces = Vec::new();
        let result = layout.pieces(linear, length, true, |at, done, count| pieces.push((at, done, count)));
        (result.is_ok(), pieces)
    };
    let at = |index| (PAL + index * PAGE) * 16;
    let whole = vec![(at(16) + 4090, 0, 6), (at(17), 6, 4096), (at(18), 4102, 10)];
    assert_eq!(pieces(data.start + 4090, 4112), (true, whole));
    assert_eq!(pieces(data.start + 3 * PAGE - 1, 2), (false, vec![(at(18) + 4095, 0, 1)]));
    assert!(!pieces(u64::MAX, 2).0);
}

#[test]
fn what_is_given_up_leaves_the_page_of_the_entry() {
    let fake = Fake::with_pal(&[(ParameterType::Integer, 0)]);
    let code = record(SectionType::Code, PAL + 16 * PAGE, 3);
    (16..19).for_each(|index| fake.map(PAL + index * PAGE, true, true));
    let [_, data, parameters, stack] = standard();
    fake.list_sections(&[code, data, parameters, stack]);
    let entry = PAL + 17 * PAGE + 0x123;
    let layout = whole(&fake, WordSize::Bits64, [SECTIONS, PARAMETERS, entry]);
    let mut layout = layout.unwrap_or_else(|status| panic!("{status:?}"));
    layout.shared.push(Section { kind: Kind::Shared, start: 0x5000, count: 1, pages: vec![0x5_0000] });
    let page = (PAL + 17 * PAGE) * 16;
    assert_eq!(layout.entry_page(), Some(page));
    layout.keep_entry_page();
    let kept = Section {
        kind: Kind::Listed(SectionType::Code),
        start: PAL + 17 * PAGE,
        count: 1,
        pages: vec![page],
    };
    assert_eq!((layout.sections.clone(), layout.entry), (vec![kept], entry));
    assert_eq!((layout.shared.len(), layout.parameters.len(), layout.listed.len()), (0, 0, 0));
    assert_eq!(layout.entry_page(), Some(page), "the entry is known as before");
}

#[test]
fn kinds_have_the_numbers_that_are_measured() {
    use SectionType::{Code, Data, Parameters, SharedCode, Stack};
    let numbers = [Code, Data, Parameters, Stack, SharedCode].map(|kind| Kind::Listed(kind).number());
    assert_eq!((numbers, Kind::Shared.number()), ([1, 2, 3, 4, 5], 6));
}

#[test]
fn lists_that_cannot_be_read_are_refused() {
    let fake = Fake::with_pal(&[]);
    let read = |sections, parameters| whole(&fake, WordSize::Bits64, [sections, parameters, PAL]).map(|_| ());
    for address in [0, 4, 0x5000, u64::MAX, u64::MAX - 7, 1 << 63] {
        assert_eq!(read(address, PARAMETERS), Err(Status::BAD_ADDRESS), "{address:#x}");
    }
    assert_eq!(read(SECTIONS, 8), Err(Status::BAD_ADDRESS));
    assert_eq!(read(SECTIONS, 0), Ok(()), "no list is no parameters");
    // A list whose end is not mapped.
    fake.poke(PARAMETERS + 2 * PAGE - 8, &[1, 0, 0, 0]);
    assert_eq!(read(PARAMETERS + 2 * PAGE - 8, PARAMETERS), Err(Status::BAD_ADDRESS));
}

#[test]
fn pages_need_the_pal_s_rights_and_memory_behind_them() {
    let mut fake = Fake::with_pal(&[]);
    fake.map(PAL + PAGE, false, true);
    assert_eq!(read(&fake), Err(Status::SECTION_NOT_MAPPED), "data that is read-only");
    fake.map(PAL + PAGE, true, false);
    fake.map(PAL, true, false);
    assert_eq!(read(&fake), Err(Status::SECTION_NOT_MAPPED), "code that cannot be executed");
    fake.map(PAL, false, true);
    assert_eq!(read(&fake), Err(Status::SECTION_NOT_MAPPED), "code that is somebody else's");
    fake.map(PAL, true, true);
    assert!(read(&fake).is_ok());
    fake.devices.insert((PAL + 3 * PAGE) * 16);
    assert_eq!(read(&fake), Err(Status::PAGE_NOT_MEMORY));
}

#[test]
fn a_pal_has_an_entry_in_code_one_stack_and_parameter_room() {
    let [code, data, parameters, stack] = standard();
    assert_eq!(with_sections(&[data, parameters, stack]), Err(Status::SECTION_MISSING));
    assert_eq!(with_sections(&[code, data, parameters]), Err(Status::SECTION_MISSING));
    let second = |kind: SectionType| SectionRecord { kind: kind as u32, ..data };
    assert_eq!(with_sections(&[code, second(SectionType::Stack), stack]), Err(Status::SECTION_MISSING));
    assert_eq!(
        with_sections(&[code, second(SectionType::Parameters), parameters, stack]),
        Err(Status::SECTION_MISSING)
    );
    assert!(with_sections(&[code, stack]).is_ok());

    let fake = Fake::with_pal(&[(ParameterType::Integer, 0)]);
    fake.list_sections(&[code, stack]);
    assert_eq!(read(&fake), Err(Status::SECTION_MISSING), "parameters without a place");
    let entry = |entry| whole(&fake, WordSize::Bits64, [SECTIONS, 0, entry]).map(|_| ());
    assert_eq!(entry(PAL + PAGE - 1), Ok(()));
    for outside in [PAL - 1, PAL + PAGE, stack.start, 0, u64::MAX] {
        assert_eq!(entry(outside), Err(Status::ENTRY_NOT_CODE), "{outside:#x}");
    }
    let shared = SectionRecord { kind: SectionType::SharedCode as u32, ..code };
    let fake = Fake::with_pal(&[]);
    fake.list_sections(&[shared, SectionRecord { kind: 1, ..data }, stack]);
    fake.map(data.start, true, true);
    assert_eq!(read(&fake), Err(Status::ENTRY_NOT_CODE), "calls of shared code do not come to the hypapp");
}

#[test]
fn parameters_fit_in_their_section_to_the_last_word() {
    // A page less the header and one record holds so many words.
    let room = (4096 - 16) / 8 - 3;
    let pointer = |words| read(&Fake::with_pal(&[(ParameterType::Pointer, words)])).map(|_| ());
    assert_eq!(pointer(room), Ok(()));
    for words in [room + 1, 1 << 32, 1 << 61, u64::MAX / 8, u64::MAX] {
        assert_eq!(pointer(words), Err(Status::PARAMETER_SIZE), "{words:#x}");
    }
    let integer = read(&Fake::with_pal(&[(ParameterType::Integer, u64::MAX)]));
    assert!(integer.is_ok(), "an integer's size is not looked at");
}

#[test]
fn shared_code_may_be_somebody_elses_and_nothing_hidden_may() {
    let [code, data, _, stack] = standard();
    let shared = SectionRecord { kind: SectionType::SharedCode as u32, ..data };
    let fake = Fake::with_pal(&[]);
    fake.list_sections(&[code, shared, stack]);
    fake.map(data.start, false, true);
    assert!(read(&fake).is_ok(), "it stays there for all to read");
    for (kind, at) in [(SectionType::Data, data), (SectionType::Parameters, data), (SectionType::Code, data)]
    {
        fake.list_sections(&[code, SectionRecord { kind: kind as u32, ..at }, stack]);
        assert_eq!(read(&fake), Err(Status::SECTION_NOT_MAPPED), "{kind:?}");
    }
}

#[test]
fn pages_are_taken_some_at_a_time_in_order() {
    let fake = Fake::with_pal(&[]);
    let pages = 2 * STEP_PAGES as u64 + 3;
    (0..pages).for_each(|page| fake.map(PAL + (16 + page) * PAGE, true, false));
    let [code, _, _, stack] = standard();
    fake.list_sections(&[record(SectionType::Data, PAL + 16 * PAGE, pages as u32), code, stack]);
    let mut layout = Layout::read(&fake, WordSize::Bits64, 0, [SECTIONS, 0, PAL]).unwrap();
    let (mut steps, mut taken) = (Vec::new(), Vec::new());
    assert_eq!(layout.last_taken(), None);
    while !layout.is_whole() {
        let step = layout.find_next(&fake, &fake).unwrap();
        layout.take(&step);
        taken.extend(step.iter().map(|found| found.page));
        assert_eq!(layout.last_taken(), taken.last().copied());
        steps.push(step.len());
    }
    assert_eq!(steps, [STEP_PAGES, STEP_PAGES, 5]);
    assert_eq!(taken, layout.pages().map(|(page, _)| page).collect::<Vec<_>>());
    assert!(layout.find_next(&fake, &fake).unwrap().is_empty());
    let again = (0..3).flat_map(|step| layout.step_from(step * STEP_PAGES)).map(|found| found.page);
    assert_eq!(taken, again.collect::<Vec<_>>());
}

#[test]
fn a_section_takes_what_it_lacks_and_the_next_one_the_rest() {
    let fake = Fake::with_pal(&[]);
    (0..10).for_each(|page| fake.map(PAL + (16 + page) * PAGE, true, false));
    let [code, _, _, stack] = standard();
    let data = |page: u64, count| record(SectionType::Data, PAL + (16 + page) * PAGE, count);
    fake.list_sections(&[data(0, 6), data(6, 4), code, stack]);
    let layout = read(&fake).unwrap();
    let counts: Vec<_> = layout.sections.iter().map(|section| section.pages.len()).collect();
    assert_eq!(counts, [1, 1, 6, 4]);
    for section in &layout.sections {
        let own = (0..).map(|index| (section.start + index * PAGE) * 16);
        assert!(section.pages.iter().copied().eq(own.take(section.pages.len())), "{section:?}");
    }
}

#[test]
fn flags_that_are_none_are_refused() {
    let fake = Fake::with_pal(&[]);
    let with = |flags| Layout::read(&fake, WordSize::Bits64, flags, [SECTIONS, PARAMETERS, PAL]);
    assert_eq!(with(flags::ALL).map(|layout| layout.flags), Ok(flags::ALL));
    assert_eq!(with(flags::ALL + 1), Err(Status::FLAGS));
}

#[test]
fn what_the_pal_could_write_is_zeroed_and_its_code_stays() {
    let fake = Fake::with_pal(&[]);
    let layout = read(&fake).unwrap_or_else(|status| panic!("{status:?}"));
    for (page, _) in layout.pages() {
        Pages::write(&fake, page, &[0xaa; 4096]);
    }
    layout.pages().for_each(|(page, section)| super::zero(&fake, FoundPage { page, kind: section.kind }));
    for (page, section) in layout.pages() {
        let expected = if section.kind.is_writable() { 0 } else { 0xaaaa_aaaa_aaaa_aaaa };
        assert_eq!(fake.word(page + 4088, WordSize::Bits64), expected);
    }
    layout.zero_all(&fake);
    assert!(layout.pages().all(|(page, _)| fake.word(page + 4088, WordSize::Bits64) == 0));
    assert_eq!(Kind::Shared.cover(), Cover::Open);
    assert_eq!(Kind::Listed(SectionType::SharedCode).cover(), Cover::ReadOnly);
    assert_eq!(Kind::Listed(SectionType::Code).cover(), Cover::Hidden);
}
