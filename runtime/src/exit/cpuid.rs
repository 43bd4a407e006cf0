//! CPUID: the processor's own answer, with a policy laid over it.
//!
//! The guest sees the real processor. Hidden is only what would break isolation or what the hypervisor
//! keeps for itself:
//!
//! - virtualization, unless the guest may be a hypervisor, and SMX, whose GETSEC would launch over us;
//! - processor trace and the debug store (PEBS): both write records to memory that the guest names, and
//!   PEBS would do so with the hypervisor's own address space current;
//! - instructions whose enabling control this processor's virtualization lacks, or which exit for reasons of
//!   their own: accesses to lists of MSRs, to an MSR in an immediate operand, and from user mode;
//! - event delivery by FRED, which needs state that is not switched;
//! - the successor of PEBS, which writes to memory by physical address;
//! - five-level paging where this processor would not enter a guest with all that it may then have in registers.
//!
//! Bits that mirror a CR4 bit follow the guest's CR4. SGX and its launch control stay as the hardware has
//! them: an enclave's accesses go through the second-level tables like any other, so it reaches nothing that
//! its guest could not. The leaves at 0x40000000 name this hypervisor only where the hardware reports none:
//! a guest that found an outer hypervisor must keep finding that one's interface.

use super::Action;
use crate::hypapp::Hypapp;
use crate::vcpu::Vcpu;
use bitflags::bitflags;
use hw::Cpuid;
use x86::cpuid::{
    CpuidResult, Leaf1Ecx, Leaf1Edx, Leaf7Ebx, Leaf7Ecx, Leaf7Edx, Leaf7Sub1Eax, Leaf7Sub1Ecx, Leaf7Sub1Edx,
    Leaf19Ebx, Leaf80000001Edx, LeafDSub1Eax,
};
use x86::cr::Cr4;

/// Leaf and answer by which software counts the hypervisors of our kind beneath it: "XMHF".
pub const MARKER: u32 = u32::from_le_bytes(*b"XMHF");

bitflags! {
    /// Instructions that raise #UD in a guest unless a control enables them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Instructions: u32 {
        /// RDTSCP and RDPID.
        const RDTSCP = 1 << 0;
        /// INVPCID.
        const INVPCID = 1 << 1;
        /// XSAVES and XRSTORS.
        const XSAVES = 1 << 2;
        /// UMONITOR, UMWAIT and TPAUSE.
        const WAITPKG = 1 << 3;
        /// PCONFIG.
        const PCONFIG = 1 << 4;
    }
}

/// What the guest's CPUID shows beyond, or short of, the hardware's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidPolicy {
    /// Show that the processor can virtualize: the guest may be a hypervisor.
    pub nested: bool,
    /// Set the hypervisor-present bit even where the hardware does not.
    pub hypervisor_bit: bool,
    /// Instructions that the guest cannot be given.
    pub without: Instructions,
    /// Hide five-level paging.
    pub hides_la57: bool,
}

/// Answers CPUID: the hypapp first, then the policy.
pub fn handle<V: Vcpu>(
    vcpu: &mut V,
    hypapp: &dyn Hypapp,
    policy: &CpuidPolicy,
    cpuid: &impl Cpuid,
) -> Action {
    let (leaf, subleaf) = (low(vcpu.registers().rax()), low(vcpu.registers().rcx()));
    let result = match hypapp.cpuid(vcpu, leaf, subleaf) {
        Some(result) => result,
        None => answer(vcpu, policy, cpuid, leaf, subleaf),
    };
    let registers = vcpu.registers_mut();
    registers.set_rax(result.eax.into());
    registers.set_rbx(result.ebx.into());
    registers.set_rcx(result.ecx.into());
    registers.set_rdx(result.edx.into());
    Action::Advance
}

/// Returns the policy's answer.
fn answer<V: Vcpu>(
    vcpu: &V,
    policy: &CpuidPolicy,
    cpuid: &impl Cpuid,
    leaf: u32,
    subleaf: u32,
) -> CpuidResult {
    let hardware = cpuid.cpuid(leaf, subleaf);
    match leaf {
        1 => features(hardware, policy, vcpu.cr4()),
        7 => extended_features(hardware, policy, subleaf, vcpu.cr4()),
        0xd if subleaf == 1 => without(hardware, policy, Instructions::XSAVES, |result| {
            result.eax &= !LeafDSub1Eax::XSAVES.bits()
        }),
        0x14 => CpuidResult::default(),
        0x23 => performance(hardware, subleaf),
        0x19 => CpuidResult {
            ebx: mirror(hardware.ebx, Leaf19Ebx::AESKLE.bits(), vcpu.cr4(), Cr4::KL),
            ..hardware
        },
        0x4000_0000 | 0x4000_0001 if !has_outer_hypervisor(cpuid) => signature(leaf),
        0x8000_0001 => without(hardware, policy, Instructions::RDTSCP, |result| {
            result.edx &= !Leaf80000001Edx::RDTSCP.bits()
        }),
        0x8000_0008 if policy.hides_la57 => CpuidResult { eax: four_levels(hardware.eax), ..hardware },
        MARKER => markers(hardware),
        _ => hardware,
    }
}

fn features(mut result: CpuidResult, policy: &CpuidPolicy, cr4: Cr4) -> CpuidResult {
    result.ecx &= !(Leaf1Ecx::SMX | Leaf1Ecx::DTES64 | Leaf1Ecx::DS_CPL).bits();
    result.edx &= !Leaf1Edx::DS.bits();
    if !policy.nested {
        result.ecx &= !Leaf1Ecx::VMX.bits();
    }
    if policy.hypervisor_bit {
        result.ecx |= Leaf1Ecx::HYPERVISOR.bits();
    }
    result.ecx = mirror(result.ecx, Leaf1Ecx::OSXSAVE.bits(), cr4, Cr4::OSXSAVE);
    result
}

fn extended_features(mut result: CpuidResult, policy: &CpuidPolicy, subleaf: u32, cr4: Cr4) -> CpuidResult {
    match subleaf {
        0 => {}
        1 => return extended_features_1(result),
        _ => return result,
    }
    result.ebx &= !Leaf7Ebx::PROCESSOR_TRACE.bits();
    result.ecx = mirror(result.ecx, Leaf7Ecx::OSPKE.bits(), cr4, Cr4::PKE);
    if policy.hides_la57 {
        result.ecx &= !Leaf7Ecx::LA57.bits();
    }
    result = without(result, policy, Instructions::RDTSCP, |result| result.ecx &= !Leaf7Ecx::RDPID.bits());
    result = without(result, policy, Instructions::INVPCID, |result| result.ebx &= !Leaf7Ebx::INVPCID.bits());
    result = without(result, policy, Instructions::WAITPKG, |result| result.ecx &= !Leaf7Ecx::WAITPKG.bits());
    without(result, policy, Instructions::PCONFIG, |result| result.edx &= !Leaf7Edx::PCONFIG.bits())
}

fn extended_features_1(mut result: CpuidResult) -> CpuidResult {
    result.eax &= !(Leaf7Sub1Eax::FRED | Leaf7Sub1Eax::MSRLIST).bits();
    result.ecx &= !Leaf7Sub1Ecx::MSR_IMM.bits();
    result.edx &= !Leaf7Sub1Edx::USER_MSR.bits();
    result
}

/// Leaf 23H (SDM, "CPUID-CPU Identification", architectural performance monitoring extended): without the subleaves of
/// PEBS.
fn performance(hardware: CpuidResult, subleaf: u32) -> CpuidResult {
    const PEBS_SUBLEAVES: u32 = 1 << 4 | 1 << 5;
    match subleaf {
        0 => CpuidResult { eax: hardware.eax & !PEBS_SUBLEAVES, ..hardware },
        4 | 5 => CpuidResult::default(),
        _ => hardware,
    }
}

/// Leaf 8000_0008H: the widths of addresses, the linear one at most that of four levels of paging.
const fn four_levels(eax: u32) -> u32 {
    const LINEAR: u32 = 0xff << 8;
    const FOUR_LEVELS: u32 = 48 << 8;
    if eax & LINEAR > FOUR_LEVELS { eax & !LINEAR | FOUR_LEVELS } else { eax }
}

/// Clears a feature bit where the policy says that the guest cannot have the instruction.
fn without(
    mut result: CpuidResult,
    policy: &CpuidPolicy,
    instruction: Instructions,
    clear: impl FnOnce(&mut CpuidResult),
) -> CpuidResult {
    if policy.without.contains(instruction) {
        clear(&mut result);
    }
    result
}

/// Makes `bit` of `register` follow a CR4 bit of the guest; the hardware's shows the hypervisor's CR4.
fn mirror(register: u32, bit: u32, cr4: Cr4, enable: Cr4) -> u32 {
    if cr4.contains(enable) { register | bit } else { register & !bit }
}

fn has_outer_hypervisor(cpuid: &impl Cpuid) -> bool {
    cpuid.cpuid(1, 0).ecx & Leaf1Ecx::HYPERVISOR.bits() != 0
}

/// Version in leaf 0x40000001: major, minor and patch, a byte each.
const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | number(env!("CARGO_PKG_VERSION_PATCH"));

/// Returns the hypervisor's leaves: "XMHF" three times and the highest leaf, then the version.
fn signature(leaf: u32) -> CpuidResult {
    match leaf {
        0x4000_0000 => CpuidResult { eax: 0x4000_0001, ebx: MARKER, ecx: MARKER, edx: MARKER },
        _ => CpuidResult { eax: VERSION, ..CpuidResult::default() },
    }
}

/// Adds this hypervisor's marker behind those of the hypervisors beneath it.
fn markers(beneath: CpuidResult) -> CpuidResult {
    match beneath {
        CpuidResult { eax: MARKER, ebx: MARKER, ecx: MARKER, .. } => CpuidResult { edx: MARKER, ..beneath },
        CpuidResult { eax: MARKER, ebx: MARKER, .. } => CpuidResult { ecx: MARKER, ..beneath },
        CpuidResult { eax: MARKER, .. } => CpuidResult { ebx: MARKER, ..beneath },
        // Bare hardware answers a leaf beyond its last with data of another.
        _ => CpuidResult { eax: MARKER, ..CpuidResult::default() },
    }
}

/// Returns the number that decimal digits spell.
const fn number(digits: &str) -> u32 {
    let (bytes, mut value, mut at) = (digits.as_bytes(), 0, 0);
    while at < bytes.len() {
        value = value * 10 + (bytes[at] - b'0') as u32;
        at += 1;
    }
    value
}

/// Returns the lower half of a register, all that CPUID looks at.
#[expect(clippy::cast_possible_truncation, reason = "the upper half is ignored")]
fn low(register: u64) -> u32 {
    register as u32
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
