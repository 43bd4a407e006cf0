//! The CPUID leaf by which a program finds TrustVisor, and a PAL itself.
//!
//! EAX = [`LEAF`], ECX = 0; in a guest of a guest, ECX = [`NESTED_OFFSET`](crate::command::NESTED_OFFSET).

/// The leaf.
pub const LEAF: u32 = 0x7a56_7254;
/// EAX where TrustVisor is there.
pub const PRESENT: u32 = 0x7a76_7274;
/// EBX outside a PAL; inside, EBX is the PAL's number, which is below [`PAL_NUMBER_LIMIT`].
pub const NOT_IN_PAL: u32 = 0xffff_ffff;
/// One more than the largest number of a PAL.
pub const PAL_NUMBER_LIMIT: u32 = 0x8000_0000;
/// Bit of ECX: the caller runs in 64-bit mode. EDX is 0.
pub const CALLER_IS_64_BIT: u32 = 1 << 0;
/// Bit of ECX: the caller runs in a guest of a guest, under extended page tables of its hypervisor's.
pub const CALLER_HAS_NESTED_TABLES: u32 = 1 << 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_know_the_bits_by_number() {
        assert_eq!((CALLER_IS_64_BIT, CALLER_HAS_NESTED_TABLES), (1, 2));
    }
}
