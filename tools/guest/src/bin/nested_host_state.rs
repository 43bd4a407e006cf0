//! Missing entry checks: fields of the host state at their borders: error 8, before anything is loaded.
//! cmdline: nested=on
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr_existing};
use guest::vmx::capability;
use guest::vmx::prelude::*;
use guest::vmx::verdict::{CONTROLS, Entry, HOST_STATE, end, try_values};
use x86::msr::Msr;
use x86::vmx::controls::ExitControls;

guest!(main);

const ENTERED: Entry = Entry::Entered;
const NOT_CANONICAL: u64 = 0x8000_0000_0000;
const LOWEST_HIGH: u64 = 0xffff_8000_0000_0000;

fn main() {
    enter_operation();
    let mut nested = Guest::new(end);
    control_registers(&mut nested);
    selectors(&mut nested);
    addresses(&mut nested);
    msrs(&mut nested);
    msr_areas(&mut nested);
    leave_operation();
}

fn control_registers(nested: &mut Guest) {
    let (cr0, cr3, cr4) =
        (nested.read(vmcs::HOST_CR0), nested.read(vmcs::HOST_CR3), nested.read(vmcs::HOST_CR4));
    let (pe, ne, pg) = (1, 1 << 5, 1 << 31);
    try_values(
        nested,
        "CR0",
        vmcs::HOST_CR0,
        &[
            (cr0 & !pe, HOST_STATE),
            (cr0 & !ne, HOST_STATE),
            (cr0 & !pg, HOST_STATE),
            (cr0 | 1 << 32, HOST_STATE),
            (cr0 | 1 << 63, HOST_STATE),
        ],
    );
    let (pae, vmxe) = (1 << 5, 1 << 13);
    try_values(
        nested,
        "CR4",
        vmcs::HOST_CR4,
        &[
            (cr4 & !vmxe, HOST_STATE),
            (cr4 & !pae, HOST_STATE),
            (cr4 | 1 << 15, HOST_STATE),
            (cr4 | 1 << 63, HOST_STATE),
        ],
    );
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    try_values(
        nested,
        "CR3",
        vmcs::HOST_CR3,
        &[(cr3 | 1 << width, HOST_STATE), (cr3 | 1 << 52, HOST_STATE), (cr3 | 1 << 63, HOST_STATE)],
    );
}

fn selectors(nested: &mut Guest) {
    for (what, field) in [
        ("ES", vmcs::HOST_ES_SELECTOR),
        ("CS", vmcs::HOST_CS_SELECTOR),
        ("SS", vmcs::HOST_SS_SELECTOR),
        ("DS", vmcs::HOST_DS_SELECTOR),
        ("FS", vmcs::HOST_FS_SELECTOR),
        ("GS", vmcs::HOST_GS_SELECTOR),
        ("TR", vmcs::HOST_TR_SELECTOR),
    ] {
        let value = nested.read(field);
        let bad = [1, 2, 4].map(|bit| (value | bit, HOST_STATE));
        try_values(nested, what, field, &bad);
    }
    try_values(nested, "CS", vmcs::HOST_CS_SELECTOR, &[(0, HOST_STATE)]);
    try_values(nested, "TR", vmcs::HOST_TR_SELECTOR, &[(0, HOST_STATE)]);
    // A 64-bit host may have a null stack segment.
    for field in [vmcs::HOST_SS_SELECTOR, vmcs::HOST_DS_SELECTOR, vmcs::HOST_ES_SELECTOR] {
        try_values(nested, "null selector", field, &[(0, ENTERED)]);
    }
}

fn addresses(nested: &mut Guest) {
    for (what, field) in [
        ("SYSENTER_ESP", vmcs::HOST_SYSENTER_ESP),
        ("SYSENTER_EIP", vmcs::HOST_SYSENTER_EIP),
        ("FS base", vmcs::HOST_FS_BASE),
        ("GS base", vmcs::HOST_GS_BASE),
        ("GDTR base", vmcs::HOST_GDTR_BASE),
        ("IDTR base", vmcs::HOST_IDTR_BASE),
        ("TR base", vmcs::HOST_TR_BASE),
        ("RIP", vmcs::HOST_RIP),
    ] {
        let bad = [NOT_CANONICAL, 1 << 63, LOWEST_HIGH - 1].map(|value| (value, HOST_STATE));
        try_values(nested, what, field, &bad);
    }
    for field in [vmcs::HOST_SYSENTER_ESP, vmcs::HOST_SYSENTER_EIP] {
        try_values(nested, "SYSENTER", field, &[(LOWEST_HIGH, ENTERED), (0, ENTERED)]);
    }
}

fn msrs(nested: &mut Guest) {
    let efer = rdmsr_existing(Msr::IA32_EFER);
    let (lme, lma) = (1 << 8, 1 << 10);
    with_control(nested, ExitControls::LOAD_EFER, |nested| {
        nested.write(vmcs::HOST_EFER, efer);
        try_values(
            nested,
            "EFER",
            vmcs::HOST_EFER,
            &[
                (efer, ENTERED),
                (efer & !lma, HOST_STATE),
                (efer & !lme, HOST_STATE),
                (efer | 1 << 1, HOST_STATE),
                (efer | 1 << 63, HOST_STATE),
            ],
        );
    });
    let pat = rdmsr_existing(Msr::IA32_PAT);
    with_control(nested, ExitControls::LOAD_PAT, |nested| {
        nested.write(vmcs::HOST_PAT, pat);
        try_values(
            nested,
            "PAT",
            vmcs::HOST_PAT,
            &[(pat, ENTERED), (pat & !0xff | 2, HOST_STATE), (pat & !(0xff << 56) | 3 << 56, HOST_STATE)],
        );
    });
}

/// Runs `act` with an exit control set, where the processor has it.
fn with_control(nested: &mut Guest, control: ExitControls, act: impl FnOnce(&mut Guest)) {
    if capability(Msr::IA32_VMX_TRUE_EXIT_CTLS).may_be_one() & control.bits() == 0 {
        return;
    }
    let old = nested.read(vmcs::EXIT_CONTROLS);
    nested.write(vmcs::EXIT_CONTROLS, old | control.bits());
    act(nested);
    nested.write(vmcs::EXIT_CONTROLS, old);
}

/// Addresses of MSR areas are controls, whose errors come first.
fn msr_areas(nested: &mut Guest) {
    let width = cpuid(0x8000_0008, 0).eax & 0xff;
    for (what, count, address) in [
        ("VM-exit MSR-store address", vmcs::EXIT_MSR_STORE_COUNT, vmcs::EXIT_MSR_STORE_ADDRESS),
        ("VM-exit MSR-load address", vmcs::EXIT_MSR_LOAD_COUNT, vmcs::EXIT_MSR_LOAD_ADDRESS),
        ("VM-entry MSR-load address", vmcs::ENTRY_MSR_LOAD_COUNT, vmcs::ENTRY_MSR_LOAD_ADDRESS),
    ] {
        nested.write(count, 1);
        let last = (1 << width) - 16;
        let bad = [8, 1, 1 << width, 1 << 63, last + 8].map(|value| (value, CONTROLS));
        try_values(nested, what, address, &bad);
        nested.write(count, 2);
        try_values(nested, what, address, &[(last, CONTROLS)]);
        nested.write(count, 0);
        try_values(nested, what, address, &[(u64::MAX, ENTERED)]);
    }
}
