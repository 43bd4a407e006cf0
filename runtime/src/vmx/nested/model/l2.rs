//! What L2 runs with after an entry, and what an exit saves of it (SDM, "Loading Guest State"; "Saving Guest State";
//! "Recording VM-Exit Information and Updating VM-entry Control Fields").

use super::bytes::Bytes;
use crate::vmx::controls::Controls;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::entry::checks::fixture::hardware;
use crate::vmx::observers::Observers;
use hw::sim::{SimMsrs, SimVmcs};
use std::collections::BTreeMap;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, FIELDS, Group};

/// Fields by encoding.
pub(super) type Fields = BTreeMap<u32, u64>;

/// CR0.NW and CR0.CD, which neither entries nor exits load.
const CACHE_BITS: u64 = 3 << 29;
const PIN: u32 = 0x4000;
const PRIMARY: u32 = 0x4002;
const CR3_TARGET_COUNT: u32 = 0x400a;
const EXIT: u32 = 0x400c;
const ENTRY: u32 = 0x4012;
const INJECTION: u32 = 0x4016;
const SECONDARY: u32 = 0x401e;
const ACTIVITY: u32 = 0x4826;
const EXIT_REASON: u32 = 0x4402;
const INTERRUPTION: u32 = 0x4404;
const INTERRUPTION_CODE: u32 = 0x4406;
const VECTORING: u32 = 0x4408;
const VECTORING_CODE: u32 = 0x440a;
const LENGTH: u32 = 0x440c;
const INSTRUCTION: u32 = 0x440e;
const PHYSICAL_ADDRESS: u32 = 0x2400;
const QUALIFICATION: u32 = 0x6400;
const LINEAR_ADDRESS: u32 = 0x640a;
const PDPTES: [u32; 4] = [0x280a, 0x280c, 0x280e, 0x2810];
const INTERRUPT_STATUS: u32 = 0x0810;
const TIMER: u32 = 0x482e;
const CR0: u32 = 0x6800;
const CR4: u32 = 0x6804;
const DR7: u32 = 0x681a;
const DEBUGCTL: u32 = 0x2802;
const PAT: u32 = 0x2804;
const EFER: u32 = 0x2806;
/// Guest fields that are not of the processor's registers or are loaded by other means: link pointer,
/// IA32_PERF_GLOBAL_CTRL, SMBASE, index of the page-modification log; and those that L1 does not have.
const OTHERS: [u32; 8] = [0x2800, 0x2808, 0x4828, 0x0812, 0x2812, 0x2814, 0x2816, 0x2818];

pub(super) fn bit(value: u64, number: u32) -> bool {
    value >> number & 1 == 1
}

pub(super) fn name(encoding: u32) -> &'static str {
    FIELDS.iter().find(|field| field.encoding == encoding).map_or("?", |field| field.name)
}

/// The bits that a field has.
pub(super) fn mask(encoding: u32) -> u64 {
    match encoding >> 13 & 3 {
        0 => 0xffff,
        2 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// CR4 bits of the model's processor that the hypervisor knows, but for SMXE, and for LA57, whose addresses the
/// model's registers do not take.
const CR4_OFFERED: u64 = 0x01f7_2fff | 1 << 19;

/// The bits that the hypervisor owns whatever L1 does: of CR0 the cache bits, of CR4 what is not offered.
pub(super) fn owned(encoding: u32) -> u64 {
    match encoding {
        CR0 => CACHE_BITS,
        CR4 => !CR4_OFFERED,
        _ => 0,
    }
}

/// The hypervisor's own controls on a processor that has everything.
pub(super) fn own() -> Controls {
    Controls::for_processor(&SimMsrs::new(hardware()), &Observers::default()).unwrap()
}

/// `value` as the checks let it pass in a control field, of `mask` bits in any other.
pub(super) fn allowed(encoding: u32, value: u64, capability: &Capability) -> u64 {
    let word = match encoding {
        PIN => capability.pin_based,
        PRIMARY => capability.primary,
        SECONDARY => capability.secondary,
        EXIT => capability.exit,
        ENTRY => capability.entry,
        CR3_TARGET_COUNT => return value % 5,
        _ => return value,
    };
    let value = value as u32 & word.may_be_one() | word.must_be_one();
    value.into()
}

/// What has to be written to the controls before the checks let them pass.
pub(super) fn sound_controls(values: &Fields, capability: &Capability) -> Vec<(u32, u64)> {
    let words = [PIN, PRIMARY, SECONDARY, EXIT, ENTRY];
    let sound = words.map(|word| (word, allowed(word, values[&word], capability)));
    sound.into_iter().filter(|(word, value)| values[word] != *value).collect()
}

/// What an entry may leave as L1 has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InheritedByL2 {
    cr0: u64,
    efer: u64,
    pat: u64,
    dr7: u64,
    debugctl: u64,
}

impl InheritedByL2 {
    pub(super) fn drawn(bytes: &mut Bytes<'_>) -> Self {
        Self {
            cr0: u64::from(bytes.byte() % 4) << 29 | 0x31,
            efer: bytes.one_of(&[0, 1, 0x500, 0xd01]),
            pat: bytes.number(),
            dr7: bytes.number(),
            debugctl: bytes.number(),
        }
    }

    /// Runs L1 with it under `vmcs01`.
    pub(super) fn write_to(&self, vmcs01: &mut SimVmcs) {
        vmcs01.write(vmcs::CR0_READ_SHADOW, self.cr0);
        vmcs01.set_value(EFER, self.efer);
        vmcs01.set_value(PAT, self.pat);
        vmcs01.set_value(DR7, self.dr7);
        vmcs01.set_value(DEBUGCTL, self.debugctl);
    }
}

fn has_secondary(values: &Fields, number: u32) -> bool {
    bit(values[&PRIMARY], 31) && bit(values[&SECONDARY], number)
}

/// PAE paging, which has PDPTEs.
fn has_virtual_nmis(values: &Fields) -> bool {
    bit(values[&PIN], 3) && bit(values[&PIN], 5)
}

fn is_pae(cr0: u64, cr4: u64, is_long: bool) -> bool {
    bit(cr0, 31) && bit(cr4, 5) && !is_long
}

/// The registers of L2 after an entry with `values`; those that are not defined are not there.
pub(super) fn entered(values: &Fields, l1: &InheritedByL2) -> Fields {
    let entry = |number| bit(values[&ENTRY], number);
    let has_pdptes = has_secondary(values, 1) && is_pae(values[&CR0], values[&CR4], entry(9));
    let is_nmi = bit(values[&INJECTION], 31) && values[&INJECTION] >> 8 & 7 == 2;
    let state = FIELDS.iter().filter(|field| field.group() == Group::Guest);
    let mut runs = Fields::new();
    for field in state.map(|field| field.encoding).filter(|encoding| !OTHERS.contains(encoding)) {
        let Some(&value) = values.get(&field) else { continue };
        let value = match field {
            CR0 => value & !CACHE_BITS | l1.cr0 & CACHE_BITS,
            DR7 if !entry(2) => l1.dr7,
            DEBUGCTL if !entry(2) => l1.debugctl,
            PAT if !entry(14) => l1.pat,
            EFER if !entry(15) => {
                let enabled = if bit(values[&CR0], 31) { u64::from(entry(9)) << 8 } else { l1.efer & 1 << 8 };
                l1.efer & !(5 << 8) | u64::from(entry(9)) << 10 | enabled
            }
            // An NMI that blocks none after it is injected as an exception, which wakes nobody by itself.
            ACTIVITY if is_nmi && !has_virtual_nmis(values) => 0,
            INTERRUPT_STATUS if !has_secondary(values, 9) => continue,
            TIMER if !bit(values[&PIN], 6) => continue,
            _ if PDPTES.contains(&field) && !has_pdptes => continue,
            _ => value,
        };
        runs.insert(field, value);
    }
    runs
}

/// An exit saves in `values` what L2 `runs` with.
pub(super) fn save(values: &mut Fields, runs: &Fields) {
    let exit = values[&EXIT];
    let is_long = bit(runs[&EFER], 10);
    let has_ept = has_secondary(values, 1);
    let is_interrupted = has_secondary(values, 9);
    for (&field, &value) in runs {
        let is_saved = match field {
            DR7 | DEBUGCTL => bit(exit, 2),
            PAT => bit(exit, 18),
            EFER => bit(exit, 20),
            TIMER => bit(exit, 22) && bit(values[&PIN], 6),
            INTERRUPT_STATUS => is_interrupted,
            _ => true,
        };
        if is_saved {
            values.insert(field, value);
        }
    }
    let has_pdptes = has_ept && is_pae(runs[&CR0], runs[&CR4], is_long);
    for pdpte in PDPTES.into_iter().filter(|pdpte| has_ept && !(has_pdptes && runs.contains_key(pdpte))) {
        values.remove(&pdpte);
    }
    values.insert(ENTRY, values[&ENTRY] & !(1 << 9) | u64::from(is_long) << 9);
}

/// An exit for `reason` tells in `values` what the hardware tells in `vmcs02`.
pub(super) fn save_exit(values: &mut Fields, vmcs02: &SimVmcs, reason: ExitReason) {
    let told = |encoding| vmcs02.value(encoding);
    values.insert(EXIT_REASON, reason.0.into());
    for always in [QUALIFICATION, LINEAR_ADDRESS, INTERRUPTION, LENGTH, INSTRUCTION] {
        values.insert(always, told(always));
    }
    if reason.0 == 48 {
        // What only advanced VM-exit information tells.
        values.insert(QUALIFICATION, told(QUALIFICATION) & !0xe00);
    }
    // Without virtual NMIs the hardware is told of an exception with vector 2 where L1 injects an NMI.
    let vectoring = told(VECTORING);
    let injects_nmi = bit(values[&INJECTION], 31) && values[&INJECTION] >> 8 & 7 == 2;
    let is_nmi = injects_nmi && bit(vectoring, 31) && vectoring >> 8 & 7 == 3 && vectoring & 0xff == 2;
    values.insert(VECTORING, if is_nmi { 0x8000_0202 } else { vectoring });
    let has_code = |event| bit(event, 31) && bit(event, 11);
    let is_second_level = matches!(reason.0, 48 | 49);
    for (field, is_defined) in [
        (INTERRUPTION_CODE, has_code(told(INTERRUPTION))),
        (VECTORING_CODE, has_code(told(VECTORING))),
        (PHYSICAL_ADDRESS, is_second_level),
    ] {
        if is_defined {
            values.insert(field, told(field));
        } else {
            values.remove(&field);
        }
    }
    values.insert(INJECTION, values[&INJECTION] & !(1 << 31));
}

/// L2 runs with `runs`, and exits to the hypervisor where VMCS12, which has `values`, or the hypervisor wants it.
pub(super) fn assert_runs(vmcs02: &SimVmcs, values: &Fields, runs: &Fields) {
    let has = |encoding| vmcs02.value(encoding);
    for (&field, &value) in runs.iter().filter(|(field, _)| **field != CR0) {
        assert_eq!(has(field), value, "{}", name(field));
    }
    assert_eq!((has(CR0) ^ runs[&CR0]) & !CACHE_BITS, 0, "CR0");
    for (register, mask, shadow) in [(CR0, 0x6000, 0x6004), (CR4, 0x6002, 0x6006)] {
        let seen = |mask: u64, shadow, value| shadow & mask | value & !mask;
        let expected = seen(values[&mask], values[&shadow], runs[&register]);
        assert_eq!(
            seen(has(mask), has(shadow), has(register)),
            expected,
            "what L2 sees of {}",
            name(register)
        );
        assert_eq!(values[&mask] & !has(mask), 0, "{}", name(mask));
    }
    assert_words(vmcs02, values);
    assert_controls(vmcs02, values);
    assert_injection(vmcs02, values);
    assert_kept(vmcs02);
}

/// The control words: L1's, and the hypervisor's.
fn assert_words(vmcs02: &SimVmcs, values: &Fields) {
    let (has, own) = (|encoding| vmcs02.value(encoding), own());
    assert_eq!(has(PIN), values[&PIN] | u64::from(own.pin_based.bits()), "pin-based controls");
    let io_bitmaps = 1 << 25;
    assert_eq!((has(PRIMARY) ^ (values[&PRIMARY] | 1 << 31)) & !io_bitmaps, 0, "primary controls");
    let is_every_port = bit(values[&PRIMARY], 24) && !bit(values[&PRIMARY], 25);
    assert_eq!(bit(has(PRIMARY), 25), !is_every_port, "the hypervisor's ports exit");
    let wanted = if bit(values[&PRIMARY], 31) { values[&SECONDARY] } else { 0 };
    let by_software = 1 << 14 | 1 << 17;
    assert_eq!(has(SECONDARY), wanted & !by_software | 1 << 1 | 1 << 5, "secondary controls");
    let is_timed = u64::from(bit(values[&PIN], 6)) << 22;
    // An interrupt that L1 does not want is not acknowledged.
    let acknowledges = values[&EXIT] & (values[&PIN] & 1) << 15;
    let exit = u64::from(own.exit.bits()) | acknowledges | is_timed;
    assert_eq!(has(EXIT), exit, "VM-exit controls");
    assert_eq!(has(ENTRY), u64::from(own.entry.bits()) | values[&ENTRY] & 1 << 9, "VM-entry controls");
}

/// Controls that hold as L1 has them, where another brings them to life.
fn assert_controls(vmcs02: &SimVmcs, values: &Fields) {
    let secondary = |number| has_secondary(values, number);
    let targets = values[&CR3_TARGET_COUNT];
    for (field, is_alive) in [
        (0x4004, true),
        (0x4006, true),
        (0x4008, true),
        (0x2010, true),
        (CR3_TARGET_COUNT, true),
        (0x401c, bit(values[&PRIMARY], 21)),
        (0x0002, bit(values[&PIN], 7)),
        (0x201c, secondary(9)),
        (0x201e, secondary(9)),
        (0x2020, secondary(9)),
        (0x2022, secondary(9)),
        (0x4020, secondary(10)),
        (0x4022, secondary(10)),
        (0x202e, secondary(15)),
        (0x202c, secondary(20)),
        (0x2032, secondary(25)),
        (0x6008, targets > 0),
        (0x600a, targets > 1),
        (0x600c, targets > 2),
        (0x600e, targets > 3),
    ] {
        assert!(!is_alive || vmcs02.value(field) == values[&field], "{}", name(field));
    }
}

fn assert_injection(vmcs02: &SimVmcs, values: &Fields) {
    let (wanted, injected) = (values[&INJECTION], vmcs02.value(INJECTION));
    if !bit(wanted, 31) {
        return assert!(!bit(injected, 31), "an event out of nothing");
    }
    let is_nmi = wanted >> 8 & 7 == 2;
    // As an exception it blocks no NMIs.
    let expected = if is_nmi && !has_virtual_nmis(values) { 0x8000_0302 } else { wanted };
    assert_eq!(injected, expected, "injected event");
    assert_eq!(vmcs02.value(0x4018), values[&0x4018], "its error code");
    assert_eq!(vmcs02.value(0x401a), values[&0x401a], "its length");
}

/// Addresses, identifiers, MSR areas and host state are the hypervisor's.
fn assert_kept(vmcs02: &SimVmcs) {
    for &(field, _) in vmcs02.writes() {
        let is_address = matches!(field, 0x2000..=0x200e | 0x2012..=0x201a | 0x2024..=0x202a);
        let is_count = matches!(field, 0x400e | 0x4010 | 0x4014 | 0x0000);
        let is_host = field >> 10 & 3 == 3;
        assert!(!is_address && !is_count && !is_host && !OTHERS.contains(&field), "{} written", name(field));
    }
}
