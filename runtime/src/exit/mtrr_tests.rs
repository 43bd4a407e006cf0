//! What a processor accepts and refuses, and when memory types follow.

use super::{Effect, Register, VirtualMtrrs, decode};
use hw::GeneralProtection;
use hw::sim::SimMsrs;
use platform::mtrr_map::{Mtrrs, TypeMap, VARIABLE_CAPACITY};
use proptest::prelude::*;
use x86::msr::Msr;
use x86::mtrr::{FIXED, MemoryType};

const DEF_TYPE: Msr = Msr::IA32_MTRR_DEF_TYPE;
const BASE0: Msr = Msr(0x200);
const MASK0: Msr = Msr(0x201);
const FIXED0: Msr = Msr::IA32_MTRR_FIX64K_00000;
const REFUSED: Result<Effect, GeneralProtection> = Err(GeneralProtection);

/// As SeaBIOS leaves them on a machine with 1 GiB: 8 pairs, all features, 40 address bits.
fn firmware() -> VirtualMtrrs {
    with_capabilities(0x1d08)
}

fn with_capabilities(capabilities: u64) -> VirtualMtrrs {
    let pairs = (0x200..0x210).map(|msr| (Msr(msr), 0));
    let fixed = FIXED.map(|register| (register.msr, 0x0606_0606_0606_0606));
    let msrs = SimMsrs::new(pairs.chain(fixed));
    msrs.set(Msr::IA32_MTRRCAP, capabilities);
    msrs.set(DEF_TYPE, 0xc06);
    msrs.set(BASE0, 0xc000_0000);
    msrs.set(MASK0, 0xff_c000_0800);
    VirtualMtrrs::from_hardware(&msrs, 40)
}

fn map_of(registers: &Mtrrs) -> TypeMap {
    let mut map = TypeMap::disabled(registers.physical_address_bits);
    map.set(registers);
    map
}

#[test]
fn the_guest_starts_with_the_firmware_s_values_but_the_hidden() {
    let mtrrs = firmware();
    assert_eq!(mtrrs.read(Msr::IA32_MTRRCAP), Ok(0x508));
    assert_eq!(mtrrs.read(DEF_TYPE), Ok(0xc06));
    assert_eq!((mtrrs.read(BASE0), mtrrs.read(MASK0)), (Ok(0xc000_0000), Ok(0xff_c000_0800)));
    assert_eq!(mtrrs.read(Msr::IA32_MTRR_FIX4K_F8000), Ok(0x0606_0606_0606_0606));
    assert_eq!(mtrrs.registers().type_at(0xc000_0000), MemoryType::Uncacheable);
    assert_eq!(mtrrs.registers().type_at(0x10_0000), MemoryType::WriteBack);
}

#[test]
fn every_number_is_the_register_that_the_manual_names() {
    let known: Vec<u32> = (0..0x1_0000).filter(|&number| VirtualMtrrs::covers(Msr(number))).collect();
    assert_eq!(known.len(), 2 + FIXED.len() + 2 * VARIABLE_CAPACITY);
    for (index, register) in FIXED.iter().enumerate() {
        assert_eq!(decode(register.msr), Some(Register::Fixed(index)));
    }
    assert_eq!((decode(Msr(0x200)), decode(Msr(0x201))), (Some(Register::Base(0)), Some(Register::Mask(0))));
    assert_eq!(decode(Msr(0x213)), Some(Register::Mask(9)));
    assert!(!VirtualMtrrs::covers(Msr::IA32_PAT));
}

#[test]
fn registers_that_the_processor_does_not_have_fault() {
    let mut mtrrs = firmware();
    for number in [0x210, 0x211, 0x24f, 0x251, 0x277] {
        assert_eq!(mtrrs.read(Msr(number)), Err(GeneralProtection));
        assert_eq!(mtrrs.write(Msr(number), 0), REFUSED);
    }
    assert_eq!(mtrrs.write(Msr::IA32_MTRRCAP, 0x508), REFUSED);

    let mut bare = with_capabilities(0x002);
    assert_eq!(bare.read(FIXED0), Err(GeneralProtection));
    assert_eq!(bare.write(FIXED0, 0), REFUSED);
    assert_eq!(bare.write(Msr(0x204), 0), REFUSED);
    assert_eq!(bare.write(DEF_TYPE, 0xc06), REFUSED);
    assert_eq!(bare.write(BASE0, 1), REFUSED);
    assert_eq!(bare.write(DEF_TYPE, 0x806), Ok(Effect::Types));
}

#[test]
fn reserved_bits_and_types_fault_and_leave_the_register() {
    let mut mtrrs = firmware();
    let refused = [
        (DEF_TYPE, 0x1c06),
        (DEF_TYPE, 0xd06),
        (DEF_TYPE, 0xe06),
        (DEF_TYPE, 0xc02),
        (DEF_TYPE, 0xc07),
        (DEF_TYPE, 1 << 63 | 0xc06),
        (BASE0, 0x100),
        (BASE0, 0x800),
        (BASE0, 3),
        (BASE0, 1 << 40 | 6),
        (MASK0, 0x1),
        (MASK0, 0x400),
        (MASK0, 1 << 40 | 0x800),
        (MASK0, 1 << 63),
        (FIXED0, 0x0600_0000_0000_0002),
        (FIXED0, 0x0700_0000_0000_0000),
    ];
    for (msr, value) in refused {
        let before = mtrrs.read(msr);
        assert_eq!(mtrrs.write(msr, value), REFUSED, "{msr:?} {value:#x}");
        assert_eq!(mtrrs.read(msr), before);
    }
    for (msr, value) in [(BASE0, 0xff_ffff_f006), (MASK0, 0xff_ffff_f800), (FIXED0, 0x0605_0401_0006_0504)] {
        assert_eq!(mtrrs.write(msr, value), Ok(Effect::Types), "{msr:?} {value:#x}");
        assert_eq!(mtrrs.read(msr), Ok(value));
    }
}

#[test]
fn types_follow_when_mtrrs_are_enabled_again() {
    let mut mtrrs = firmware();
    assert_eq!(mtrrs.write(DEF_TYPE, 0x406), Ok(Effect::Unchanged));
    assert_eq!(mtrrs.write(BASE0, 0x8000_0001), Ok(Effect::Unchanged));
    assert_eq!(mtrrs.write(DEF_TYPE, 0xc06), Ok(Effect::Types));
    assert_eq!(mtrrs.registers().type_at(0x8000_0000), MemoryType::WriteCombining);
}

#[test]
fn writing_what_is_there_changes_nothing() {
    let mut mtrrs = firmware();
    assert_eq!(mtrrs.write(BASE0, 0xc000_0000), Ok(Effect::Unchanged));
    assert_eq!(mtrrs.write(DEF_TYPE, 0xc06), Ok(Effect::Unchanged));
}

#[test]
fn a_processor_without_mtrrs_has_none() {
    let mtrrs = VirtualMtrrs::from_hardware(&SimMsrs::default(), 36);
    assert_eq!(mtrrs.registers().type_at(0), MemoryType::Uncacheable);
    assert_eq!(mtrrs.read(BASE0), Err(GeneralProtection));
}

proptest! {
    #[test]
    fn what_is_accepted_reads_back_and_what_is_not_leaves_no_trace(
        writes in prop::collection::vec((0x1f0_u32..0x300, any::<u64>(), any::<u64>()), 0..60),
    ) {
        let mut mtrrs = firmware();
        for (number, value, mask) in writes {
            let (msr, value) = (Msr(number), value & mask & 0xff_ffff_ff07);
            let before = mtrrs.registers().clone();
            let types = map_of(&before);
            match mtrrs.write(msr, value) {
                Ok(effect) => {
                    prop_assert_eq!(mtrrs.read(msr), Ok(value));
                    let differs = types.changes(&map_of(mtrrs.registers())).is_none_or(|c| !c.is_empty());
                    let is_enabled = mtrrs.registers().default_type.is_enabled();
                    prop_assert!(!differs || !is_enabled || effect == Effect::Types);
                }
                Err(GeneralProtection) => prop_assert_eq!(mtrrs.registers(), &before),
            }
        }
    }
}
