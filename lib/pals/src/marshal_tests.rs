//! Parameters there and back, in both word sizes.

use super::{Arguments, REGISTERS, STEP_BYTES, Start};
use crate::fake::{Fake, PAL, PARAMETERS, SECTIONS, standard, whole};
use crate::layout::{Layout, PAGE};
use crate::machine::Inaccessible;
use proptest::prelude::*;
use trustvisor::call::{Failure, SENTINEL};
use trustvisor::parameter::ParameterType::{Integer, Pointer};
use trustvisor::parameter::{self, ParameterType, WordSize};

/// The caller's stack and its buffers, two pages each.
const STACK: u64 = 0x2_0000;
const BUFFERS: u64 = 0x3_0000;
const PAL_PARAMETERS: u64 = PAL + 2 * PAGE;
const PAL_STACK_END: u64 = PAL + 4 * PAGE;

fn process(word: WordSize, parameters: &[(ParameterType, u64)]) -> (Fake, Layout) {
    let fake = Fake::with_pal(parameters);
    for page in [STACK, BUFFERS, BUFFERS + PAGE] {
        fake.map(page, true, false);
    }
    let layout = whole(&fake, word, [SECTIONS, PARAMETERS, PAL]);
    (fake, layout.unwrap_or_else(|status| panic!("{status:?}")))
}

fn push(fake: &Fake, word: WordSize, words: &[u64]) {
    for (address, value) in (STACK..).step_by(usize::try_from(word.bytes()).unwrap_or(8)).zip(words) {
        let bytes = value.to_le_bytes();
        fake.poke(address, &bytes[..usize::try_from(word.bytes()).unwrap_or(8)]);
    }
}

fn stack_words(fake: &Fake, layout: &Layout, start: &Start, count: u64) -> Vec<u64> {
    let addresses = (0..count).map(|index| start.stack_pointer + index * layout.word.bytes());
    addresses.map(|at| fake.word(layout.translate(at, false).unwrap_or(0), layout.word)).collect()
}

/// All steps of passing parameters.
fn carry_in(arguments: &Arguments, fake: &Fake, layout: &Layout) -> Result<Start, Failure> {
    let mut from = 0;
    loop {
        if let Some(start) = arguments.carry_in(fake, fake, layout, from)? {
            return Ok(start);
        }
        from += STEP_BYTES;
    }
}

/// All steps of the way back.
fn carry_out(arguments: &Arguments, fake: &Fake, layout: &Layout) -> Result<(), Failure> {
    let mut from = 0;
    while !arguments.carry_out(fake, fake, layout, from)? {
        from += STEP_BYTES;
    }
    Ok(())
}

#[test]
fn ten_integers_go_into_registers_and_onto_the_stack() {
    let (fake, layout) = process(WordSize::Bits64, &[(Integer, 0); 10]);
    push(&fake, WordSize::Bits64, &[0x1234, 7, 8, 9, 10]);
    let read = Arguments::read(&fake, &layout, &[1, 2, 3, 4, 5, 6], STACK);
    let arguments = read.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(
        (arguments.return_address, arguments.values.as_slice()),
        (0x1234, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10][..])
    );
    let start = carry_in(&arguments, &fake, &layout).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(start.registers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(stack_words(&fake, &layout, &start, 5), [SENTINEL, 7, 8, 9, 10]);
    assert_eq!((start.stack_pointer + 8) % 16, 0, "aligned as behind a call");
    assert!(start.stack_pointer + 40 <= PAL_STACK_END);
    let section = |offset| fake.word((PAL_PARAMETERS + offset) * 16 - offset * 15, WordSize::Bits64);
    assert_eq!([section(0), section(16), section(32), section(16 + 24 * 9 + 16)], [10, 1, 1, 10]);
    assert_eq!(carry_out(&arguments, &fake, &layout), Ok(()));
}

#[test]
fn thirty_two_bit_parameters_are_all_on_the_stack() {
    let (fake, layout) = process(WordSize::Bits32, &[(Integer, 0), (Integer, 0), (Integer, 0)]);
    push(&fake, WordSize::Bits32, &[0x1234, 0xffff_fff1, 0xffff_fff2, 0xffff_fff3]);
    let read = Arguments::read(&fake, &layout, &[9; REGISTERS], STACK);
    let arguments = read.unwrap_or_else(|error| panic!("{error:?}"));
    let start = carry_in(&arguments, &fake, &layout).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(start.registers, [0; REGISTERS]);
    let words = stack_words(&fake, &layout, &start, 4);
    assert_eq!(words, [SENTINEL, 0xffff_fff1, 0xffff_fff2, 0xffff_fff3]);
    assert_eq!((start.stack_pointer + 4) % 16, 0);
}

#[test]
fn what_the_caller_cannot_access_is_refused_before_a_run() {
    let (fake, layout) = process(WordSize::Bits64, &[(Pointer, 4), (Pointer, 1)]);
    for stack in [0, STACK + PAGE - 4, u64::MAX - 3] {
        let read = Arguments::read(&fake, &layout, &[0; REGISTERS], stack);
        assert_eq!(read, Err(Inaccessible), "{stack:#x}");
    }
    let call = |first, second| {
        let read = Arguments::read(&fake, &layout, &[first, second, 0, 0, 0, 0], STACK);
        read.map(|arguments| carry_in(&arguments, &fake, &layout).map(|_| ()))
    };
    assert_eq!(call(BUFFERS, BUFFERS), Ok(Ok(())));
    for bad in [0, BUFFERS + 2 * PAGE - 4, u64::MAX - 3, 1 << 63] {
        assert_eq!(call(bad, BUFFERS), Ok(Err(Failure::BAD_POINTER)), "{bad:#x}");
        assert_eq!(call(BUFFERS, bad), Ok(Err(Failure::BAD_POINTER)), "{bad:#x}");
    }
    fake.map(BUFFERS + PAGE, false, false);
    assert_eq!(call(BUFFERS + PAGE - 8, BUFFERS), Ok(Err(Failure::BAD_POINTER)), "no way back");
}

#[test]
fn every_page_of_a_buffer_has_to_be_the_callers_to_write() {
    // Three pages of parameters, for a buffer that has a page in its midst.
    let fake = Fake::with_pal(&[(Pointer, 1100)]);
    let [code, data, mut parameters, stack] = standard();
    (parameters.start, parameters.pages) = (PAL + 16 * PAGE, 3);
    (16..19).for_each(|index| fake.map(PAL + index * PAGE, true, false));
    fake.list_sections(&[code, data, parameters, stack]);
    let layout = whole(&fake, WordSize::Bits64, [SECTIONS, PARAMETERS, PAL]);
    let layout = layout.unwrap_or_else(|status| panic!("{status:?}"));
    fake.map(STACK, true, false);
    // As high as programs have them.
    let start = 0x7f00_0000_0000;
    let pages = [0, 1, 2, 3].map(|index| start + index * PAGE);
    // With the one before the last it ends with its page.
    for offset in [0, 8, 511, 512, 513, 1000, 3 * PAGE - 1100 * 8, 4095] {
        let pointer = start + offset;
        let call = || {
            let read = Arguments::read(&fake, &layout, &[pointer, 0, 0, 0, 0, 0], STACK);
            read.map(|arguments| carry_in(&arguments, &fake, &layout).map(|_| ()))
        };
        pages.iter().for_each(|&page| fake.map(page, true, false));
        assert_eq!(call(), Ok(Ok(())), "{offset}");
        for &page in pages.iter().filter(|&&page| page < pointer + 1100 * 8) {
            fake.map(page, false, false);
            assert_eq!(call(), Ok(Err(Failure::BAD_POINTER)), "{offset}: {page:#x}");
            fake.map(page, true, false);
        }
        for &page in pages.iter().filter(|&&page| page >= pointer + 1100 * 8) {
            fake.map(page, false, false);
            assert_eq!(call(), Ok(Ok(())), "{offset}: {page:#x} is behind it");
        }
    }
}

#[test]
fn large_buffers_go_by_steps_that_meet_in_the_midst_of_one() {
    const WORDS: u64 = 1500;
    let fake = Fake::with_pal(&[(Pointer, WORDS), (Pointer, WORDS)]);
    let [code, data, mut parameters, stack] = standard();
    (parameters.start, parameters.pages) = (PAL + 16 * PAGE, 6);
    (16..22).for_each(|index| fake.map(PAL + index * PAGE, true, false));
    fake.list_sections(&[code, data, parameters, stack]);
    let layout = whole(&fake, WordSize::Bits64, [SECTIONS, PARAMETERS, PAL]);
    let layout = layout.unwrap_or_else(|status| panic!("{status:?}"));
    fake.map(STACK, true, false);
    let buffers = [BUFFERS, BUFFERS + 0x10_0000];
    for (seed, buffer) in (1..).zip(buffers) {
        (0..4).for_each(|page| fake.map(buffer + page * PAGE, true, false));
        (0..WORDS).for_each(|index| fake.poke(buffer + 8 * index, &(seed << 32 | index).to_le_bytes()));
    }
    let read = Arguments::read(&fake, &layout, &[buffers[0], buffers[1], 0, 0, 0, 0], STACK);
    let arguments = read.unwrap_or_else(|error| panic!("{error:?}"));
    // The third of six steps has bytes of both.
    let steps = (0..16 * WORDS).step_by(STEP_BYTES as usize);
    let step = |from| arguments.carry_in(&fake, &fake, &layout, from).map(|start| start.is_some());
    let done: Vec<_> = steps.clone().map(step).collect();
    assert_eq!(done, [Ok(false), Ok(false), Ok(false), Ok(false), Ok(false), Ok(true)]);
    let start = carry_in(&arguments, &fake, &layout).unwrap_or_else(|error| panic!("{error:?}"));
    for (seed, copy) in (1..).zip(&start.registers[..2]) {
        let word = |index| layout.translate(copy + 8 * index, true).unwrap_or(0);
        let differs = |&index: &u64| fake.word(word(index), WordSize::Bits64) != (seed << 32 | index);
        assert_eq!((0..WORDS).find(differs), None, "parameter {seed}");
        (0..WORDS).for_each(|index| {
            crate::machine::Pages::write(&fake, word(index), &(seed << 40 | index).to_le_bytes());
        });
    }
    let done: Vec<_> = steps.map(|from| arguments.carry_out(&fake, &fake, &layout, from)).collect();
    assert_eq!(done, [Ok(false), Ok(false), Ok(false), Ok(false), Ok(false), Ok(true)]);
    for (seed, buffer) in (1_u64..).zip(buffers) {
        let mut bytes = [0; 8 * WORDS as usize];
        assert_eq!(crate::machine::Process::read(&fake, buffer, &mut bytes), Ok(()));
        let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        assert!(words.eq((0..WORDS).map(|index| seed << 40 | index)), "parameter {seed}");
    }
}

#[test]
fn a_step_writes_its_own_bytes_and_the_words_around_them() {
    const WORDS: u64 = 600;
    let fake =
        Fake::with_pal(&[(Integer, 0), (Pointer, WORDS), (Integer, 0), (Pointer, WORDS), (Integer, 0)]);
    let [code, data, mut parameters, stack] = standard();
    (parameters.start, parameters.pages) = (PAL + 16 * PAGE, 4);
    (16..20).for_each(|index| fake.map(PAL + index * PAGE, true, false));
    fake.list_sections(&[code, data, parameters, stack]);
    let layout = whole(&fake, WordSize::Bits64, [SECTIONS, PARAMETERS, PAL]).unwrap();
    fake.map(STACK, true, false);
    let buffers = [BUFFERS, BUFFERS + 0x10_0000];
    for (seed, buffer) in (1..).zip(buffers) {
        (0..2).for_each(|page| fake.map(buffer + page * PAGE, true, false));
        (0..WORDS).for_each(|index| fake.poke(buffer + 8 * index, &(seed << 32 | index).to_le_bytes()));
    }
    let registers = [11, buffers[0], 22, buffers[1], 33, 0];
    let arguments = Arguments::read(&fake, &layout, &registers, STACK).unwrap();
    let place = |offset: u64| layout.translate(parameters.start + offset, true).unwrap();
    let word = |offset| fake.word(place(offset), WordSize::Bits64);
    let (first, second) = (16 + 24 + 24, 16 + 24 + 24 + 8 * WORDS + 24 + 24);
    for from in [0, STEP_BYTES, 2 * STEP_BYTES] {
        (0..4 * PAGE).step_by(8).for_each(|offset| {
            crate::machine::Pages::write(&fake, place(offset), &[0xee; 8]);
        });
        assert_eq!(
            arguments.carry_in(&fake, &fake, &layout, from).map(|start| start.is_some()),
            Ok(from != 0 && from != STEP_BYTES)
        );
        let headers = [16, 16 + 24, first + 8 * WORDS, first + 8 * WORDS + 24, second + 8 * WORDS];
        assert_eq!(headers.map(|header| word(header + 16)), [11, buffers[0], 22, buffers[1], 33], "{from}");
        for (seed, start, position) in [(1, first, 0), (2, second, 8 * WORDS)] {
            for index in 0..WORDS {
                let is_copied = (from..from + STEP_BYTES).contains(&(position + 8 * index));
                let expected = if is_copied { seed << 32 | index } else { 0xeeee_eeee_eeee_eeee };
                assert_eq!(word(start + 8 * index), expected, "step {from}, parameter {seed}, word {index}");
            }
        }
        let end = second + 8 * WORDS + 24;
        assert!((end..4 * PAGE).step_by(8).all(|offset| word(offset) == 0xeeee_eeee_eeee_eeee), "{from}");
    }
}

#[test]
fn as_many_parameters_as_a_list_can_have_arrive() {
    let parameters = [(Integer, 0); parameter::CAPACITY];
    let values: Vec<u64> = (1..=parameter::CAPACITY as u64).collect();
    for (word, in_registers) in [(WordSize::Bits32, 0), (WordSize::Bits64, REGISTERS)] {
        let (fake, layout) = process(word, &parameters);
        push(&fake, word, &[&[0x1234], &values[in_registers..]].concat());
        let read = Arguments::read(&fake, &layout, &[1, 2, 3, 4, 5, 6], STACK);
        let arguments = read.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((arguments.return_address, &arguments.values[..]), (0x1234, &values[..]));
        let start = carry_in(&arguments, &fake, &layout).unwrap_or_else(|error| panic!("{error:?}"));
        let count = (values.len() - in_registers) as u64;
        assert_eq!(stack_words(&fake, &layout, &start, 1 + count)[1..], values[in_registers..]);
    }
}

#[test]
fn a_buffer_of_no_words_may_be_anywhere() {
    let (fake, layout) = process(WordSize::Bits64, &[(Pointer, 0)]);
    for pointer in [0, 1 << 63, u64::MAX] {
        let read = Arguments::read(&fake, &layout, &[pointer, 0, 0, 0, 0, 0], STACK);
        let arguments = read.unwrap_or_else(|error| panic!("{error:?}"));
        assert!(carry_in(&arguments, &fake, &layout).is_ok());
        assert_eq!(carry_out(&arguments, &fake, &layout), Ok(()));
    }
}

#[test]
fn an_output_that_has_become_unwritable_is_told() {
    let (fake, layout) = process(WordSize::Bits64, &[(Pointer, 1)]);
    let read = Arguments::read(&fake, &layout, &[BUFFERS, 0, 0, 0, 0, 0], STACK);
    let arguments = read.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(carry_in(&arguments, &fake, &layout).is_ok());
    fake.map(BUFFERS, false, false);
    assert_eq!(carry_out(&arguments, &fake, &layout), Err(Failure::BAD_OUTPUT));
}

proptest! {
    #[test]
    fn buffers_come_and_go_whole_and_touch_no_neighbours(
        word in prop::sample::select(vec![WordSize::Bits32, WordSize::Bits64]),
        sizes in prop::collection::vec(0_u64..80, 1..6),
        shift in 0_u64..4096,
    ) {
        let parameters: Vec<_> = sizes.iter().map(|&words| (Pointer, words)).collect();
        let (fake, layout) = process(word, &parameters);
        let mut at = BUFFERS + shift;
        let mut pointers = Vec::new();
        for (seed, words) in (1_u64..).zip(&sizes) {
            pointers.push(at);
            for index in 0..words * word.bytes() {
                fake.poke(at + index, &[(seed * 31 + index).to_le_bytes()[0]]);
            }
            at += words * word.bytes() + 3;
        }
        let mut registers = [0; REGISTERS];
        registers[..pointers.len()].copy_from_slice(&pointers);
        let mut pushed = vec![0x99];
        pushed.extend(&pointers);
        push(&fake, word, &pushed);
        let arguments = Arguments::read(&fake, &layout, &registers, STACK);
        let arguments = arguments.map_err(|_| TestCaseError::fail("stack"))?;
        prop_assert_eq!(arguments.values.as_slice(), pointers.as_slice());
        let start = carry_in(&arguments, &fake, &layout);
        let start = start.map_err(|_| TestCaseError::fail("carry in"))?;
        let copies: Vec<u64> = match word {
            WordSize::Bits64 => start.registers[..pointers.len()].to_vec(),
            WordSize::Bits32 => stack_words(&fake, &layout, &start, 1 + pointers.len() as u64)[1..].to_vec(),
        };
        for ((seed, words), copy) in (1_u64..).zip(&sizes).zip(&copies) {
            for index in 0..words * word.bytes() {
                let place = layout.translate(copy + index, true).unwrap_or(0);
                let byte = fake.word(place & !7, WordSize::Bits64) >> (place % 8 * 8) & 0xff;
                prop_assert_eq!(byte, (seed * 31 + index) & 0xff);
                crate::machine::Pages::write(&fake, place, &[!byte.to_le_bytes()[0]]);
            }
        }
        prop_assert_eq!(carry_out(&arguments, &fake, &layout), Ok(()));
        for ((seed, words), pointer) in (1_u64..).zip(&sizes).zip(&pointers) {
            let mut bytes = vec![0; usize::try_from(words * word.bytes() + 3).unwrap_or(0)];
            prop_assert_eq!(crate::machine::Process::read(&fake, *pointer, &mut bytes), Ok(()));
            for (index, byte) in (0_u64..).zip(&bytes) {
                let inside = index < words * word.bytes();
                let expected = if inside { !((seed * 31 + index).to_le_bytes()[0]) } else { 0 };
                prop_assert_eq!(*byte, expected);
            }
        }
    }
}

#[test]
fn a_step_has_more_where_bytes_lie_behind_it() {
    let has_more = |position| super::Step { from: 100, position }.has_more();
    let end = 100 + STEP_BYTES;
    assert_eq!([100, end - 1, end, end + 1].map(has_more), [false, false, false, true]);
}
