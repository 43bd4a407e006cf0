//! A guest's processor as its VMCS and saved registers hold it.

use super::{cet, switch};
use crate::vcpu::{Activity, CodeSize, EventState, PagingState, RegisterState, Registers, Vcpu};
use hw::Vmcs;
use hw::bare::guest_registers;
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::debug::{DR7_RESET, Debugctl, PendingDebugExceptions};
use x86::event::Event;
use x86::segment::{AccessRights, DescriptorTable, Segment, SegmentRegister};
use x86::vmx::controls::EntryControls;
use x86::vmx::interruption::{ActivityState, Interruptibility, Interruption};
use x86::vmx::vmcs::{self, Field};

/// CR0 bits that the guest sees through the read shadow: NE must be 1 in VMX operation, CD and NW are not
/// switched by VM entries and exits, so the hypervisor keeps its caches on.
pub(super) const CR0_MASK: Cr0 = Cr0::NE.union(Cr0::NW).union(Cr0::CD);
/// CR4 bits that the guest sees through the read shadow: VMXE must be 1, SMX is not offered.
pub(super) const CR4_MASK: Cr4 = Cr4::VMXE.union(Cr4::SMXE);
/// CR0 bits that the guest sees through the read shadow besides while it is in VMX operation, where it cannot
/// clear them (SDM, "Restrictions on VMX Operation").
pub(super) const CR0_MASK_IN_VMX_OPERATION: Cr0 = Cr0::PE.union(Cr0::PG);
const PDPTES: [Field<u64>; 4] =
    [vmcs::GUEST_PDPTE0, vmcs::GUEST_PDPTE1, vmcs::GUEST_PDPTE2, vmcs::GUEST_PDPTE3];

/// A guest's processor between a VM exit and the next VM entry.
#[derive(Debug)]
pub(super) struct VmxVcpu<'a, V> {
    /// Its VMCS.
    pub(super) vmcs: V,
    registers: &'a mut Registers,
    index: usize,
    /// The event whose delivery led to this exit has been delivered.
    pub(super) is_delivery_finished: bool,
    /// CR0 bits that stay set in a guest's guest; `None` where the guest itself runs.
    pub(super) fixed_cr0: Option<Cr0>,
}

impl<'a, V: Vmcs> VmxVcpu<'a, V> {
    #[inline]
    pub(super) fn new(vmcs: V, registers: &'a mut Registers, index: usize) -> Self {
        Self { vmcs, registers, index, is_delivery_finished: false, fixed_cr0: None }
    }

    fn segment_fields(register: SegmentRegister) -> SegmentFields {
        SEGMENT_FIELDS[register as usize]
    }

    /// Interruptibility state.
    pub(super) fn interruptibility(&self) -> Interruptibility {
        Interruptibility::from_bits_retain(self.vmcs.read(vmcs::GUEST_INTERRUPTIBILITY))
    }

    fn pend_single_step(&mut self) {
        if self.is_single_stepped() {
            self.pend_debug_exception(PendingDebugExceptions::SINGLE_STEP.bits());
        }
    }

    fn pend_debug_exception(&mut self, conditions: u64) {
        let pending = self.vmcs.read(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS);
        self.vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | conditions);
    }

    /// Sets the interruptibility state.
    pub(super) fn set_interruptibility(&mut self, state: Interruptibility) {
        self.vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, state.bits());
    }
}

impl<V: Vmcs> RegisterState for VmxVcpu<'_, V> {
    fn registers(&self) -> &Registers {
        self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        self.registers
    }

    fn rip(&self) -> u64 {
        self.vmcs.read(vmcs::GUEST_RIP)
    }

    fn set_rip(&mut self, rip: u64) {
        self.vmcs.write(vmcs::GUEST_RIP, rip);
    }

    fn rsp(&self) -> u64 {
        self.vmcs.read(vmcs::GUEST_RSP)
    }

    fn set_rsp(&mut self, rsp: u64) {
        self.vmcs.write(vmcs::GUEST_RSP, rsp);
    }

    fn rflags(&self) -> Rflags {
        Rflags::from_bits_retain(self.vmcs.read(vmcs::GUEST_RFLAGS))
    }

    fn set_rflags(&mut self, rflags: Rflags) {
        self.vmcs.write(vmcs::GUEST_RFLAGS, rflags.bits());
    }

    fn cpl(&self) -> u8 {
        // SS.DPL is the CPL in every mode (SDM, "Guest Register State").
        AccessRights::from_bits_retain(self.vmcs.read(vmcs::GUEST_SS_ACCESS_RIGHTS)).dpl()
    }

    fn segment(&self, register: SegmentRegister) -> Segment {
        segment_of(&self.vmcs, register)
    }

    fn code_rights(&self) -> AccessRights {
        AccessRights::from_bits_retain(self.vmcs.read(vmcs::GUEST_CS_ACCESS_RIGHTS))
    }

    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        let fields = Self::segment_fields(register);
        self.vmcs.write(fields.selector, segment.selector);
        self.vmcs.write(fields.base, segment.base);
        self.vmcs.write(fields.limit, segment.limit);
        self.vmcs.write(fields.rights, segment.rights.bits());
    }

    fn idtr(&self) -> DescriptorTable {
        let limit = u16::try_from(self.vmcs.read(vmcs::GUEST_IDTR_LIMIT)).unwrap_or(u16::MAX);
        DescriptorTable { base: self.vmcs.read(vmcs::GUEST_IDTR_BASE), limit }
    }

    fn set_idtr(&mut self, idtr: DescriptorTable) {
        self.vmcs.write(vmcs::GUEST_IDTR_BASE, idtr.base);
        self.vmcs.write(vmcs::GUEST_IDTR_LIMIT, u32::from(idtr.limit));
    }

    fn gdtr(&self) -> DescriptorTable {
        let limit = u16::try_from(self.vmcs.read(vmcs::GUEST_GDTR_LIMIT)).unwrap_or(u16::MAX);
        DescriptorTable { base: self.vmcs.read(vmcs::GUEST_GDTR_BASE), limit }
    }

    fn set_gdtr(&mut self, gdtr: DescriptorTable) {
        self.vmcs.write(vmcs::GUEST_GDTR_BASE, gdtr.base);
        self.vmcs.write(vmcs::GUEST_GDTR_LIMIT, u32::from(gdtr.limit));
    }
}

impl<V: Vmcs> PagingState for VmxVcpu<'_, V> {
    fn cr0(&self) -> Cr0 {
        let real = Cr0::from_bits_retain(self.vmcs.read(vmcs::GUEST_CR0));
        let shadow = Cr0::from_bits_retain(self.vmcs.read(vmcs::CR0_READ_SHADOW));
        real & !CR0_MASK | shadow & CR0_MASK
    }

    fn set_cr0(&mut self, cr0: Cr0) {
        let cr0 = cr0 | Cr0::ET;
        self.vmcs.write(vmcs::CR0_READ_SHADOW, cr0.bits());
        self.vmcs.write(vmcs::GUEST_CR0, (cr0 & !CR0_MASK | Cr0::NE).bits());
    }

    fn fixed_bits(&self) -> (Cr0, Cr4) {
        if let Some(cr0) = self.fixed_cr0 {
            (cr0, Cr4::VMXE)
        } else if self.vmcs.read(vmcs::CR0_MASK) & CR0_MASK_IN_VMX_OPERATION.bits()
            == CR0_MASK_IN_VMX_OPERATION.bits()
        {
            (CR0_MASK_IN_VMX_OPERATION | Cr0::NE, Cr4::VMXE)
        } else {
            (Cr0::empty(), Cr4::empty())
        }
    }

    fn cr3(&self) -> u64 {
        self.vmcs.read(vmcs::GUEST_CR3)
    }

    fn set_cr3(&mut self, cr3: u64) {
        self.vmcs.write(vmcs::GUEST_CR3, cr3);
    }

    fn cr4(&self) -> Cr4 {
        let real = Cr4::from_bits_retain(self.vmcs.read(vmcs::GUEST_CR4));
        let shadow = Cr4::from_bits_retain(self.vmcs.read(vmcs::CR4_READ_SHADOW));
        real & !CR4_MASK | shadow & CR4_MASK
    }

    fn set_cr4(&mut self, cr4: Cr4) {
        self.vmcs.write(vmcs::CR4_READ_SHADOW, cr4.bits());
        self.vmcs.write(vmcs::GUEST_CR4, (cr4 & !CR4_MASK | Cr4::VMXE).bits());
    }

    fn efer(&self) -> Efer {
        Efer::from_bits_retain(self.vmcs.read(vmcs::GUEST_EFER))
    }

    fn set_efer(&mut self, efer: Efer) {
        self.vmcs.write(vmcs::GUEST_EFER, efer.bits());
        switch::entry(&mut self.vmcs, EntryControls::IA32E_MODE_GUEST, efer.contains(Efer::LMA));
    }

    fn pdptes(&self) -> [u64; 4] {
        PDPTES.map(|field| self.vmcs.read(field))
    }

    fn set_pdptes(&mut self, pdptes: [u64; 4]) {
        for (field, value) in PDPTES.into_iter().zip(pdptes) {
            self.vmcs.write(field, value);
        }
    }

    fn invalidate_translations(&mut self) {
        if guest_registers::invalidate_translations().is_err() {
            panic!("INVVPID failed");
        }
    }

    fn pkru(&self) -> u32 {
        if self.cr4().contains(Cr4::PKE) { guest_registers::pkru() } else { 0 }
    }

    fn pkrs(&self) -> u32 {
        if self.cr4().contains(Cr4::PKS) { guest_registers::pkrs() } else { 0 }
    }
}

impl<V: Vmcs> EventState for VmxVcpu<'_, V> {
    fn dr7(&self) -> u64 {
        self.vmcs.read(vmcs::GUEST_DR7)
    }

    fn set_dr7(&mut self, dr7: u64) {
        self.vmcs.write(vmcs::GUEST_DR7, dr7);
    }

    fn breakpoint_addresses(&self) -> [u64; 4] {
        guest_registers::breakpoint_addresses()
    }

    fn is_single_stepped(&self) -> bool {
        self.rflags().contains(Rflags::TF) && self.vmcs.read(vmcs::GUEST_DEBUGCTL) & Debugctl::BTF.bits() == 0
    }

    fn strike_breakpoints(&mut self, breakpoints: u64) {
        if breakpoints != 0 {
            self.pend_debug_exception(breakpoints | PendingDebugExceptions::ENABLED_BREAKPOINT.bits());
        }
    }

    fn reset_cr2_and_debug_registers(&mut self) {
        guest_registers::reset_cr2_and_debug_registers();
        self.vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
        self.vmcs.write(vmcs::GUEST_DR7, DR7_RESET);
    }

    fn set_dr6_bits(&mut self, bits: u64) {
        guest_registers::set_dr6_bits(bits);
    }

    fn expect_branch_target(&mut self) {
        if self.cr4().contains(Cr4::CET) {
            guest_registers::expect_branch_target(self.cpl() == 3);
        }
    }

    fn end_user_call(&mut self, bytes: u64) {
        if !self.cr4().contains(Cr4::CET) {
            return;
        }
        if cet::end_branch_target() {
            let ssp = self.vmcs.read(vmcs::GUEST_SSP);
            cet::load_at_entry(&mut self.vmcs, ssp.wrapping_add(bytes));
        }
    }

    fn set_activity(&mut self, activity: Activity) {
        let state = match activity {
            Activity::Active => ActivityState::ACTIVE,
            Activity::WaitForSipi => ActivityState::WAIT_FOR_SIPI,
        };
        self.vmcs.write(vmcs::GUEST_ACTIVITY, state.0);
    }

    fn clear_interrupt_shadow(&mut self) {
        let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_MOV_SS;
        let blocking = self.interruptibility();
        if blocking.intersects(shadow) {
            self.set_interruptibility(blocking & !shadow);
        }
    }

    fn set_nmi_blocking(&mut self, is_blocking: bool) {
        let mut state = self.interruptibility();
        state.set(Interruptibility::BLOCKING_BY_NMI, is_blocking);
        self.set_interruptibility(state);
    }

    fn finish_delivery(&mut self) {
        self.is_delivery_finished = true;
    }

    fn instruction_length(&self) -> u64 {
        u64::from(self.vmcs.read(vmcs::EXIT_INSTRUCTION_LENGTH))
    }

    fn is_delivering_event(&self) -> bool {
        Interruption(self.vmcs.read(vmcs::IDT_VECTORING_INFORMATION)).is_valid()
    }

    #[inline]
    fn advance_by(&mut self, length: u64) {
        let rip = self.rip();
        let mut next = rip.wrapping_add(length);
        // Only at the very end of a 4 GiB segment does the width of the instruction pointer matter.
        if (rip ^ next) >> 32 != 0 && self.code_size() != CodeSize::Bits64 {
            next &= 0xffff_ffff;
        }
        self.set_rip(next);
        self.clear_interrupt_shadow();
        let flags = self.rflags();
        if flags.intersects(Rflags::TF | Rflags::RF) {
            self.set_rflags(flags - Rflags::RF);
            self.pend_single_step();
        }
    }

    fn iterate(&mut self) {
        self.clear_interrupt_shadow();
        self.set_rflags(self.rflags() | Rflags::RF);
        self.pend_single_step();
    }

    fn inject(&mut self, event: Event) {
        self.take(event);
    }
}

impl<V: Vmcs> Vcpu for VmxVcpu<'_, V> {
    fn index(&self) -> usize {
        self.index
    }
}

/// Returns a segment register of the guest of `vmcs`.
pub(super) fn segment_of(vmcs: &impl Vmcs, register: SegmentRegister) -> Segment {
    let fields = SEGMENT_FIELDS[register as usize];
    Segment {
        selector: vmcs.read(fields.selector),
        base: vmcs.read(fields.base),
        limit: vmcs.read(fields.limit),
        rights: AccessRights::from_bits_retain(vmcs.read(fields.rights)),
    }
}

#[derive(Clone, Copy)]
struct SegmentFields {
    selector: Field<u16>,
    base: Field<u64>,
    limit: Field<u32>,
    rights: Field<u32>,
}

macro_rules! segment_fields {
    ($($selector:ident $base:ident $limit:ident $rights:ident;)*) => {
        [$(SegmentFields {
            selector: vmcs::$selector,
            base: vmcs::$base,
            limit: vmcs::$limit,
            rights: vmcs::$rights,
        },)*]
    };
}

const SEGMENT_FIELDS: [SegmentFields; 8] = segment_fields! {
    GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS;
    GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS;
    GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS;
    GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS;
    GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS;
    GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS;
    GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_ACCESS_RIGHTS;
    GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_ACCESS_RIGHTS;
};

#[cfg(test)]
#[path = "vcpu_tests.rs"]
mod tests;
