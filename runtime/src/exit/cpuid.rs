//! CPUID: the processor's own answer, with a policy laid over it.
//!
//! The guest sees the real processor. Hidden is only what would break isolation or what the hypervisor
//! keeps for itself:
//!
//! - VMX, until nesting can give it to the guest, and SMX, whose GETSEC would launch over us;
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
use x86::cpuid::CpuidResult;
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
    /// Show VMX.
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

/// The policy's answer.
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
        0xd if subleaf == 1 => {
            without(hardware, policy, Instructions::XSAVES, |result| result.eax &= !xsave::XSAVES)
        }
        0x14 => CpuidResult::default(),
        0x23 => performance(hardware, subleaf),
        0x19 => {
            CpuidResult { ebx: mirror(hardware.ebx, key_locker::AESKLE, vcpu.cr4(), Cr4::KL), ..hardware }
        }
        0x4000_0000 | 0x4000_0001 if !has_outer_hypervisor(cpuid) => signature(leaf),
        0x8000_0001 => {
            without(hardware, policy, Instructions::RDTSCP, |result| result.edx &= !amd_features::RDTSCP)
        }
        0x8000_0008 if policy.hides_la57 => CpuidResult { eax: four_levels(hardware.eax), ..hardware },
        MARKER => markers(hardware),
        _ => hardware,
    }
}

/// Leaf 1 (SDM, "CPUID-CPU Identification", feature information).
mod feature {
    pub(super) const ECX_DTES64: u32 = 1 << 2;
    pub(super) const ECX_DS_CPL: u32 = 1 << 4;
    pub(super) const ECX_VMX: u32 = 1 << 5;
    pub(super) const ECX_SMX: u32 = 1 << 6;
    pub(super) const ECX_OSXSAVE: u32 = 1 << 27;
    pub(super) const ECX_HYPERVISOR: u32 = 1 << 31;
    pub(super) const EDX_DS: u32 = 1 << 21;
}

fn features(mut result: CpuidResult, policy: &CpuidPolicy, cr4: Cr4) -> CpuidResult {
    use feature::{ECX_DS_CPL, ECX_DTES64, ECX_HYPERVISOR, ECX_OSXSAVE, ECX_SMX, ECX_VMX, EDX_DS};
    result.ecx &= !(ECX_SMX | ECX_DTES64 | ECX_DS_CPL);
    result.edx &= !EDX_DS;
    if !policy.nested {
        result.ecx &= !ECX_VMX;
    }
    if policy.hypervisor_bit {
        result.ecx |= ECX_HYPERVISOR;
    }
    result.ecx = mirror(result.ecx, ECX_OSXSAVE, cr4, Cr4::OSXSAVE);
    result
}

/// Leaf 7 (SDM, "CPUID-CPU Identification", structured extended feature flags).
mod extended_feature {
    pub(super) const EBX_INVPCID: u32 = 1 << 10;
    pub(super) const EBX_PROCESSOR_TRACE: u32 = 1 << 25;
    pub(super) const ECX_OSPKE: u32 = 1 << 4;
    pub(super) const ECX_LA57: u32 = 1 << 16;
    pub(super) const ECX_WAITPKG: u32 = 1 << 5;
    pub(super) const ECX_RDPID: u32 = 1 << 22;
    pub(super) const EDX_PCONFIG: u32 = 1 << 18;
}

/// Subleaf 1 of leaf 7: event delivery by FRED, and the newer ways to access MSRs.
mod extended_feature_1 {
    pub(super) const EAX_FRED: u32 = 1 << 17;
    pub(super) const EAX_MSRLIST: u32 = 1 << 27;
    pub(super) const ECX_MSR_IMM: u32 = 1 << 5;
    pub(super) const EDX_USER_MSR: u32 = 1 << 15;
}

fn extended_features(mut result: CpuidResult, policy: &CpuidPolicy, subleaf: u32, cr4: Cr4) -> CpuidResult {
    use extended_feature as bit;
    match subleaf {
        0 => {}
        1 => return extended_features_1(result),
        _ => return result,
    }
    result.ebx &= !bit::EBX_PROCESSOR_TRACE;
    result.ecx = mirror(result.ecx, bit::ECX_OSPKE, cr4, Cr4::PKE);
    if policy.hides_la57 {
        result.ecx &= !bit::ECX_LA57;
    }
    result = without(result, policy, Instructions::RDTSCP, |result| result.ecx &= !bit::ECX_RDPID);
    result = without(result, policy, Instructions::INVPCID, |result| result.ebx &= !bit::EBX_INVPCID);
    result = without(result, policy, Instructions::WAITPKG, |result| result.ecx &= !bit::ECX_WAITPKG);
    without(result, policy, Instructions::PCONFIG, |result| result.edx &= !bit::EDX_PCONFIG)
}

fn extended_features_1(mut result: CpuidResult) -> CpuidResult {
    use extended_feature_1 as bit;
    result.eax &= !(bit::EAX_FRED | bit::EAX_MSRLIST);
    result.ecx &= !bit::ECX_MSR_IMM;
    result.edx &= !bit::EDX_USER_MSR;
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

/// Leaf 0DH, subleaf 1.
mod xsave {
    pub(super) const XSAVES: u32 = 1 << 3;
}

/// Leaf 19H.
mod key_locker {
    pub(super) const AESKLE: u32 = 1 << 0;
}

/// Leaf 8000_0001H.
mod amd_features {
    pub(super) const RDTSCP: u32 = 1 << 27;
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
    cpuid.cpuid(1, 0).ecx & feature::ECX_HYPERVISOR != 0
}

/// Version in leaf 0x40000001: major, minor and patch, a byte each.
const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | number(env!("CARGO_PKG_VERSION_PATCH"));

/// The hypervisor's leaves: "XMHF" three times and the highest leaf, then the version.
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

/// The number that decimal digits spell.
const fn number(digits: &str) -> u32 {
    let (bytes, mut value, mut at) = (digits.as_bytes(), 0, 0);
    while at < bytes.len() {
        value = value * 10 + (bytes[at] - b'0') as u32;
        at += 1;
    }
    value
}

/// The lower half of a register, all that CPUID looks at.
#[expect(clippy::cast_possible_truncation, reason = "the upper half is ignored")]
fn low(register: u64) -> u32 {
    register as u32
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
