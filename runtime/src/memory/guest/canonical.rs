//! Canonical addresses (SDM, "Canonical Addressing").

use x86::cr::Cr4;

/// Returns whether the bits above the linear-address width repeat its highest bit (SDM, "Canonical Addressing").
#[must_use]
pub fn is_canonical(address: u64, cr4: Cr4) -> bool {
    let unused_bits = if cr4.contains(Cr4::LA57) { 7 } else { 16 };
    (address << unused_bits).cast_signed() >> unused_bits == address.cast_signed()
}
