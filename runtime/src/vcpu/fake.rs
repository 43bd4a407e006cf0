//! A processor that keeps its state in plain fields, for host tests.

use super::{Activity, EventState, PagingState, RegisterState, Registers, Vcpu};
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::event::Event;
use x86::segment::{AccessRights, DescriptorTable, Segment, SegmentRegister};

/// Access rights of a flat 32-bit code segment of CPL 0, accessed.
pub(crate) const CODE32: u32 = 0xc09b;
/// Access rights of a flat 64-bit code segment of CPL 0, accessed.
pub(crate) const CODE64: u32 = 0xa09b;
/// Access rights of a flat writable data segment of DPL 0, accessed.
pub(crate) const DATA32: u32 = 0xc093;

/// The processor; a test sets and reads the fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FakeVcpu {
    pub(crate) index: usize,
    pub(crate) registers: Registers,
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) rflags: Rflags,
    pub(crate) cr0: Cr0,
    pub(crate) cr3: u64,
    pub(crate) cr4: Cr4,
    pub(crate) efer: Efer,
    pub(crate) pdptes: [u64; 4],
    pub(crate) dr7: u64,
    pub(crate) dr6_bits: u64,
    pub(crate) breakpoints: [u64; 4],
    pub(crate) struck: u64,
    pub(crate) pkru: u32,
    pub(crate) pkrs: u32,
    pub(crate) branch_targets: usize,
    pub(crate) cpl: u8,
    pub(crate) segments: [Segment; 8],
    pub(crate) gdtr: DescriptorTable,
    pub(crate) idtr: DescriptorTable,
    pub(crate) activity: Activity,
    pub(crate) instruction_length: u64,
    pub(crate) is_delivering_event: bool,
    pub(crate) injected: Vec<Event>,
    pub(crate) invalidations: usize,
    pub(crate) debug_resets: usize,
    pub(crate) shadow_clears: usize,
    pub(crate) iterations: usize,
    pub(crate) is_nmi_blocked: Option<bool>,
    pub(crate) is_delivery_finished: bool,
}

impl FakeVcpu {
    /// In real mode, all segments at 0, at 0:0x1000.
    pub(crate) fn real_mode() -> Self {
        let segments = SegmentRegister::ALL.map(|register| {
            let rights = match register {
                SegmentRegister::Cs => 0x9b,
                SegmentRegister::Ldtr => 0x82,
                SegmentRegister::Tr => 0x8b,
                _ => 0x93,
            };
            Segment::real_mode(0, rights)
        });
        Self {
            index: 1,
            registers: Registers::default(),
            rip: 0x1000,
            rsp: 0x8000,
            rflags: Rflags::RESERVED1,
            cr0: Cr0::ET,
            cr3: 0,
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            pdptes: [0; 4],
            dr7: 0x400,
            dr6_bits: 0,
            breakpoints: [0; 4],
            struck: 0,
            pkru: 0,
            pkrs: 0,
            branch_targets: 0,
            cpl: 0,
            segments,
            gdtr: DescriptorTable::default(),
            idtr: DescriptorTable { base: 0, limit: 0x3ff },
            activity: Activity::Active,
            instruction_length: 3,
            is_delivering_event: false,
            injected: Vec::new(),
            invalidations: 0,
            debug_resets: 0,
            shadow_clears: 0,
            iterations: 0,
            is_nmi_blocked: None,
            is_delivery_finished: false,
        }
    }

    /// In flat 32-bit protected mode without paging, CPL 0.
    pub(crate) fn protected_mode() -> Self {
        let mut vcpu = Self { cr0: Cr0::PE | Cr0::ET, ..Self::real_mode() };
        for register in SegmentRegister::ALL.into_iter().take(6) {
            let rights = if register == SegmentRegister::Cs { CODE32 } else { DATA32 };
            vcpu.set_segment(register, flat(rights));
        }
        vcpu
    }

    /// In 64-bit mode, CPL 0, four-level paging with its PML4 at 0x1000.
    pub(crate) fn long_mode() -> Self {
        let mut vcpu = Self {
            cr0: Cr0::PE | Cr0::ET | Cr0::PG | Cr0::WP,
            cr3: 0x1000,
            cr4: Cr4::PAE,
            efer: Efer::LME | Efer::LMA | Efer::NXE,
            ..Self::protected_mode()
        };
        vcpu.set_segment(SegmentRegister::Cs, flat(CODE64));
        vcpu
    }
}

/// A segment of 4 GiB at 0.
pub(crate) fn flat(rights: u32) -> Segment {
    Segment { selector: 0x10, base: 0, limit: 0xffff_ffff, rights: AccessRights::from_bits_retain(rights) }
}

impl RegisterState for FakeVcpu {
    fn registers(&self) -> &Registers {
        &self.registers
    }
    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }
    fn rip(&self) -> u64 {
        self.rip
    }
    fn set_rip(&mut self, rip: u64) {
        self.rip = rip;
    }
    fn rsp(&self) -> u64 {
        self.rsp
    }
    fn set_rsp(&mut self, rsp: u64) {
        self.rsp = rsp;
    }
    fn rflags(&self) -> Rflags {
        self.rflags
    }
    fn set_rflags(&mut self, rflags: Rflags) {
        self.rflags = rflags;
    }
    fn cpl(&self) -> u8 {
        self.cpl
    }
    fn segment(&self, register: SegmentRegister) -> Segment {
        self.segments[register as usize]
    }
    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        if register == SegmentRegister::Ss {
            self.cpl = segment.rights.dpl();
        }
        self.segments[register as usize] = segment;
    }
    fn idtr(&self) -> DescriptorTable {
        self.idtr
    }
    fn set_idtr(&mut self, idtr: DescriptorTable) {
        self.idtr = idtr;
    }
    fn gdtr(&self) -> DescriptorTable {
        self.gdtr
    }
    fn set_gdtr(&mut self, gdtr: DescriptorTable) {
        self.gdtr = gdtr;
    }
}

impl PagingState for FakeVcpu {
    fn cr0(&self) -> Cr0 {
        self.cr0
    }
    fn set_cr0(&mut self, cr0: Cr0) {
        self.cr0 = cr0;
    }
    fn cr3(&self) -> u64 {
        self.cr3
    }
    fn set_cr3(&mut self, cr3: u64) {
        self.cr3 = cr3;
    }
    fn cr4(&self) -> Cr4 {
        self.cr4
    }
    fn set_cr4(&mut self, cr4: Cr4) {
        self.cr4 = cr4;
    }
    fn efer(&self) -> Efer {
        self.efer
    }
    fn set_efer(&mut self, efer: Efer) {
        self.efer = efer;
    }
    fn pdptes(&self) -> [u64; 4] {
        self.pdptes
    }
    fn set_pdptes(&mut self, pdptes: [u64; 4]) {
        self.pdptes = pdptes;
    }
    fn invalidate_translations(&mut self) {
        self.invalidations += 1;
    }
    fn pkru(&self) -> u32 {
        self.pkru
    }
    fn pkrs(&self) -> u32 {
        self.pkrs
    }
}

impl EventState for FakeVcpu {
    fn dr7(&self) -> u64 {
        self.dr7
    }
    fn set_dr7(&mut self, dr7: u64) {
        self.dr7 = dr7;
    }
    fn breakpoint_addresses(&self) -> [u64; 4] {
        self.breakpoints
    }
    fn is_single_stepped(&self) -> bool {
        self.rflags.contains(Rflags::TF)
    }
    fn strike_breakpoints(&mut self, breakpoints: u64) {
        self.struck |= breakpoints;
    }
    fn reset_cr2_and_debug_registers(&mut self) {
        self.debug_resets += 1;
        self.dr7 = 0x400;
    }
    fn set_dr6_bits(&mut self, bits: u64) {
        self.dr6_bits |= bits;
    }
    fn expect_branch_target(&mut self) {
        self.branch_targets += 1;
    }
    fn end_user_call(&mut self, _bytes: u64) {}
    fn set_activity(&mut self, activity: Activity) {
        self.activity = activity;
    }
    fn clear_interrupt_shadow(&mut self) {
        self.shadow_clears += 1;
    }
    fn set_nmi_blocking(&mut self, is_blocking: bool) {
        self.is_nmi_blocked = Some(is_blocking);
    }
    fn finish_delivery(&mut self) {
        self.is_delivery_finished = true;
    }
    fn instruction_length(&self) -> u64 {
        self.instruction_length
    }
    fn is_delivering_event(&self) -> bool {
        self.is_delivering_event
    }
    fn advance_by(&mut self, length: u64) {
        self.rip += length;
    }
    fn iterate(&mut self) {
        self.iterations += 1;
    }
    fn inject(&mut self, event: Event) {
        self.injected.push(event);
    }
}

impl Vcpu for FakeVcpu {
    fn index(&self) -> usize {
        self.index
    }
}
