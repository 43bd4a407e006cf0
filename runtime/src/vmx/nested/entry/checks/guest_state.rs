//! Guest state (SDM, "Checks on the Guest State Area"): registers, and the order of all checks on it.

use super::host_state::UNCHECKED_CR0;
use super::{Entry, EntryFailure, LoadedPdptes, Processor, Rule, non_register_state, require, segments};
use crate::memory::guest::{GuestMemory, is_pdpte_valid, load_pdptes};
use hw::Vmcs;
use x86::cr::{Cr0, Cr4, Rflags};
use x86::segment::AccessRights;
use x86::vmx::controls::{EntryControls, SecondaryControls};
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs::{self, Field};

/// Exit qualifications of a failed entry (SDM, "VM-Entry Failures During or After Loading Guest State").
const OTHER: u64 = 0;
const PDPTES: u64 = 2;
const LINK_POINTER: u64 = 4;

/// Makes all checks on the guest state, in the manual's order.
pub(super) fn check<V: Vmcs, M: GuestMemory + ?Sized>(
    entry: &Entry<'_, V>,
    memory: &M,
) -> Result<LoadedPdptes, EntryFailure> {
    let failed = |qualification| move |rule| EntryFailure::GuestState { qualification, rule };
    registers(entry).map_err(failed(OTHER))?;
    segments::check(entry).map_err(failed(OTHER))?;
    descriptor_tables(entry).map_err(failed(OTHER))?;
    instruction_pointer_and_flags(entry).map_err(failed(OTHER))?;
    non_register_state::check(entry).map_err(failed(OTHER))?;
    check_link_pointer(entry, memory)?;
    pdptes(entry, memory).map_err(failed(PDPTES))
}

/// Makes the check on the VMCS link pointer.
pub(super) fn check_link_pointer<V: Vmcs, M: GuestMemory + ?Sized>(
    entry: &Entry<'_, V>,
    memory: &M,
) -> Result<(), EntryFailure> {
    non_register_state::link_pointer(entry, memory)
        .map_err(|rule| EntryFailure::GuestState { qualification: LINK_POINTER, rule })
}

impl<V: Vmcs> Entry<'_, V> {
    pub(super) fn guest_cr0(&self) -> Cr0 {
        Cr0::from_bits_retain(self.read(vmcs::GUEST_CR0))
    }

    pub(super) fn guest_cr4(&self) -> Cr4 {
        Cr4::from_bits_retain(self.read(vmcs::GUEST_CR4))
    }

    pub(super) fn guest_flags(&self) -> Rflags {
        Rflags::from_bits_retain(self.read(vmcs::GUEST_RFLAGS))
    }

    pub(super) fn is_ia32e_guest(&self) -> bool {
        self.has_entry(EntryControls::IA32E_MODE_GUEST)
    }

    pub(super) fn is_unrestricted(&self) -> bool {
        self.has_secondary(SecondaryControls::UNRESTRICTED_GUEST)
    }

    /// Returns the event that is to be injected, if there is one.
    pub(super) fn injected(&self) -> Option<Interruption> {
        Some(Interruption(self.read(vmcs::ENTRY_INTERRUPTION_INFORMATION))).filter(|event| event.is_valid())
    }
}

fn registers<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    control_registers(entry)?;
    if entry.has_entry(EntryControls::LOAD_DEBUG_CONTROLS) {
        require(entry.read(vmcs::GUEST_DEBUGCTL) & !entry.processor.debugctl == 0, "guest IA32_DEBUGCTL")?;
        require(entry.read(vmcs::GUEST_DR7) >> 32 == 0, "guest DR7")?;
    }
    require(entry.is_canonical(vmcs::GUEST_SYSENTER_ESP), "guest SYSENTER ESP")?;
    require(entry.is_canonical(vmcs::GUEST_SYSENTER_EIP), "guest SYSENTER EIP")?;
    msrs(entry)
}

fn control_registers<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let (cr0, cr4) = (entry.guest_cr0(), entry.guest_cr4());
    let freed = if entry.is_unrestricted() { (Cr0::PE | Cr0::PG).bits() } else { 0 };
    require(entry.capability.allows_cr0(cr0.bits(), UNCHECKED_CR0 | freed), "guest CR0")?;
    require(!cr0.contains(Cr0::PG) || cr0.contains(Cr0::PE), "guest CR0.PG without PE")?;
    require(entry.capability.allows_cr4(cr4.bits()), "guest CR4")?;
    require(!cr4.contains(Cr4::CET) || cr0.contains(Cr0::WP), "guest control-flow enforcement needs CR0.WP")?;
    if entry.is_ia32e_guest() {
        require(cr0.contains(Cr0::PG), "IA-32e mode guest without CR0.PG")?;
        require(cr4.contains(Cr4::PAE), "IA-32e mode guest without CR4.PAE")?;
    } else {
        require(!cr4.contains(Cr4::PCIDE), "CR4.PCIDE outside IA-32e mode")?;
    }
    require(entry.read(vmcs::GUEST_CR3) & entry.processor.cr3_reserved == 0, "guest CR3")
}

fn msrs<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let processor = entry.processor;
    if entry.has_entry(EntryControls::LOAD_PERF_GLOBAL_CTRL) {
        let value = entry.read(vmcs::GUEST_PERF_GLOBAL_CTRL);
        require(processor.accepts_perf_global_ctrl(value), "guest IA32_PERF_GLOBAL_CTRL")?;
    }
    if entry.has_entry(EntryControls::LOAD_PAT) {
        require(Processor::accepts_pat(entry.read(vmcs::GUEST_PAT)), "guest IA32_PAT")?;
    }
    if entry.has_entry(EntryControls::LOAD_EFER) {
        let is_paged = entry.guest_cr0().contains(Cr0::PG);
        let value = entry.read(vmcs::GUEST_EFER);
        require(processor.accepts_efer(value, entry.is_ia32e_guest(), is_paged), "guest IA32_EFER")?;
    }
    if entry.has_entry(EntryControls::LOAD_BNDCFGS) {
        const RESERVED: u64 = 0xffc;
        let value = entry.read(vmcs::GUEST_BNDCFGS);
        let is_valid = value & RESERVED == 0 && processor.is_canonical(value);
        require(is_valid, "guest IA32_BNDCFGS")?;
    }
    if entry.has_entry(EntryControls::LOAD_CET_STATE) {
        require(processor.accepts_s_cet(entry.read(vmcs::GUEST_S_CET)), "guest IA32_S_CET")?;
        require(entry.read(vmcs::GUEST_SSP) & 3 == 0 && is_reachable(entry, vmcs::GUEST_SSP), "guest SSP")?;
        require(entry.is_canonical(vmcs::GUEST_INTERRUPT_SSP_TABLE), "guest IA32_INTERRUPT_SSP_TABLE_ADDR")?;
    }
    require(
        !entry.has_entry(EntryControls::LOAD_PKRS) || entry.read(vmcs::GUEST_PKRS) >> 32 == 0,
        "guest IA32_PKRS",
    )
}

fn descriptor_tables<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    require(entry.is_canonical(vmcs::GUEST_GDTR_BASE), "guest GDTR base")?;
    require(entry.is_canonical(vmcs::GUEST_IDTR_BASE), "guest IDTR base")?;
    require(entry.read(vmcs::GUEST_GDTR_LIMIT) >> 16 == 0, "guest GDTR limit")?;
    require(entry.read(vmcs::GUEST_IDTR_LIMIT) >> 16 == 0, "guest IDTR limit")
}

fn instruction_pointer_and_flags<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let flags = entry.guest_flags();
    require(is_reachable(entry, vmcs::GUEST_RIP), "guest RIP")?;
    const RESERVED: u64 = !0x3f_ffff | 1 << 15 | 1 << 5 | 1 << 3;
    let is_well_formed = flags.bits() & RESERVED == 0 && flags.contains(Rflags::RESERVED1);
    require(is_well_formed, "reserved bits of the guest's RFLAGS")?;
    require(
        !flags.contains(Rflags::VM) || !entry.is_ia32e_guest() && entry.guest_cr0().contains(Cr0::PE),
        "virtual-8086 mode outside protected mode",
    )?;
    let is_interrupt = |event: Interruption| event.kind() == InterruptionType::EXTERNAL;
    require(
        flags.contains(Rflags::IF) || !entry.injected().is_some_and(is_interrupt),
        "injection of an external interrupt with RFLAGS.IF 0",
    )
}

/// Returns whether code of the guest's size can have the field's value in a register. In 64-bit code the bits above
/// the linear-address width only have to be alike: the address may be the first that is not canonical.
fn is_reachable<V: Vmcs>(entry: &Entry<'_, V>, field: Field<u64>) -> bool {
    let code = AccessRights::from_bits_retain(entry.read(vmcs::GUEST_CS_ACCESS_RIGHTS));
    let value = entry.read(field);
    if !entry.is_ia32e_guest() || !code.contains(AccessRights::L) {
        return value >> 32 == 0;
    }
    let width = u32::from(entry.processor.linear_address_bits);
    let above = u64::MAX.checked_shl(width).unwrap_or(0);
    value & above == 0 || value & above == above
}

/// Returns the PDPTEs of a guest with PAE paging: VMCS12's under EPT, otherwise those that its CR3 names.
fn pdptes<V: Vmcs, M: GuestMemory + ?Sized>(entry: &Entry<'_, V>, memory: &M) -> Result<LoadedPdptes, Rule> {
    const FIELDS: [Field<u64>; 4] =
        [vmcs::GUEST_PDPTE0, vmcs::GUEST_PDPTE1, vmcs::GUEST_PDPTE2, vmcs::GUEST_PDPTE3];
    let is_paged = entry.guest_cr0().contains(Cr0::PG) && entry.guest_cr4().contains(Cr4::PAE);
    if !is_paged || entry.is_ia32e_guest() {
        return Ok(None);
    }
    if !entry.has_secondary(SecondaryControls::ENABLE_EPT) {
        let loaded = load_pdptes(memory, entry.read(vmcs::GUEST_CR3));
        return loaded.map(Some).map_err(|_| "PDPTEs in memory");
    }
    let bits = entry.capability.physical_address_bits;
    let are_valid = FIELDS.iter().all(|&field| is_pdpte_valid(entry.read(field), bits));
    require(are_valid, "PDPTEs").map(|()| None)
}
