//! The checks against the model: every control bit, every guest-state and host-state field, alone and in sets.

use super::fixture::{CURRENT, FakeVmcs, Fixture, LINKED, MODES, Mode, sound};
use super::model::agree;
use hw::Vmcs;
use proptest::prelude::*;
use x86::vmx::vmcs::{self, FIELDS, FieldInfo, Width};

fn bits(field: &FieldInfo) -> u32 {
    match field.width() {
        Width::Bits16 => 16,
        Width::Bits32 => 32,
        Width::Bits64 | Width::Natural => 64,
    }
}

fn get(vmcs: &FakeVmcs, field: &FieldInfo) -> u64 {
    vmcs.value(field.encoding)
}

fn set(vmcs: &mut FakeVmcs, field: &FieldInfo, value: u64) {
    let kept = u64::MAX >> (64 - bits(field));
    vmcs.set_value(field.encoding, value & kept);
}

#[test]
fn sound_state_of_every_mode_is_entered() {
    for mode in MODES {
        let machine = Fixture::new();
        assert_eq!(machine.broken_rule(&sound(mode)), None, "{mode:?}");
        agree(&machine, &sound(mode), &format!("{mode:?}"));
    }
}

#[test]
fn a_link_leads_to_another_vmcs_of_the_controls_kind() {
    let machine = Fixture::new();
    for (mode, revision) in
        MODES.into_iter().flat_map(|mode| [0, 1, 0x2b, 0x2a, 1 << 31, 0x8000_002b].map(|word| (mode, word)))
    {
        machine.memory.put(LINKED, &u32::to_le_bytes(revision));
        machine.memory.put(CURRENT.get(), &u32::to_le_bytes(revision));
        for link in [0, LINKED, LINKED + 8, CURRENT.get(), LINKED | 1 << 39, 1 << 63, u64::MAX - 1, u64::MAX]
        {
            let mut vmcs = sound(mode);
            vmcs.write(vmcs::VMCS_LINK_POINTER, link);
            agree(&machine, &vmcs, &format!("{mode:?} {revision:#x} at {link:#x}"));
        }
    }
}

#[test]
fn every_bit_of_every_field_alone() {
    let machine = Fixture::new();
    for mode in MODES {
        for field in FIELDS {
            for bit in 0..bits(field) {
                let mut vmcs = sound(mode);
                let value = get(&vmcs, field) ^ 1 << bit;
                set(&mut vmcs, field, value);
                agree(&machine, &vmcs, &format!("{mode:?} {} {value:#x}", field.name));
            }
        }
    }
}

/// Values at which rules change their mind.
const BORDERS: [u64; 34] = [
    0,
    1,
    2,
    3,
    4,
    5,
    0xf,
    0x10,
    0x1f,
    0x20,
    0x93,
    0x9b,
    0xf3,
    0xff,
    0x100,
    0xfff,
    0x1000,
    0x3000,
    0xffff,
    0x1_0000,
    0xf_ffff,
    0x10_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7f_ffff_f000,
    0x80_0000_0000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_ffff_ffff,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0xffff_ffff_ffff_0000,
    1 << 63,
    u64::MAX,
];

#[test]
fn every_field_at_its_borders() {
    let machine = Fixture::new();
    for mode in MODES {
        for field in FIELDS {
            for value in BORDERS {
                let mut vmcs = sound(mode);
                set(&mut vmcs, field, value);
                agree(&machine, &vmcs, &format!("{mode:?} {} {value:#x}", field.name));
            }
        }
    }
}

/// Exceptions with and without an error code, and what is none.
const VECTORS: [u32; 14] = [0, 1, 2, 3, 8, 9, 13, 14, 17, 18, 21, 31, 32, 0xff];

#[test]
fn every_event_in_every_activity_state() {
    let machine = Fixture::new();
    for (kind, vector, error) in (0..8).flat_map(|kind| {
        VECTORS.into_iter().flat_map(move |vector| [0, 1 << 11].map(|error| (kind, vector, error)))
    }) {
        for (activity, blocking) in
            (0..5).flat_map(|activity| (0..32).map(move |blocking| (activity, blocking)))
        {
            let mut vmcs = sound(Mode::Everything);
            vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 1 << 31 | error | kind << 8 | vector);
            vmcs.write(vmcs::GUEST_ACTIVITY, activity);
            vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, blocking);
            let what = format!("kind {kind} vector {vector} error {error} {activity} {blocking}");
            agree(&machine, &vmcs, &what);
        }
    }
}

#[test]
fn events_on_processors_with_and_without_what_they_need() {
    // Error codes of one's choice, length 0, pending MTF exits.
    for (has_choice, has_length_0, has_trap) in
        (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
    {
        let mut machine = Fixture::new();
        let capability = &mut machine.capability;
        capability.basic = capability.basic & !(1 << 56) | u64::from(has_choice) << 56;
        capability.misc = capability.misc & !(1 << 30) | u64::from(has_length_0) << 30;
        capability.primary.0 = capability.primary.0 & !(1 << 59) | u64::from(has_trap) << 59;
        for (kind, vector, error) in (0..8).flat_map(|kind| {
            VECTORS.into_iter().flat_map(move |vector| [0, 1 << 11].map(|error| (kind, vector, error)))
        }) {
            for length in [0, 1, 15, 16, u32::MAX] {
                let mut vmcs = sound(Mode::Bits64);
                vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 1 << 31 | error | kind << 8 | vector);
                vmcs.write(vmcs::ENTRY_INSTRUCTION_LENGTH, length);
                agree(&machine, &vmcs, &format!("kind {kind} vector {vector} error {error} length {length}"));
            }
        }
    }
}

#[test]
fn every_bit_of_a_32_bit_host() {
    let machine = Fixture { is_ia32e: false, ..Fixture::new() };
    let mut host = sound(Mode::Pae);
    // It loads the state of control-flow enforcement.
    host.write(vmcs::EXIT_CONTROLS, host.read(vmcs::EXIT_CONTROLS) & !(1 << 9) | 1 << 28);
    host.write(vmcs::HOST_RIP, 0x1000);
    host.write(vmcs::HOST_SS_SELECTOR, 0x18);
    assert_eq!(machine.broken_rule(&host), None);
    for field in FIELDS {
        for bit in 0..bits(field) {
            let mut vmcs = host.clone();
            let value = get(&vmcs, field) ^ 1 << bit;
            set(&mut vmcs, field, value);
            agree(&machine, &vmcs, &format!("{} {value:#x}", field.name));
        }
    }
}

#[test]
fn a_host_enforces_control_flow_with_write_protection_alone() {
    let machine = Fixture::new();
    let without = Some("host control-flow enforcement needs CR0.WP");
    for (has_cet, has_wp, rule) in
        [(false, false, None), (false, true, None), (true, true, None), (true, false, without)]
    {
        let mut vmcs = sound(Mode::Bits64);
        vmcs.write(vmcs::HOST_CR4, vmcs.read(vmcs::HOST_CR4) | u64::from(has_cet) << 23);
        vmcs.write(vmcs::HOST_CR0, vmcs.read(vmcs::HOST_CR0) & !(1 << 16) | u64::from(has_wp) << 16);
        assert_eq!(machine.broken_rule(&vmcs), rule, "{has_cet} {has_wp}");
    }
}

#[test]
fn every_type_and_level_of_a_segment() {
    let machine = Fixture::new();
    let rights = [
        vmcs::GUEST_CS_ACCESS_RIGHTS,
        vmcs::GUEST_SS_ACCESS_RIGHTS,
        vmcs::GUEST_DS_ACCESS_RIGHTS,
        vmcs::GUEST_TR_ACCESS_RIGHTS,
    ];
    for (mode, field) in MODES.into_iter().flat_map(|mode| rights.map(|field| (mode, field))) {
        for (low, level) in (0..0x100).flat_map(|low| (0..4).map(move |level| (low, level))) {
            let mut vmcs = sound(mode);
            vmcs.write(field, vmcs.read(field) & !0xff | low);
            vmcs.write(vmcs::GUEST_SS_SELECTOR, 0x18 | level);
            vmcs.write(vmcs::GUEST_CS_SELECTOR, 0x10 | level);
            vmcs.write(vmcs::GUEST_DS_SELECTOR, 0x18 | level);
            agree(&machine, &vmcs, &format!("{mode:?} {field:?} {low:#x} {level}"));
        }
    }
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(MODES.to_vec())
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(BORDERS.to_vec()),
        (0_u32..64).prop_map(|bit| 1 << bit),
        any::<u64>(),
        (0_u64..0x1_0000),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn control_bits_in_random_sets(
        mode in any_mode(),
        is_ia32e in prop::bool::weighted(0.9),
        flips in prop::collection::vec((0_usize..5, 0_u32..32), 1..8),
    ) {
        let machine = Fixture { is_ia32e, ..Fixture::new() };
        let words = [
            vmcs::PIN_BASED_CONTROLS,
            vmcs::PRIMARY_CONTROLS,
            vmcs::SECONDARY_CONTROLS,
            vmcs::EXIT_CONTROLS,
            vmcs::ENTRY_CONTROLS,
        ];
        let mut vmcs = sound(mode);
        for &(word, bit) in &flips {
            vmcs.write(words[word], vmcs.read(words[word]) ^ 1 << bit);
        }
        agree(&machine, &vmcs, &format!("{mode:?} {flips:?}"));
    }

    #[test]
    fn fields_in_random_sets(
        mode in any_mode(),
        flips in prop::collection::vec((0..FIELDS.len(), any_value(), any::<bool>()), 1..6),
    ) {
        let machine = Fixture::new();
        let mut vmcs = sound(mode);
        for &(index, value, is_flip) in &flips {
            let old = if is_flip { get(&vmcs, &FIELDS[index]) } else { 0 };
            set(&mut vmcs, &FIELDS[index], old ^ value);
        }
        agree(&machine, &vmcs, &format!("{mode:?} {flips:?}"));
    }

    #[test]
    fn processors_that_have_less(
        mode in any_mode(),
        basic in any::<bool>(),
        narrow in prop::array::uniform5(any::<u32>()),
        flips in prop::collection::vec((0..FIELDS.len(), any_value()), 0..3),
    ) {
        let mut machine = Fixture::new();
        let capability = &mut machine.capability;
        let words = [
            &mut capability.pin_based,
            &mut capability.primary,
            &mut capability.secondary,
            &mut capability.exit,
            &mut capability.entry,
        ];
        for (word, narrow) in words.into_iter().zip(narrow) {
            word.0 &= u64::from(narrow | narrow.rotate_left(7) | narrow.rotate_left(13)) << 32 | 0xffff_ffff;
        }
        capability.basic |= u64::from(basic) << 56;
        let mut vmcs = sound(mode);
        for &(index, value) in &flips {
            set(&mut vmcs, &FIELDS[index], value);
        }
        agree(&machine, &vmcs, &format!("{mode:?} {flips:?}"));
    }
}
