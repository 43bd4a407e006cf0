//! What L1 goes on with after an exit (SDM, "Loading Host State").

use super::bytes::Bytes;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::{PagingState, Registers};
use crate::vmx::nested::exit::reflect::{self, InheritedByL1};
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use hw::sim::SimVmcs;
use x86::vmx::vmcs::{self, Field, TrustedField};

const CACHE_BITS: u64 = 3 << 29;
const MEMORY: u64 = 0x2000;
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
const PCIDE: u64 = 1 << 17;

/// Selector of the host, and what of the guest's segment is loaded from it: selector, base, limit, rights.
type Segment = (TrustedField<u16>, Field<u16>, Field<u64>, Field<u32>, Field<u32>);

macro_rules! segment {
    ($host:ident $selector:ident $base:ident $limit:ident $rights:ident) => {
        (vmcs::$host, vmcs::$selector, vmcs::$base, vmcs::$limit, vmcs::$rights)
    };
}

const DATA: [Segment; 5] = [
    segment!(HOST_ES_SELECTOR GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS),
    segment!(HOST_SS_SELECTOR GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS),
    segment!(HOST_DS_SELECTOR GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS),
    segment!(HOST_FS_SELECTOR GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS),
    segment!(HOST_GS_SELECTOR GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS),
];

/// An exit with the host state that `input` has leaves L1 as the model says.
pub(super) fn check(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let vmcs12 = drawn(&mut bytes);
    let (vmcs02, mut vmcs01) = (l2(&mut bytes), SimVmcs::default());
    for noise in [vmcs::GUEST_INTERRUPTIBILITY, vmcs::GUEST_ACTIVITY] {
        vmcs01.write(noise, bytes.byte().into());
    }
    let memory = FakeMemory::new(MEMORY as usize);
    for pdpte in 0..4 {
        memory.put_u64((vmcs12.read(vmcs::HOST_CR3) & 0xfe0) + 8 * pdpte, bytes.number());
    }
    let inherited = InheritedByL1::of(&vmcs02, &vmcs12);
    let mut registers = Registers::default();
    let mut l1 = VmxVcpu::new(vmcs01, &mut registers, 0);
    let is_loaded = reflect::load_host_state(&mut l1, &vmcs12, &inherited, &memory).is_ok();
    let is_long = vmcs12.read(vmcs::EXIT_CONTROLS) >> 9 & 1 == 1;
    assert_registers(&l1, &vmcs12, &vmcs02, is_long);
    assert_segments(&l1.vmcs, &vmcs12, is_long);
    let is_pae = !is_long && l1.cr0().bits() & PG != 0 && l1.cr4().bits() & PAE != 0;
    let table = (vmcs12.read(vmcs::HOST_CR3) & 0xffff_ffe0).min(MEMORY);
    let expected = if is_pae { pdptes(&memory, table) } else { Some(Vec::new()) };
    assert_eq!(is_loaded, expected.is_some(), "PDPTEs");
    assert!(!is_pae || !is_loaded || Some(l1.pdptes().to_vec()) == expected, "PDPTEs");
}

fn drawn(bytes: &mut Bytes<'_>) -> Vmcs12 {
    let mut vmcs12 = Vmcs12::new();
    vmcs12.write(vmcs::EXIT_CONTROLS, bytes.word());
    // The checks let pass only bits that the registers have.
    vmcs12.write(vmcs::HOST_CR0, bytes.number() & 0xe005_003f);
    vmcs12.write(vmcs::HOST_CR4, bytes.number() & 0x7f_3fff);
    for field in [vmcs::HOST_EFER, vmcs::HOST_PAT, vmcs::CR0_MASK.trusted()] {
        vmcs12.write(field, bytes.number());
    }
    vmcs12.write(vmcs::HOST_CR3, bytes.number() & 0x1fff);
    for field in [
        vmcs::HOST_RIP,
        vmcs::HOST_RSP,
        vmcs::HOST_FS_BASE,
        vmcs::HOST_GS_BASE,
        vmcs::HOST_TR_BASE,
        vmcs::HOST_GDTR_BASE,
        vmcs::HOST_IDTR_BASE,
        vmcs::HOST_SYSENTER_ESP,
        vmcs::HOST_SYSENTER_EIP,
    ] {
        vmcs12.write(field, bytes.number());
    }
    vmcs12.write(vmcs::HOST_SYSENTER_CS, bytes.word());
    for host in
        DATA.map(|segment| segment.0).into_iter().chain([vmcs::HOST_CS_SELECTOR, vmcs::HOST_TR_SELECTOR])
    {
        vmcs12.write(host, u16::from(bytes.byte() % 4) * 8);
    }
    vmcs12
}

/// L2 at its exit, which owns its cache bits.
fn l2(bytes: &mut Bytes<'_>) -> SimVmcs {
    let mut vmcs02 = SimVmcs::default();
    vmcs02.write(vmcs::CR0_READ_SHADOW, bytes.number());
    vmcs02.write(vmcs::GUEST_EFER, bytes.number());
    vmcs02.write(vmcs::GUEST_PAT, bytes.number());
    vmcs02
}

fn assert_registers(l1: &VmxVcpu<'_, SimVmcs>, vmcs12: &Vmcs12, vmcs02: &SimVmcs, is_long: bool) {
    let exit = |number: u32| vmcs12.read(vmcs::EXIT_CONTROLS) >> number & 1 == 1;
    if vmcs12.read(vmcs::CR0_MASK) & CACHE_BITS == 0 {
        let left = vmcs02.read(vmcs::CR0_READ_SHADOW) & CACHE_BITS;
        // NE is 1 in VMX operation, ET always.
        let cr0 = vmcs12.read(vmcs::HOST_CR0) & !CACHE_BITS | left | 1 << 4;
        assert_eq!((l1.cr0().bits() ^ cr0) & !(1 << 5), 0, "CR0");
    }
    let cr4 = vmcs12.read(vmcs::HOST_CR4);
    let cr4 = if is_long { cr4 | PAE } else { cr4 & !PCIDE };
    assert_eq!((l1.cr4().bits() ^ cr4) & !(1 << 13), 0, "CR4");
    let read = |field| l1.vmcs.read(field);
    let left = vmcs02.read(vmcs::GUEST_EFER) & !0x500 | if is_long { 0x500 } else { 0 };
    let efer = if exit(21) { vmcs12.read(vmcs::HOST_EFER) } else { left };
    let pat = if exit(19) { vmcs12.read(vmcs::HOST_PAT) } else { vmcs02.read(vmcs::GUEST_PAT) };
    for (field, expected) in [
        (vmcs::GUEST_EFER, efer),
        (vmcs::GUEST_PAT, pat),
        (vmcs::GUEST_CR3, vmcs12.read(vmcs::HOST_CR3)),
        (vmcs::GUEST_RIP, vmcs12.read(vmcs::HOST_RIP)),
        (vmcs::GUEST_RSP, vmcs12.read(vmcs::HOST_RSP)),
        (vmcs::GUEST_RFLAGS, 2),
        (vmcs::GUEST_DR7, 0x400),
        (vmcs::GUEST_DEBUGCTL, 0),
        (vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0),
        (vmcs::GUEST_SYSENTER_ESP, vmcs12.read(vmcs::HOST_SYSENTER_ESP)),
        (vmcs::GUEST_SYSENTER_EIP, vmcs12.read(vmcs::HOST_SYSENTER_EIP)),
        (vmcs::GUEST_GDTR_BASE, vmcs12.read(vmcs::HOST_GDTR_BASE)),
        (vmcs::GUEST_IDTR_BASE, vmcs12.read(vmcs::HOST_IDTR_BASE)),
        (vmcs::GUEST_TR_BASE, vmcs12.read(vmcs::HOST_TR_BASE)),
    ] {
        assert_eq!(read(field), expected, "field {:#x}", field.encoding());
    }
    let read = |field| l1.vmcs.read(field);
    for (field, expected) in [
        (vmcs::GUEST_SYSENTER_CS, vmcs12.read(vmcs::HOST_SYSENTER_CS)),
        (vmcs::GUEST_INTERRUPTIBILITY, 0),
        (vmcs::GUEST_ACTIVITY, 0),
        (vmcs::GUEST_GDTR_LIMIT, 0xffff),
        (vmcs::GUEST_IDTR_LIMIT, 0xffff),
        (vmcs::GUEST_TR_LIMIT, 0x67),
        (vmcs::GUEST_TR_ACCESS_RIGHTS, 0x8b),
    ] {
        assert_eq!(read(field), expected, "field {:#x}", field.encoding());
    }
    let is_unusable = l1.vmcs.read(vmcs::GUEST_LDTR_ACCESS_RIGHTS) >> 16 & 1 == 1;
    assert!(is_unusable && l1.vmcs.read(vmcs::GUEST_LDTR_SELECTOR) == 0, "LDTR");
}

fn assert_segments(vmcs: &SimVmcs, vmcs12: &Vmcs12, is_long: bool) {
    for (host, selector, base, limit, rights) in DATA {
        let value = vmcs12.read(host);
        let expected_base = match selector {
            vmcs::GUEST_FS_SELECTOR => vmcs12.read(vmcs::HOST_FS_BASE),
            vmcs::GUEST_GS_SELECTOR => vmcs12.read(vmcs::HOST_GS_BASE),
            _ => 0,
        };
        assert_eq!((vmcs.read(selector), vmcs.read(base), vmcs.read(limit)), (value, expected_base, !0));
        // Read, write, accessed data of level 0, present, 32 bits, pages; unusable where null.
        let unusable = u32::from(value == 0) << 16;
        assert_eq!(vmcs.read(rights), 0xc093 | unusable, "rights of {:#x}", selector.encoding());
    }
    let code = (vmcs.read(vmcs::GUEST_CS_BASE), vmcs.read(vmcs::GUEST_CS_LIMIT));
    assert_eq!((vmcs.read(vmcs::GUEST_CS_SELECTOR), code), (vmcs12.read(vmcs::HOST_CS_SELECTOR), (0, !0)));
    let size = if is_long { 1 << 13 } else { 1 << 14 };
    assert_eq!(vmcs.read(vmcs::GUEST_CS_ACCESS_RIGHTS), 0x809b | size, "rights of CS");
    assert_eq!(vmcs.read(vmcs::GUEST_TR_SELECTOR), vmcs12.read(vmcs::HOST_TR_SELECTOR), "TR");
}

/// The PDPTEs at `table`, unless one that is present has reserved bits set.
fn pdptes(memory: &FakeMemory, table: u64) -> Option<Vec<u64>> {
    const RESERVED: u64 = 0x1e6 | !0 << 39;
    let pdptes: Vec<_> = (0..4).map(|index| memory.get_u64(table + 8 * index)).collect();
    let is_right = |pdpte: &u64| pdpte & 1 == 0 || pdpte & RESERVED == 0;
    pdptes.iter().all(is_right).then_some(pdptes)
}
