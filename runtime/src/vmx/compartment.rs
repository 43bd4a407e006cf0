//! In and out of a compartment: what of the processor's state a compartment's software is given, and what of the
//! guest's is put aside meanwhile.
//!
//! UNSAFETY: the current VMCS, while an exit is handled.
#![expect(unsafe_code, reason = "current VMCS")]

use crate::memory::compartment_tables::Roots;
use crate::smp::percpu::{self, PerCpu};
use crate::vendor::Outside;
use crate::vmx::controls::Controls;
use crate::vmx::observers::{Values, observers};
use crate::vmx::{invalidate, nested, switch, watch};
use hw::bare::Processor;
use hw::bare::processor::time_stamp;
use hw::bare::vmx::{self, CurrentVmcs};
use hw::{Msrs, Vmcs};
use spin::Once;
use static_assertions::const_assert;
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::debug::DR7_RESET;
use x86::msr::Msr;
use x86::segment::AccessRights;
use x86::vmx::capability::{Allowed, EptVpidCapability, VmxBasic};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::ept::EptPointer;
use x86::vmx::interruption::Interruptibility;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

/// What stays of CR4: how addresses are translated. Without the other bits vector, protection-key and
/// performance-counter instructions are undefined, and so are those that write FS and GS bases.
const CR4_KEPT: Cr4 = Cr4::PSE.union(Cr4::PAE).union(Cr4::MCE).union(Cr4::VMXE).union(Cr4::LA57);
/// Makes x87 instructions fault, and SSE ones undefined.
const CR0_SET: Cr0 = Cr0::EM.union(Cr0::MP).union(Cr0::TS);
const ALL_EXCEPTIONS: u32 = !0;
/// A data segment over the whole address space: writable, 32-bit, of CPL 3.
const FLAT: u32 = 0xc0f3;
const SHIFT_MASK: u64 = 0x1f;

/// 64-bit fields that are put aside and come back as they were.
const WIDE: [Field<u64>; 16] = [
    vmcs::GUEST_CR0,
    vmcs::GUEST_CR3,
    vmcs::GUEST_CR4,
    vmcs::GUEST_EFER,
    vmcs::GUEST_DR7,
    vmcs::GUEST_DEBUGCTL,
    vmcs::GUEST_PDPTE0,
    vmcs::GUEST_PDPTE1,
    vmcs::GUEST_PDPTE2,
    vmcs::GUEST_PDPTE3,
    vmcs::GUEST_DS_BASE,
    vmcs::GUEST_ES_BASE,
    vmcs::GUEST_SS_BASE,
    vmcs::GUEST_FS_BASE,
    vmcs::GUEST_GS_BASE,
    vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS,
];
/// The same of 32 bits.
const NARROW: [Field<u32>; 18] = [
    vmcs::GUEST_SYSENTER_CS,
    vmcs::GUEST_GDTR_LIMIT,
    vmcs::GUEST_IDTR_LIMIT,
    vmcs::GUEST_LDTR_ACCESS_RIGHTS,
    vmcs::GUEST_TR_LIMIT,
    vmcs::GUEST_TR_ACCESS_RIGHTS,
    vmcs::GUEST_DS_LIMIT,
    vmcs::GUEST_ES_LIMIT,
    vmcs::GUEST_SS_LIMIT,
    vmcs::GUEST_FS_LIMIT,
    vmcs::GUEST_GS_LIMIT,
    vmcs::GUEST_DS_ACCESS_RIGHTS,
    vmcs::GUEST_ES_ACCESS_RIGHTS,
    vmcs::GUEST_SS_ACCESS_RIGHTS,
    vmcs::GUEST_FS_ACCESS_RIGHTS,
    vmcs::GUEST_GS_ACCESS_RIGHTS,
    vmcs::GUEST_INTERRUPTIBILITY,
    vmcs::EXCEPTION_BITMAP,
];
/// The same, by which the processor acts on the hypervisor.
const TRUSTED_WIDE: [TrustedField<u64>; 1] = [vmcs::EPT_POINTER];
const TRUSTED_NARROW: [TrustedField<u32>; 2] = [vmcs::PIN_BASED_CONTROLS, vmcs::EXIT_CONTROLS];
/// Limits and rights of the data segments.
const DATA_SEGMENTS: [(Field<u32>, Field<u32>); 5] = [
    (vmcs::GUEST_DS_LIMIT, vmcs::GUEST_DS_ACCESS_RIGHTS),
    (vmcs::GUEST_ES_LIMIT, vmcs::GUEST_ES_ACCESS_RIGHTS),
    (vmcs::GUEST_SS_LIMIT, vmcs::GUEST_SS_ACCESS_RIGHTS),
    (vmcs::GUEST_FS_LIMIT, vmcs::GUEST_FS_ACCESS_RIGHTS),
    (vmcs::GUEST_GS_LIMIT, vmcs::GUEST_GS_ACCESS_RIGHTS),
];
const SELECTORS: [Field<u16>; 4] =
    [vmcs::GUEST_DS_SELECTOR, vmcs::GUEST_ES_SELECTOR, vmcs::GUEST_FS_SELECTOR, vmcs::GUEST_GS_SELECTOR];

/// Where the parts of [`Outside`] begin: fields of 64 bits, of 32, the trusted ones of both, selectors, what counts and
/// records, which is off in the compartment (tracing is never the guest's), and what a hypervisor in the guest asked for
/// of its own guest.
const NARROW_AT: usize = WIDE.len();
const TRUSTED_WIDE_AT: usize = NARROW_AT + NARROW.len();
const TRUSTED_NARROW_AT: usize = TRUSTED_WIDE_AT + TRUSTED_WIDE.len();
const SELECTORS_AT: usize = TRUSTED_NARROW_AT + TRUSTED_NARROW.len();
const OBSERVERS_AT: usize = SELECTORS_AT + SELECTORS.len();
const L1_AT: usize = OBSERVERS_AT + size_of::<Values>() / size_of::<u64>();
/// Whether the rest is there; time when the compartment was entered, as the VMX-preemption timer goes on meanwhile.
const L1_WORDS: usize = 2 + OF_L1.len();
const_assert!(L1_AT + L1_WORDS <= Outside::WORDS);

/// Controls that are put aside beside [`NARROW`] where the guest is a hypervisor's.
const OF_L1: [TrustedField<u32>; 5] = [
    vmcs::PRIMARY_CONTROLS,
    vmcs::SECONDARY_CONTROLS,
    vmcs::PAGE_FAULT_ERROR_CODE_MASK.trusted(),
    vmcs::PAGE_FAULT_ERROR_CODE_MATCH.trusted(),
    vmcs::PREEMPTION_TIMER.trusted(),
];

/// What this processor has to end a compartment's time slice with.
struct CompartmentFeatures {
    /// The VMX-preemption timer counts every so many ticks, as a power of two; `None` without the timer.
    timer_shift: Option<u32>,
    has_single_invept: bool,
}

static FEATURES: Once<CompartmentFeatures> = Once::new();

/// Finds out what there is, before a guest can change what the processor says of itself.
pub(super) fn prepare() {
    FEATURES.call_once(find_features);
}

fn features() -> &'static CompartmentFeatures {
    match FEATURES.get() {
        Some(features) => features,
        None => unreachable!("the boot prepares compartments"),
    }
}

/// Puts the guest's processor aside and has it run in the compartment under `roots` for at most `ticks`: without
/// interrupts, system calls, vector registers, breakpoints, or any descriptor table, and with flat segments. Every
/// exception exits.
///
/// RIP, RSP and the general registers are the caller's to set.
pub(super) fn enter(roots: &Roots, ticks: u64) {
    let cpu = percpu::current();
    cpu.require_guest();
    // SAFETY: this CPU has a guest, and hypapps run while an exit of its is handled: its VMCS is current.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    let features = features();
    let l0 = nested::controls_of_compartment(cpu);
    if l0.is_none() {
        hold_nmi_window(&mut vmcs);
    }
    watch::hold_watched_events(&mut vmcs, cpu);
    let mut outside = cpu.outside.lock();
    // The guest's own values first: two of its control words are replaced by what follows.
    put_aside(&mut vmcs, &mut outside.0);
    outside.0[L1_AT] = 0;
    if let Some(l0) = l0 {
        put_l1_aside(&mut vmcs, &l0, &mut outside.0[L1_AT..]);
    }
    drop(outside);

    let cr0 = Cr0::from_bits_retain(vmcs.read(vmcs::GUEST_CR0));
    let cr4 = Cr4::from_bits_retain(vmcs.read(vmcs::GUEST_CR4));
    let efer = Efer::from_bits_retain(vmcs.read(vmcs::GUEST_EFER));
    vmcs.write(vmcs::GUEST_CR0, ((cr0 - Cr0::AM) | CR0_SET).bits());
    vmcs.write(vmcs::GUEST_CR3, roots.cr3);
    vmcs.write(vmcs::GUEST_CR4, (cr4 & CR4_KEPT).bits());
    vmcs.write(vmcs::GUEST_EFER, (efer - Efer::SCE).bits());
    vmcs.write(vmcs::GUEST_DR7, DR7_RESET);
    vmcs.write(vmcs::GUEST_DEBUGCTL, 0);
    let [pdpte0, pdpte1, pdpte2, pdpte3] = roots.pdptes;
    vmcs.write(vmcs::GUEST_PDPTE0, pdpte0);
    vmcs.write(vmcs::GUEST_PDPTE1, pdpte1);
    vmcs.write(vmcs::GUEST_PDPTE2, pdpte2);
    vmcs.write(vmcs::GUEST_PDPTE3, pdpte3);
    // SAFETY: the compartment's tables, which hold its pages alone.
    unsafe { vmcs.write_trusted(vmcs::EPT_POINTER, EptPointer::new(roots.second_level.table()).0) }
    vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    vmcs.write(vmcs::GUEST_SYSENTER_CS, 0);
    vmcs.write(vmcs::GUEST_GDTR_LIMIT, 0);
    vmcs.write(vmcs::GUEST_IDTR_LIMIT, 0);
    vmcs.write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, AccessRights::UNUSABLE.bits());
    // Too short for ports to be allowed, in bytes.
    let task = AccessRights::from_bits_retain(vmcs.read(vmcs::GUEST_TR_ACCESS_RIGHTS));
    vmcs.write(vmcs::GUEST_TR_ACCESS_RIGHTS, (task - AccessRights::G).bits());
    vmcs.write(vmcs::GUEST_TR_LIMIT, 0);
    let state = Interruptibility::from_bits_retain(vmcs.read(vmcs::GUEST_INTERRUPTIBILITY));
    vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, (state & Interruptibility::BLOCKING_BY_NMI).bits());
    flatten_segments(&mut vmcs);
    vmcs.write(vmcs::EXCEPTION_BITMAP, ALL_EXCEPTIONS);
    // After the controls are what they are to be: the timer adds to them.
    let rflags = start_timer(&mut vmcs, features, ticks);
    vmcs.write(vmcs::GUEST_RFLAGS, rflags.bits());
    // From here on exits are the compartment's.
    cpu.set_in_compartment(true);
}

/// Gives the guest its processor back, but for RIP, RSP and the general registers.
pub(super) fn leave() {
    let cpu = percpu::current();
    cpu.require_guest();
    // SAFETY: as above.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    let outside = cpu.outside.lock();
    let words = &outside.0;
    write_all(&mut vmcs, WIDE, words);
    write_all(&mut vmcs, NARROW, &words[NARROW_AT..]);
    write_all(&mut vmcs, SELECTORS, &words[SELECTORS_AT..]);
    // SAFETY: what `enter` found there.
    unsafe {
        write_all_trusted(&mut vmcs, TRUSTED_WIDE, &words[TRUSTED_WIDE_AT..]);
    }
    // SAFETY: as above.
    unsafe {
        write_all_trusted(&mut vmcs, TRUSTED_NARROW, &words[TRUSTED_NARROW_AT..]);
    }
    let mut observed = Values::default();
    observed.copy_from_slice(&words[OBSERVERS_AT..L1_AT]);
    observers().give_back(&mut vmcs, &Processor, observed);
    // Before `follow`, which leaves a compartment's tables alone.
    cpu.set_in_compartment(false);
    if let [1, since, controls @ ..] = &words[L1_AT..] {
        // After the pin-based controls are back, which say whether L1's timer runs.
        give_l1_back(&mut vmcs, *since, controls);
        nested::follow(cpu);
    }
    // After all controls are back.
    watch::give_watched_events_back(&mut vmcs, cpu);
    // An NMI of the guest's may have waited.
    cpu.demand_attention();
}

/// Has the guest of `cpu`, which is in its compartment, come back to the tables of `pointer`.
pub(super) fn put_tables_aside(cpu: &PerCpu, pointer: EptPointer) {
    cpu.outside.lock().0[TRUSTED_WIDE_AT] = pointer.0;
}

/// Drops this CPU's translations of the compartment under `roots`.
pub(super) fn forget_translations(roots: &Roots) {
    percpu::current().require_guest();
    let features = features();
    if !features.has_single_invept {
        return invalidate::all_guest_physical();
    }
    // SAFETY: this CPU is in VMX root operation, and has the instruction's type.
    if unsafe { vmx::invept_single(EptPointer::new(roots.second_level.table()).0) }.is_err() {
        panic!("INVEPT failed");
    }
}

/// An NMI that waits until the guest can take one waits on until the guest is back.
fn hold_nmi_window(vmcs: &mut CurrentVmcs) {
    let controls = PrimaryControls::from_bits_retain(vmcs.read(vmcs::PRIMARY_CONTROLS));
    if controls.contains(PrimaryControls::NMI_WINDOW_EXITING) {
        switch::primary(vmcs, PrimaryControls::NMI_WINDOW_EXITING, false);
        percpu::current().keep_guest_nmi();
    }
}

fn put_aside(vmcs: &mut CurrentVmcs, words: &mut [u64; Outside::WORDS]) {
    let observed = observers().put_aside(vmcs, &Processor);
    read_all(vmcs, WIDE, words);
    read_all(vmcs, NARROW, &mut words[NARROW_AT..]);
    read_all(vmcs, TRUSTED_WIDE, &mut words[TRUSTED_WIDE_AT..]);
    read_all(vmcs, TRUSTED_NARROW, &mut words[TRUSTED_NARROW_AT..]);
    read_all(vmcs, SELECTORS, &mut words[SELECTORS_AT..]);
    words[OBSERVERS_AT..L1_AT].copy_from_slice(&observed);
}

#[inline(always)]
fn read_all<T: FieldValue, const N: usize, const IS_TRUSTED: bool>(
    vmcs: &CurrentVmcs,
    fields: [Field<T, IS_TRUSTED>; N],
    words: &mut [u64],
) {
    // Read at once, so that the encodings are constants of the code.
    let values = fields.map(|field| vmcs.read(field).to_u64());
    if let Some(words) = words.first_chunk_mut() {
        *words = values;
    }
}

#[inline(always)]
fn write_all<T: FieldValue, const N: usize>(vmcs: &mut CurrentVmcs, fields: [Field<T>; N], words: &[u64]) {
    if let Some(words) = words.first_chunk::<N>() {
        for (field, word) in fields.into_iter().zip(words) {
            vmcs.write(field, T::from_u64(*word));
        }
    }
}

/// # Safety
///
/// The processor ran a guest with these `words` in these `fields` before.
#[inline(always)]
unsafe fn write_all_trusted<T: FieldValue, const N: usize>(
    vmcs: &mut CurrentVmcs,
    fields: [TrustedField<T>; N],
    words: &[u64],
) {
    if let Some(words) = words.first_chunk::<N>() {
        for (field, word) in fields.into_iter().zip(words) {
            // SAFETY: by the caller's duty.
            unsafe { vmcs.write_trusted(field, T::from_u64(*word)) }
        }
    }
}

/// What the guest put into its segment registers moves nothing of what runs in the compartment.
fn flatten_segments(vmcs: &mut CurrentVmcs) {
    vmcs.write(vmcs::GUEST_FS_BASE, 0);
    vmcs.write(vmcs::GUEST_GS_BASE, 0);
    let code = AccessRights::from_bits_retain(vmcs.read(vmcs::GUEST_CS_ACCESS_RIGHTS));
    if code.contains(AccessRights::L) {
        // The others have no base and no limit.
        return;
    }
    for base in [vmcs::GUEST_DS_BASE, vmcs::GUEST_ES_BASE, vmcs::GUEST_SS_BASE] {
        vmcs.write(base, 0);
    }
    for (limit, rights) in DATA_SEGMENTS {
        vmcs.write(limit, u32::MAX);
        vmcs.write(rights, FLAT);
    }
}

/// Replaces the controls of a hypervisor in the guest by those under which that runs itself: what it asked for
/// waits, its interrupts as long as the compartment's time lasts.
fn put_l1_aside(vmcs: &mut CurrentVmcs, l0: &Controls, words: &mut [u64]) {
    let controls = OF_L1.map(|field| vmcs.read(field));
    let [primary, secondary, ..] = controls;
    let kept = [1, time_stamp()].into_iter().chain(controls.map(u64::from));
    words.iter_mut().zip(kept).for_each(|(word, value)| *word = value);
    // How time passes is no control of exits.
    let primary = PrimaryControls::from_bits_retain(primary) & PrimaryControls::USE_TSC_OFFSETTING;
    let secondary = SecondaryControls::from_bits_retain(secondary) & SecondaryControls::USE_TSC_SCALING;
    for (field, controls) in [
        (vmcs::PIN_BASED_CONTROLS, l0.pin_based.bits()),
        (vmcs::PRIMARY_CONTROLS, (l0.primary | primary).bits()),
        (vmcs::SECONDARY_CONTROLS, (l0.secondary | secondary).bits()),
        (vmcs::EXIT_CONTROLS, l0.exit.bits()),
    ] {
        // SAFETY: as L1 itself runs.
        unsafe { vmcs.write_trusted(field, controls) }
    }
    // Every page fault is the compartment's.
    vmcs.write(vmcs::PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.write(vmcs::PAGE_FAULT_ERROR_CODE_MATCH, 0);
}

fn give_l1_back(vmcs: &mut CurrentVmcs, since: u64, controls: &[u64]) {
    // SAFETY: what `put_l1_aside` found there.
    unsafe { write_all_trusted(vmcs, OF_L1, controls) };
    let pins = PinBasedControls::from_bits_retain(vmcs.read(vmcs::PIN_BASED_CONTROLS));
    if pins.contains(PinBasedControls::PREEMPTION_TIMER) {
        let shift = features().timer_shift.unwrap_or(0);
        let elapsed = time_stamp().wrapping_sub(since) >> shift;
        // What it was set to when it was put aside, a moment ago.
        let left = vmcs.read(vmcs::PREEMPTION_TIMER);
        vmcs.write(vmcs::PREEMPTION_TIMER, left.saturating_sub(u32::try_from(elapsed).unwrap_or(u32::MAX)));
    }
}

/// Limits the time in the compartment; gives the flags to run it with. Interrupts wait, where there is the timer; else
/// the first one ends the slice, which needs RFLAGS.IF as little as ever, but some emulators look at it.
fn start_timer(vmcs: &mut CurrentVmcs, features: &CompartmentFeatures, ticks: u64) -> Rflags {
    let Some(shift) = features.timer_shift else {
        switch::pin_based(vmcs, PinBasedControls::EXTERNAL_INTERRUPT_EXITING, true);
        return Rflags::from_bits_retain(2) | Rflags::IF;
    };
    switch::pin_based(vmcs, PinBasedControls::PREEMPTION_TIMER, true);
    // Saved at exits, so that exits do not buy time.
    switch::exit(vmcs, ExitControls::SAVE_PREEMPTION_TIMER, true);
    vmcs.write(vmcs::PREEMPTION_TIMER, u32::try_from(ticks >> shift).unwrap_or(u32::MAX));
    Rflags::from_bits_retain(2)
}

fn find_features() -> CompartmentFeatures {
    let read = |msr| Processor.read(msr).unwrap_or(0);
    let has_true_controls = VmxBasic(read(Msr::IA32_VMX_BASIC)).has_true_controls();
    let choose = |plain, precise| Allowed(read(if has_true_controls { precise } else { plain }));
    let pins = choose(Msr::IA32_VMX_PINBASED_CTLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS);
    let exits = choose(Msr::IA32_VMX_EXIT_CTLS, Msr::IA32_VMX_TRUE_EXIT_CTLS);
    let has_timer = pins.may_be_one() & PinBasedControls::PREEMPTION_TIMER.bits() != 0
        && exits.may_be_one() & ExitControls::SAVE_PREEMPTION_TIMER.bits() != 0;
    let shift = u32::try_from(read(Msr::IA32_VMX_MISC) & SHIFT_MASK).unwrap_or(0);
    let ept = EptVpidCapability::from_bits_retain(read(Msr::IA32_VMX_EPT_VPID_CAP));
    CompartmentFeatures {
        timer_shift: has_timer.then_some(shift),
        has_single_invept: ept.contains(EptVpidCapability::INVEPT_SINGLE),
    }
}
