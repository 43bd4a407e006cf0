//! Missing entry checks: fields of the guest state at their borders, as the SDM's rules have them.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr_existing};
use guest::vmx::instruction::vmread;
use guest::vmx::prelude::*;
use guest::vmx::verdict::{Entry, GUEST_STATE, end, restore, try_values};
use guest::vmx::{allocate, capability, revision, write};
use x86::msr::Msr;
use x86::vmx::controls::EntryControls;

guest!(main);

const LINK_FAILED: Entry = Entry::Failed(33, 4);
const ENTERED: Entry = Entry::Entered;
const NOT_CANONICAL: u64 = 0x8000_0000_0000;
const HIGHEST_LOW: u64 = 0x7fff_ffff_ffff;
const LOWEST_HIGH: u64 = 0xffff_8000_0000_0000;

fn main() {
    enter_operation();
    let mut nested = Guest::new(end);
    // Whatever L2 makes of its state, it leaves.
    nested.write(vmcs::EXCEPTION_BITMAP, !0);
    control_registers(&mut nested);
    msrs(&mut nested);
    pointers_and_flags(&mut nested);
    other_state(&mut nested);
    pending_debug_exceptions(&mut nested);
    link_pointer(&mut nested);
    leave_operation();
}

fn physical_address_bits() -> u32 {
    cpuid(0x8000_0008, 0).eax & 0xff
}

fn control_registers(nested: &mut Guest) {
    let (cr0, cr3, cr4) =
        (nested.read(vmcs::GUEST_CR0), nested.read(vmcs::GUEST_CR3), nested.read(vmcs::GUEST_CR4));
    let (pe, ne, pg, cache) = (1, 1 << 5, 1 << 31, 3 << 29);
    try_values(
        nested,
        "CR0",
        vmcs::GUEST_CR0,
        &[
            (cr0 & !pe, GUEST_STATE),
            (cr0 & !ne, GUEST_STATE),
            (cr0 & !pg, GUEST_STATE),
            (cr0 | 1 << 32, GUEST_STATE),
            (cr0 | 1 << 63, GUEST_STATE),
            (cr0 ^ cache, ENTERED),
        ],
    );
    let (pae, vmxe, pcide) = (1 << 5, 1 << 13, 1 << 17);
    try_values(
        nested,
        "CR4",
        vmcs::GUEST_CR4,
        &[
            (cr4 & !vmxe, GUEST_STATE),
            (cr4 & !pae, GUEST_STATE),
            (cr4 | 1 << 15, GUEST_STATE),
            (cr4 | 1 << 63, GUEST_STATE),
            (cr4 | pcide, ENTERED),
        ],
    );
    let width = physical_address_bits();
    try_values(
        nested,
        "CR3",
        vmcs::GUEST_CR3,
        &[
            (cr3 | 1 << width, GUEST_STATE),
            (cr3 | 1 << 52, GUEST_STATE),
            (cr3 | 1 << 63, GUEST_STATE),
            (cr3, ENTERED),
        ],
    );
}

fn msrs(nested: &mut Guest) {
    for (what, field) in [
        ("SYSENTER_ESP", vmcs::GUEST_SYSENTER_ESP),
        ("SYSENTER_EIP", vmcs::GUEST_SYSENTER_EIP),
        ("GDTR base", vmcs::GUEST_GDTR_BASE),
        ("IDTR base", vmcs::GUEST_IDTR_BASE),
        ("FS base", vmcs::GUEST_FS_BASE),
        ("GS base", vmcs::GUEST_GS_BASE),
        ("TR base", vmcs::GUEST_TR_BASE),
    ] {
        try_values(
            nested,
            what,
            field,
            &[
                (NOT_CANONICAL, GUEST_STATE),
                (1 << 63, GUEST_STATE),
                (LOWEST_HIGH - 1, GUEST_STATE),
                (HIGHEST_LOW, ENTERED),
                (LOWEST_HIGH, ENTERED),
            ],
        );
    }
    let efer = rdmsr_existing(Msr::IA32_EFER);
    let (lme, lma) = (1 << 8, 1 << 10);
    with_control(nested, EntryControls::LOAD_EFER, |nested| {
        nested.write(vmcs::GUEST_EFER, efer);
        try_values(
            nested,
            "EFER",
            vmcs::GUEST_EFER,
            &[
                (efer, ENTERED),
                (efer & !lma, GUEST_STATE),
                (efer & !lme, GUEST_STATE),
                (efer | 1 << 1, GUEST_STATE),
                (efer | 1 << 12, GUEST_STATE),
                (efer | 1 << 63, GUEST_STATE),
            ],
        );
    });
    let pat = rdmsr_existing(Msr::IA32_PAT);
    with_control(nested, EntryControls::LOAD_PAT, |nested| {
        nested.write(vmcs::GUEST_PAT, pat);
        try_values(
            nested,
            "PAT",
            vmcs::GUEST_PAT,
            &[
                (pat, ENTERED),
                (pat & !0xff | 2, GUEST_STATE),
                (pat & !0xff | 3, GUEST_STATE),
                (pat & !(0xff << 56) | 8 << 56, GUEST_STATE),
            ],
        );
    });
    with_control(nested, EntryControls::LOAD_DEBUG_CONTROLS, |nested| {
        try_values(nested, "DR7", vmcs::GUEST_DR7, &[(0x400, ENTERED), (1 << 32, GUEST_STATE)]);
        let values = [(2, ENTERED), (1 << 4, GUEST_STATE), (1 << 16, GUEST_STATE), (1 << 63, GUEST_STATE)];
        try_values(nested, "DEBUGCTL", vmcs::GUEST_DEBUGCTL, &values);
    });
}

/// Runs `act` with an entry control set, where the processor has it.
fn with_control(nested: &mut Guest, control: EntryControls, act: impl FnOnce(&mut Guest)) {
    if capability(Msr::IA32_VMX_TRUE_ENTRY_CTLS).may_be_one() & control.bits() == 0 {
        return;
    }
    let old = nested.read(vmcs::ENTRY_CONTROLS);
    nested.write(vmcs::ENTRY_CONTROLS, old | control.bits());
    act(nested);
    nested.write(vmcs::ENTRY_CONTROLS, old);
}

fn pointers_and_flags(nested: &mut Guest) {
    let values = [(1 << 48, GUEST_STATE), (1 << 63, GUEST_STATE), (0xfffe_ffff_ffff_ffff, GUEST_STATE)];
    try_values(nested, "RIP", vmcs::GUEST_RIP, &values);
    try_values(
        nested,
        "RFLAGS",
        vmcs::GUEST_RFLAGS,
        &[
            (0, GUEST_STATE),
            (2 | 1 << 3, GUEST_STATE),
            (2 | 1 << 5, GUEST_STATE),
            (2 | 1 << 15, GUEST_STATE),
            (2 | 1 << 17, GUEST_STATE),
            (2 | 1 << 22, GUEST_STATE),
            (2 | 1 << 63, GUEST_STATE),
            (0x20_0cd7, ENTERED),
        ],
    );
}

fn other_state(nested: &mut Guest) {
    const STI: u32 = 1;
    const MOV_SS: u32 = 2;
    let misc = rdmsr_existing(Msr::IA32_VMX_MISC);
    for state in 4..8 {
        try_values(nested, "activity", vmcs::GUEST_ACTIVITY, &[(state, GUEST_STATE)]);
    }
    if misc >> 6 & 1 == 0 {
        try_values(nested, "activity", vmcs::GUEST_ACTIVITY, &[(1, GUEST_STATE)]);
    }
    try_values(
        nested,
        "interruptibility",
        vmcs::GUEST_INTERRUPTIBILITY,
        &[
            (STI, GUEST_STATE),
            (MOV_SS, ENTERED),
            (STI | MOV_SS, GUEST_STATE),
            (1 << 2, GUEST_STATE),
            (1 << 3, ENTERED),
            (1 << 5, GUEST_STATE),
            (1 << 31, GUEST_STATE),
        ],
    );
    // An interrupt needs RFLAGS.IF, and no event comes behind MOV SS.
    const INTERRUPT: u32 = 1 << 31 | 0x20;
    const NMI: u32 = 1 << 31 | 2 << 8 | 2;
    let injection = vmcs::ENTRY_INTERRUPTION_INFORMATION;
    try_values(nested, "injection with IF 0", injection, &[(INTERRUPT, GUEST_STATE)]);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, MOV_SS);
    try_values(nested, "injection behind MOV SS", injection, &[(NMI, GUEST_STATE)]);
    // An event that is delivered all the same leaves by a fault of its delivery.
    let limit = nested.read(vmcs::GUEST_IDTR_LIMIT);
    nested.write(vmcs::GUEST_IDTR_LIMIT, 0);
    for activity in [1, 2, 3] {
        if misc >> (5 + activity) & 1 == 1 {
            const UNDEFINED_OPCODE: u32 = 1 << 31 | 3 << 8 | 6;
            nested.call(end);
            nested.write(vmcs::GUEST_ACTIVITY, activity);
            nested.write(injection, UNDEFINED_OPCODE);
            check_eq!(nested.try_entry(), GUEST_STATE, "injection into activity state {activity}");
            nested.write(injection, 0);
            restore(nested);
        }
    }
    nested.write(vmcs::GUEST_IDTR_LIMIT, limit);
}

fn pending_debug_exceptions(nested: &mut Guest) {
    const SINGLE_STEP: u64 = 1 << 14;
    let pending = vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS;
    for bit in [4, 10, 13, 15, 17, 63] {
        try_values(nested, "pending debug exceptions", pending, &[(1 << bit, GUEST_STATE)]);
    }
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 2);
    try_values(nested, "pending single step behind MOV SS", pending, &[(SINGLE_STEP, GUEST_STATE)]);
    nested.write(vmcs::GUEST_INTERRUPTIBILITY, 2);
    let stepping = [(2 | 1 << 8, GUEST_STATE)];
    try_values(nested, "no pending single step with TF behind MOV SS", vmcs::GUEST_RFLAGS, &stepping);
}

fn link_pointer(nested: &mut Guest) {
    let page = allocate();
    write(page, u64::from(revision()) ^ 1);
    let sound = allocate();
    write(sound, revision().into());
    let shadow = allocate();
    write(shadow, u64::from(revision()) | 1 << 31);
    try_values(
        nested,
        "link pointer",
        vmcs::VMCS_LINK_POINTER,
        &[
            (sound, ENTERED),
            (page, LINK_FAILED),
            (shadow, LINK_FAILED),
            (sound | 0x800, LINK_FAILED),
            (sound | 1 << physical_address_bits(), LINK_FAILED),
            (1 << 63, LINK_FAILED),
        ],
    );
    check_eq!(vmread(vmcs::VMCS_LINK_POINTER.encoding().into()), Ok(u64::MAX), "link pointer");
}
