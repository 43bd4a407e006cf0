//! Guest/host masks and read shadows of L2's CR0 and CR4 (SDM, "Guest/Host Masks and Read Shadows for CR0 and CR4").

use super::capability::Capability;
use super::vmcs12::Vmcs12;
use hw::Vmcs;
use x86::cr::Cr0;
use x86::vmx::vmcs;

/// CR0 bits of L2 that the hypervisor owns: entries and exits do not switch them.
pub(super) const CR0_OF_L0: Cr0 = Cr0::NW.union(Cr0::CD);

/// Mask and read shadow of CR0. Of the cache bits L2 has L1's, as an entry does not load them; where L1 owns
/// them, it sees L1's shadow.
pub(super) fn cr0_at_entry(vmcs12: &impl Vmcs, l1: Cr0) -> (u64, u64) {
    let mask = vmcs12.read(vmcs::CR0_MASK);
    let value = vmcs12.read(vmcs::GUEST_CR0) & !CR0_OF_L0.bits() | (l1 & CR0_OF_L0).bits();
    (mask | CR0_OF_L0.bits(), vmcs12.read(vmcs::CR0_READ_SHADOW) & mask | value & !mask)
}

/// Mask and read shadow of CR4: bits that were not offered are the hypervisor's, so that L2 cannot set them either.
pub(super) fn cr4_at_entry(vmcs12: &impl Vmcs, capability: &Capability) -> (u64, u64) {
    let mask = vmcs12.read(vmcs::CR4_MASK);
    let value = vmcs12.read(vmcs::GUEST_CR4);
    (mask | !capability.cr4_fixed[1], vmcs12.read(vmcs::CR4_READ_SHADOW) & mask | value & !mask)
}

/// CR0 of L2. The hardware's cache bits are the hypervisor's: L2's are in its read shadow, or, where L1 owns
/// them, still those of L1 at the entry.
pub(super) fn cr0_at_exit(vmcs02: &impl Vmcs, vmcs12: &Vmcs12) -> u64 {
    let l1_owns = vmcs12.read(vmcs::CR0_MASK);
    let seen = vmcs02.read(vmcs::CR0_READ_SHADOW);
    let cache_bits = vmcs12.cache_bits.bits() & l1_owns | seen & !l1_owns;
    vmcs02.read(vmcs::GUEST_CR0) & !CR0_OF_L0.bits() | cache_bits & CR0_OF_L0.bits()
}
