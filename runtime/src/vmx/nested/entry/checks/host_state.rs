//! Host state (SDM, "Checks on Host Control Registers, MSRs, and SSP"; "Checks on Host Segment and
//! Descriptor-Table Registers"; "Checks Related to Address-Space Size").

use super::{Entry, Processor, Rule, require};
use hw::Vmcs;
use x86::cr::{Cr0, Cr4};
use x86::vmx::controls::{EntryControls, ExitControls};
use x86::vmx::vmcs::{self, TrustedField};

/// Requested privilege level and table indicator, which are 0 in every host selector.
const RPL_AND_TI: u16 = 7;
/// CR0 bits that no VM entry or exit changes, and none checks.
pub(super) const UNCHECKED_CR0: u64 = Cr0::NW.union(Cr0::CD).bits();

/// Makes all checks on the host state; each failure of theirs is VM-instruction error 8.
pub(super) fn check<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    control_registers(entry)?;
    msrs(entry)?;
    selectors(entry)?;
    for (field, rule) in CANONICAL {
        require(entry.is_canonical(field), rule)?;
    }
    address_space_size(entry)
}

const SELECTORS: [(TrustedField<u16>, Rule); 7] = [
    (vmcs::HOST_ES_SELECTOR, "host ES selector"),
    (vmcs::HOST_CS_SELECTOR, "host CS selector"),
    (vmcs::HOST_SS_SELECTOR, "host SS selector"),
    (vmcs::HOST_DS_SELECTOR, "host DS selector"),
    (vmcs::HOST_FS_SELECTOR, "host FS selector"),
    (vmcs::HOST_GS_SELECTOR, "host GS selector"),
    (vmcs::HOST_TR_SELECTOR, "host TR selector"),
];

const CANONICAL: [(TrustedField<u64>, Rule); 7] = [
    (vmcs::HOST_SYSENTER_ESP, "host SYSENTER ESP"),
    (vmcs::HOST_SYSENTER_EIP, "host SYSENTER EIP"),
    (vmcs::HOST_FS_BASE, "host FS base"),
    (vmcs::HOST_GS_BASE, "host GS base"),
    (vmcs::HOST_GDTR_BASE, "host GDTR base"),
    (vmcs::HOST_IDTR_BASE, "host IDTR base"),
    (vmcs::HOST_TR_BASE, "host TR base"),
];

fn control_registers<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let (cr0, cr4) = (entry.read(vmcs::HOST_CR0), entry.read(vmcs::HOST_CR4));
    require(entry.capability.allows_cr0(cr0, UNCHECKED_CR0), "host CR0")?;
    require(entry.capability.allows_cr4(cr4), "host CR4")?;
    require(
        cr4 & Cr4::CET.bits() == 0 || cr0 & Cr0::WP.bits() != 0,
        "host control-flow enforcement needs CR0.WP",
    )?;
    require(entry.read(vmcs::HOST_CR3) & entry.processor.cr3_reserved == 0, "host CR3")
}

fn msrs<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let processor = entry.processor;
    if entry.has_exit(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
        let value = entry.read(vmcs::HOST_PERF_GLOBAL_CTRL);
        require(processor.accepts_perf_global_ctrl(value), "host IA32_PERF_GLOBAL_CTRL")?;
    }
    if entry.has_exit(ExitControls::LOAD_PAT) {
        require(Processor::accepts_pat(entry.read(vmcs::HOST_PAT)), "host IA32_PAT")?;
    }
    if entry.has_exit(ExitControls::LOAD_EFER) {
        let is_64_bit = entry.has_exit(ExitControls::HOST_ADDRESS_SPACE_SIZE);
        require(processor.accepts_efer(entry.read(vmcs::HOST_EFER), is_64_bit, true), "host IA32_EFER")?;
    }
    if entry.has_exit(ExitControls::LOAD_CET_STATE) {
        require(processor.accepts_s_cet(entry.read(vmcs::HOST_S_CET)), "host IA32_S_CET")?;
        require(entry.read(vmcs::HOST_SSP) & 3 == 0 && entry.is_canonical(vmcs::HOST_SSP), "host SSP")?;
        require(entry.is_canonical(vmcs::HOST_INTERRUPT_SSP_TABLE), "host IA32_INTERRUPT_SSP_TABLE_ADDR")?;
    }
    require(
        !entry.has_exit(ExitControls::LOAD_PKRS) || entry.read(vmcs::HOST_PKRS) >> 32 == 0,
        "host IA32_PKRS",
    )
}

fn selectors<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    for (field, rule) in SELECTORS {
        require(entry.read(field) & RPL_AND_TI == 0, rule)?;
    }
    require(entry.read(vmcs::HOST_CS_SELECTOR) != 0, "null host CS selector")?;
    require(entry.read(vmcs::HOST_TR_SELECTOR) != 0, "null host TR selector")?;
    require(
        entry.has_exit(ExitControls::HOST_ADDRESS_SPACE_SIZE) || entry.read(vmcs::HOST_SS_SELECTOR) != 0,
        "null host SS selector",
    )
}

/// L1 enters from the mode to which it says it returns.
fn address_space_size<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let cr4 = Cr4::from_bits_retain(entry.read(vmcs::HOST_CR4));
    let is_64_bit = entry.has_exit(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    require(is_64_bit == entry.is_ia32e, "host address-space size is not the present one")?;
    if is_64_bit {
        require(cr4.contains(Cr4::PAE), "64-bit host without CR4.PAE")?;
        let rip = entry.read(vmcs::HOST_RIP);
        return require(entry.processor.is_canonical_code(rip, cr4), "64-bit host RIP");
    }
    require(!entry.has_entry(EntryControls::IA32E_MODE_GUEST), "IA-32e mode guest of a 32-bit host")?;
    require(!cr4.contains(Cr4::PCIDE), "32-bit host with CR4.PCIDE")?;
    require(entry.read(vmcs::HOST_RIP) >> 32 == 0, "32-bit host RIP")?;
    let shadow = entry.read(vmcs::HOST_SSP) | entry.read(vmcs::HOST_S_CET);
    require(!entry.has_exit(ExitControls::LOAD_CET_STATE) || shadow >> 32 == 0, "32-bit host CET state")
}
