//! Missing entry checks: every control bit of a VM entry alone, and random sets, as the SDM's rules have them.
//! model: corei7_skylake_x
#![no_std]
#![no_main]

use guest::cpu::rdmsr_existing;
use guest::vmx::instruction::{vmread, vmwrite};
use guest::vmx::prelude::*;
use guest::vmx::verdict::{CONTROLS, Entry, HOST_STATE};
use guest::vmx::{Ept, Random, allocate, capability};
use x86::msr::Msr;
use x86::vmx::capability::Allowed;
use x86::vmx::vmcs::TrustedField;

guest!(main);

const SETS: u32 = 2000;
const SECONDARY: usize = 2;
/// The control words in the order of [`Words`], and where their capabilities are.
const FIELDS: [(TrustedField<u32>, Msr, &str); 5] = [
    (vmcs::PIN_BASED_CONTROLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS, "pin-based"),
    (vmcs::PRIMARY_CONTROLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS, "primary"),
    (vmcs::SECONDARY_CONTROLS, Msr::IA32_VMX_PROCBASED_CTLS2, "secondary"),
    (vmcs::EXIT_CONTROLS, Msr::IA32_VMX_TRUE_EXIT_CTLS, "exit"),
    (vmcs::ENTRY_CONTROLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS, "entry"),
];

/// Pin-based, primary, secondary, exit and entry controls.
type Words = [u32; 5];

fn main() {
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(end);
    make_fields_sound(&mut nested, &ept);
    let sound = FIELDS.map(|(field, ..)| nested.read(field));
    let allowed = FIELDS.map(|(_, msr, _)| capability(msr));

    for (word, bit) in (0..5).flat_map(|word| (0..32).map(move |bit| (word, bit))) {
        let mut words = sound;
        words[1] |= 1 << 31 & allowed[1].may_be_one();
        words[word] ^= 1 << bit;
        try_words(&mut nested, &words, &allowed, |got, expected| {
            check_eq!(got, expected, "{} control {bit}", FIELDS[word].2);
        });
    }
    let mut random = Random::new(0x58_4d48_4636);
    for number in 0..SETS {
        let words = random_words(&mut random, &sound, &allowed);
        try_words(&mut nested, &words, &allowed, |got, expected| {
            check!(got == expected, "set {number} {words:x?}: {got:?}, not {expected:?}");
        });
    }
    leave_operation();
}

/// L2: nothing.
extern "C" fn end() {}

/// Every field that a control brings to life has a value that no check minds.
fn make_fields_sound(nested: &mut Guest, ept: &Ept) {
    for field in [
        vmcs::IO_BITMAP_A,
        vmcs::IO_BITMAP_B,
        vmcs::VIRTUAL_APIC_ADDRESS,
        vmcs::APIC_ACCESS_ADDRESS,
        vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
        vmcs::PML_ADDRESS,
        vmcs::VMREAD_BITMAP_ADDRESS,
        vmcs::VMWRITE_BITMAP_ADDRESS,
        vmcs::VIRTUALIZATION_EXCEPTION_ADDRESS,
    ] {
        write_if_there(field.encoding(), allocate());
    }
    let (efer, pat) = (rdmsr_existing(Msr::IA32_EFER), rdmsr_existing(Msr::IA32_PAT));
    for (field, value) in [
        (vmcs::HOST_EFER, efer),
        (vmcs::GUEST_EFER.trusted(), efer),
        (vmcs::HOST_PAT, pat),
        (vmcs::GUEST_PAT.trusted(), pat),
        (vmcs::EPT_POINTER, ept.pointer()),
        (vmcs::TSC_MULTIPLIER.trusted(), 1 << 48),
        (vmcs::TSC_OFFSET.trusted(), 0),
    ] {
        write_if_there(field.encoding(), value);
    }
    for (encoding, value) in [
        (vmcs::VPID.encoding(), 1),
        (vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR.encoding(), 0xf2),
        (vmcs::TPR_THRESHOLD.encoding(), 0),
        (vmcs::PREEMPTION_TIMER.encoding(), 100_000),
    ] {
        write_if_there(encoding, value);
    }
    nested.write(vmcs::CR3_TARGET_COUNT, 0);
}

fn write_if_there(encoding: u32, value: u64) {
    if vmread(encoding.into()).is_ok() {
        check_eq!(vmwrite(encoding.into(), value), Ok(()), "VMWRITE of {encoding:#x}");
    }
}

/// Controls at their least, with some more; now and then one that there is not.
fn random_words(random: &mut Random, sound: &Words, allowed: &[Allowed; 5]) -> Words {
    let mut words = [0; 5];
    for index in 0..5 {
        words[index] = sound[index] | random.sparse() & allowed[index].may_be_one();
    }
    if random.below(8) == 0 {
        words[usize::try_from(random.below(5)).unwrap_or(0)] ^= 1 << random.below(32);
    }
    // A host or a guest of another mode is another guest's business; those of system-management mode were tried.
    words[3] |= sound[3] & 1 << 9;
    words[4] = words[4] & !(3 << 10) | 1 << 9;
    // Bochs looks at posted interrupts in some sets only; alone they were tried too.
    if words[1] >> 31 & words[SECONDARY] >> 9 & 1 == 0 {
        words[0] &= !(1 << 7);
    }
    words
}

fn try_words(nested: &mut Guest, words: &Words, allowed: &[Allowed; 5], judge: impl FnOnce(Entry, Entry)) {
    for (index, (field, ..)) in FIELDS.into_iter().enumerate() {
        nested.write(field, words[index]);
    }
    nested.call(end);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    nested.write(vmcs::GUEST_RFLAGS, 2);
    nested.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0);
    judge(nested.try_entry(), expected(words, allowed));
}

/// What the manual has become of an entry with these controls (SDM, "Checks on VMX Controls").
fn expected(words: &Words, allowed: &[Allowed; 5]) -> Entry {
    let [pin, primary, _, exit, entry] = words.map(|word| move |bit: u32| word >> bit & 1 == 1);
    let has_secondary = primary(31);
    let secondary = |bit: u32| has_secondary && words[SECONDARY] >> bit & 1 == 1;
    let is_allowed = (0..5)
        .filter(|&index| index != SECONDARY || has_secondary)
        .all(|index| allowed[index].allows(words[index]));
    let needs_ept = secondary(7) || secondary(17) || secondary(22) || secondary(23);
    let is_consistent = (primary(21) || !(secondary(4) || secondary(8) || secondary(9)))
        && (pin(3) || !pin(5))
        && (pin(5) || !primary(22))
        && !(secondary(0) && secondary(4))
        && (!secondary(9) || pin(0))
        && (!pin(7) || secondary(9) && exit(15))
        && (secondary(1) || !needs_ept)
        && (pin(6) || !exit(22));
    // System-management mode only.
    let is_outside = !entry(10) && !entry(11);
    if !(is_allowed && is_consistent && is_outside) {
        CONTROLS
    } else if !exit(9) {
        HOST_STATE
    } else if !entry(9) {
        // The tables of four levels are none of PDPTEs.
        Entry::Failed(33, 2)
    } else {
        Entry::Entered
    }
}
