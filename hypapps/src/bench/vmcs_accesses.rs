//! Tells how often the hypervisor has executed VMREAD and VMWRITE: CPUID leaf 0x53434D56 returns the lower
//! halves of both counts in EAX and EBX, and its own number in EDX.
#![no_std]
#![no_main]

use runtime::hypapp::Hypapp;
use runtime::services::vmcs_accesses;
use runtime::vcpu::Vcpu;
use x86::cpuid::CpuidResult;

struct VmcsAccesses;

const LEAF: u32 = u32::from_le_bytes(*b"VMCS");

impl Hypapp for VmcsAccesses {
    #[expect(clippy::cast_possible_truncation, reason = "differences count")]
    fn cpuid(&self, _vcpu: &mut dyn Vcpu, leaf: u32, _subleaf: u32) -> Option<CpuidResult> {
        let accesses = vmcs_accesses();
        (leaf == LEAF).then_some(CpuidResult {
            eax: accesses.reads as u32,
            ebx: accesses.writes as u32,
            ecx: 0,
            edx: LEAF,
        })
    }
}

runtime::hypapp!(VmcsAccesses);
