//! A processor with all of VMX, and sound VMCSs of every mode of a guest, for tests to break.

use super::{
    Entry, EntryFailure, Failure, LoadedPdptes, Processor, check_controls_and_host, check_guest_state,
};
use crate::memory::guest::fake::FakeMemory;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::vmcs12::fields::{self, COUNT};
use hw::Vmcs;
use hw::sim::SimMsrs;
use x86::address::GuestPhysAddr;
use x86::msr::Msr;
use x86::vmx::capability::Allowed;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

/// Must-be-one bits of pin-based, primary, exit and entry controls where there are TRUE registers.
pub(crate) const DEFAULT_1: [u32; 4] = [0x16, 0x0400_6172, 0x3_6dfb, 0x11fb];
pub(crate) const REVISION: u32 = 0x2b;
/// Pages of the fake memory that a sound VMCS names.
pub(crate) const VIRTUAL_APIC: u64 = 0x3000;
pub(crate) const LINKED: u64 = 0x4000;
pub(crate) const CURRENT: GuestPhysAddr = GuestPhysAddr::new(0x6000);
pub(crate) const PDPTES: u64 = 0x5020;

/// The VMX capability MSRs of a processor that has everything.
pub(crate) fn hardware() -> Vec<(Msr, u64)> {
    let all = |must: u32| 0xffff_ffff << 32 | u64::from(must);
    let [pin, primary, exit, entry] = DEFAULT_1;
    vec![
        (Msr::IA32_VMX_BASIC, 0x0182_1000_0000_0000 | 1 << 54 | u64::from(REVISION)),
        (Msr::IA32_VMX_PINBASED_CTLS, all(pin)),
        (Msr::IA32_VMX_PROCBASED_CTLS, all(primary | 0x1_8000)),
        (Msr::IA32_VMX_EXIT_CTLS, all(exit | 4)),
        (Msr::IA32_VMX_ENTRY_CTLS, all(entry | 4)),
        (Msr::IA32_VMX_MISC, 0xffff_ffff_7004_c1e7),
        (Msr::IA32_VMX_CR0_FIXED0, 0x8000_0021),
        (Msr::IA32_VMX_CR0_FIXED1, 0xffff_ffff),
        (Msr::IA32_VMX_CR4_FIXED0, 0x2000),
        (Msr::IA32_VMX_CR4_FIXED1, 0x1_01ff_ffff & !(1 << 15)),
        (Msr::IA32_VMX_VMCS_ENUM, 0x2e),
        (Msr::IA32_VMX_PROCBASED_CTLS2, all(0)),
        (Msr::IA32_VMX_EPT_VPID_CAP, !0),
        (Msr::IA32_VMX_TRUE_PINBASED_CTLS, all(pin)),
        (Msr::IA32_VMX_TRUE_PROCBASED_CTLS, all(primary)),
        (Msr::IA32_VMX_TRUE_EXIT_CTLS, all(exit)),
        (Msr::IA32_VMX_TRUE_ENTRY_CTLS, all(entry)),
        (Msr::IA32_PERF_GLOBAL_CTRL, 0),
        (Msr::IA32_S_CET, 0),
    ]
}

/// L1's processor, and its memory.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(super) capability: Capability,
    pub(super) processor: Processor,
    pub(super) memory: FakeMemory,
    pub(crate) is_ia32e: bool,
}

impl Fixture {
    /// Everything there is, in IA-32e mode.
    pub(crate) fn new() -> Self {
        let mut capability = Capability::of(&SimMsrs::new(hardware()), 39).unwrap();
        // Not offered, and yet their checks must be right once they are.
        let also = |allowed: &mut Allowed, bits: u64| allowed.0 |= bits << 32;
        also(&mut capability.secondary, 1 << 22);
        also(&mut capability.exit, 1 << 23 | 1 << 29);
        also(&mut capability.entry, 1 << 16 | 1 << 22);
        let processor = Processor {
            linear_address_bits: 48,
            cr3_reserved: !0 << 39,
            efer: 0xd01,
            debugctl: 0xffc7,
            perf_global_ctrl: 0x7_0000_000f,
            s_cet: !(0xf << 6),
            lbr_ctl: 0x7f_000f,
            has_sgx: true,
            has_rtm: true,
            has_bus_lock_detection: true,
        };
        let memory = FakeMemory::new(0x8000);
        memory.put(VIRTUAL_APIC + 0x80, &[0x50]);
        for vmcs in [LINKED, CURRENT.get()] {
            memory.put(vmcs, &REVISION.to_le_bytes());
        }
        for (index, pdpte) in [0x6001, 0, 0x7019, 0x6e00].into_iter().enumerate() {
            memory.put_u64(PDPTES + 8 * index as u64, pdpte);
        }
        Self { capability, processor, memory, is_ia32e: true }
    }

    /// The checks in the order of a VM entry.
    pub(super) fn check(&self, vmcs: &FakeVmcs) -> Result<LoadedPdptes, Broken> {
        let entry = Entry::new(vmcs, &self.capability, &self.processor, self.is_ia32e, Some(CURRENT));
        check_controls_and_host(&entry, &self.memory).map_err(Broken::Before)?;
        check_guest_state(&entry, &self.memory).map_err(Broken::Entry)
    }

    /// The rule that `vmcs` breaks first.
    pub(super) fn broken_rule(&self, vmcs: &FakeVmcs) -> Option<&'static str> {
        match self.check(vmcs) {
            Ok(_) | Err(Broken::Entry(EntryFailure::MsrLoading { .. })) => None,
            Err(Broken::Before(failure)) => Some(failure.rule),
            Err(Broken::Entry(EntryFailure::GuestState { rule, .. })) => Some(rule),
        }
    }
}

/// VMCS12 as an array.
#[derive(Clone, Debug)]
pub(crate) struct FakeVmcs([u64; COUNT]);

impl FakeVmcs {
    /// The field with this encoding.
    pub(crate) fn value(&self, encoding: u32) -> u64 {
        self.0[fields::index(encoding).unwrap()]
    }

    /// Sets the field with this encoding, which `value` fits.
    pub(crate) fn set_value(&mut self, encoding: u32, value: u64) {
        self.0[fields::index(encoding).unwrap()] = value;
    }
}

impl FakeVmcs {
    /// Writes any field.
    pub(crate) fn write<T: FieldValue, const IS_TRUSTED: bool>(
        &mut self,
        field: Field<T, IS_TRUSTED>,
        value: T,
    ) {
        self.set_value(field.encoding(), value.to_u64());
    }
}

// UNSAFETY: a contract about a processor, which a fake asks nothing for.
#[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
impl Vmcs for FakeVmcs {
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        T::from_u64(self.value(field.encoding()))
    }

    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        self.write(field, value);
    }

    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        self.write(field, value);
    }
}

/// How an entry fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Before(Failure),
    Entry(EntryFailure),
}

/// A mode of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Bits64,
    Pae,
    PaeUnderEpt,
    Virtual8086,
    Real,
    /// 64-bit, with every control that has fields of its own.
    Everything,
}

pub(crate) const MODES: [Mode; 6] =
    [Mode::Bits64, Mode::Pae, Mode::PaeUnderEpt, Mode::Virtual8086, Mode::Real, Mode::Everything];

/// A VMCS that every check accepts.
pub(crate) fn sound(mode: Mode) -> FakeVmcs {
    let mut vmcs = FakeVmcs([0; COUNT]);
    let [pin, primary, exit, entry] = DEFAULT_1;
    vmcs.write(vmcs::PIN_BASED_CONTROLS, pin);
    vmcs.write(vmcs::PRIMARY_CONTROLS, primary | 1 << 31);
    vmcs.write(vmcs::EXIT_CONTROLS, exit | 1 << 9);
    vmcs.write(vmcs::ENTRY_CONTROLS, entry | 1 << 9);
    host(&mut vmcs);
    guest(&mut vmcs);
    match mode {
        Mode::Bits64 => {}
        Mode::Pae => leave_ia32e(&mut vmcs),
        Mode::PaeUnderEpt => {
            leave_ia32e(&mut vmcs);
            use_ept(&mut vmcs, 0);
            vmcs.write(vmcs::GUEST_PDPTE0, 0x6001);
        }
        Mode::Virtual8086 => {
            leave_ia32e(&mut vmcs);
            virtual_8086(&mut vmcs);
        }
        Mode::Real => {
            leave_ia32e(&mut vmcs);
            use_ept(&mut vmcs, 1 << 7);
            vmcs.write(vmcs::GUEST_CR0, 0x20);
            vmcs.write(vmcs::GUEST_CS_LIMIT, 0xffff);
            vmcs.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0x93);
        }
        Mode::Everything => everything(&mut vmcs),
    }
    vmcs
}

fn host(vmcs: &mut FakeVmcs) {
    vmcs.write(vmcs::HOST_CR0, 0x8005_0033);
    vmcs.write(vmcs::HOST_CR3, 0x1000);
    vmcs.write(vmcs::HOST_CR4, 0x2020);
    vmcs.write(vmcs::HOST_CS_SELECTOR, 0x10);
    vmcs.write(vmcs::HOST_TR_SELECTOR, 0x40);
    vmcs.write(vmcs::HOST_RIP, 0xffff_8000_0000_1000);
    vmcs.write(vmcs::HOST_EFER, 0xd01);
    vmcs.write(vmcs::HOST_PAT, 0x0007_0406_0007_0406);
}

fn guest(vmcs: &mut FakeVmcs) {
    vmcs.write(vmcs::GUEST_CR0, 0x8005_0033);
    vmcs.write(vmcs::GUEST_CR3, PDPTES);
    vmcs.write(vmcs::GUEST_CR4, 0x2020);
    vmcs.write(vmcs::GUEST_EFER, 0xd01);
    vmcs.write(vmcs::GUEST_PAT, 0x0007_0406_0007_0406);
    vmcs.write(vmcs::GUEST_DR7, 0x400);
    vmcs.write(vmcs::GUEST_RIP, 0x7f_ffff_f000);
    vmcs.write(vmcs::GUEST_RFLAGS, 0x202);
    vmcs.write(vmcs::VMCS_LINK_POINTER, !0);
    for (selector, limit, rights) in DATA {
        vmcs.write(selector, 0x18);
        vmcs.write(limit, 0xffff_ffff);
        vmcs.write(rights, 0xc093);
    }
    vmcs.write(vmcs::GUEST_CS_SELECTOR, 0x10);
    vmcs.write(vmcs::GUEST_CS_LIMIT, 0xffff_ffff);
    vmcs.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
    vmcs.write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, 1 << 16);
    vmcs.write(vmcs::GUEST_TR_SELECTOR, 0x40);
    vmcs.write(vmcs::GUEST_TR_LIMIT, 0x67);
    vmcs.write(vmcs::GUEST_TR_ACCESS_RIGHTS, 0x8b);
}

/// Selector, limit and rights of the data segments.
const DATA: [(Field<u16>, Field<u32>, Field<u32>); 5] = [
    (vmcs::GUEST_ES_SELECTOR, vmcs::GUEST_ES_LIMIT, vmcs::GUEST_ES_ACCESS_RIGHTS),
    (vmcs::GUEST_SS_SELECTOR, vmcs::GUEST_SS_LIMIT, vmcs::GUEST_SS_ACCESS_RIGHTS),
    (vmcs::GUEST_DS_SELECTOR, vmcs::GUEST_DS_LIMIT, vmcs::GUEST_DS_ACCESS_RIGHTS),
    (vmcs::GUEST_FS_SELECTOR, vmcs::GUEST_FS_LIMIT, vmcs::GUEST_FS_ACCESS_RIGHTS),
    (vmcs::GUEST_GS_SELECTOR, vmcs::GUEST_GS_LIMIT, vmcs::GUEST_GS_ACCESS_RIGHTS),
];

fn leave_ia32e(vmcs: &mut FakeVmcs) {
    vmcs.write(vmcs::ENTRY_CONTROLS, DEFAULT_1[3]);
    vmcs.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xc09b);
    vmcs.write(vmcs::GUEST_RIP, 0x7c00);
}

fn use_ept(vmcs: &mut FakeVmcs, also: u32) {
    vmcs.write(vmcs::SECONDARY_CONTROLS, 1 << 1 | also);
    vmcs.write(vmcs::EPT_POINTER, 0x2000 | 3 << 3 | 6);
}

fn virtual_8086(vmcs: &mut FakeVmcs) {
    vmcs.write(vmcs::GUEST_RFLAGS, 0x2_0202);
    for (selector, limit, rights) in DATA {
        vmcs.write(selector, 0x2000);
        vmcs.write(limit, 0xffff);
        vmcs.write(rights, 0xf3);
    }
    vmcs.write(vmcs::GUEST_CS_SELECTOR, 0x2000);
    vmcs.write(vmcs::GUEST_CS_LIMIT, 0xffff);
    vmcs.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xf3);
    for base in [
        vmcs::GUEST_ES_BASE,
        vmcs::GUEST_CS_BASE,
        vmcs::GUEST_SS_BASE,
        vmcs::GUEST_DS_BASE,
        vmcs::GUEST_FS_BASE,
        vmcs::GUEST_GS_BASE,
    ] {
        vmcs.write(base, 0x2_0000);
    }
}

fn everything(vmcs: &mut FakeVmcs) {
    // External interrupts, NMIs, virtual NMIs, preemption timer, posted interrupts.
    add(vmcs, vmcs::PIN_BASED_CONTROLS, 0xe9);
    // TSC offset, TPR shadow, I/O and MSR bitmaps.
    add(vmcs, vmcs::PRIMARY_CONTROLS, 1 << 3 | 1 << 21 | 1 << 25 | 1 << 28);
    // APIC accesses, EPT, VPID, unrestricted, APIC registers, interrupt delivery, shadowing, PML, TSC scaling.
    vmcs.write(vmcs::SECONDARY_CONTROLS, 0x3a3 | 1 << 14 | 1 << 17 | 1 << 25);
    // Debug controls, acknowledge, PERF, PAT, EFER, timer, BNDCFGS, CET, PKRS.
    add(vmcs, vmcs::EXIT_CONTROLS, 4 | 1 << 12 | 1 << 15 | 0x1f << 18 | 1 << 23 | 3 << 28);
    add(vmcs, vmcs::ENTRY_CONTROLS, 4 | 0xf << 13 | 1 << 20 | 1 << 22);
    vmcs.write(vmcs::EPT_POINTER, 0x2000 | 1 << 6 | 3 << 3);
    vmcs.write(vmcs::VPID, 1);
    vmcs.write(vmcs::TSC_MULTIPLIER, 1 << 48);
    vmcs.write(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xf2);
    vmcs.write(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 0x1040);
    for field in [
        vmcs::IO_BITMAP_A,
        vmcs::IO_BITMAP_B,
        vmcs::MSR_BITMAPS,
        vmcs::VIRTUAL_APIC_ADDRESS,
        vmcs::APIC_ACCESS_ADDRESS,
        vmcs::PML_ADDRESS,
        vmcs::VMREAD_BITMAP_ADDRESS,
        vmcs::VMWRITE_BITMAP_ADDRESS,
        vmcs::EXIT_MSR_STORE_ADDRESS,
        vmcs::EXIT_MSR_LOAD_ADDRESS,
        vmcs::ENTRY_MSR_LOAD_ADDRESS,
    ] {
        vmcs.write(field, VIRTUAL_APIC);
    }
    for count in [vmcs::EXIT_MSR_STORE_COUNT, vmcs::EXIT_MSR_LOAD_COUNT, vmcs::ENTRY_MSR_LOAD_COUNT] {
        vmcs.write(count, 3);
    }
    vmcs.write(vmcs::GUEST_LDTR_SELECTOR, 0x48);
    vmcs.write(vmcs::GUEST_LDTR_LIMIT, 0xffff);
    vmcs.write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, 0x82);
}

fn add<T: FieldValue + core::ops::BitOr<Output = T>, const IS_TRUSTED: bool>(
    vmcs: &mut FakeVmcs,
    field: Field<T, IS_TRUSTED>,
    bits: T,
) {
    vmcs.write(field, vmcs.read(field) | bits);
}
