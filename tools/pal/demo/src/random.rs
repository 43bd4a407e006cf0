//! Numbers that look random, the same ones for the same seed.

/// A generator by xorshift (Marsaglia, "Xorshift RNGs").
#[derive(Clone, Copy, Debug)]
pub struct Random(u32);

impl Random {
    /// A generator that begins with `seed`.
    #[must_use]
    pub fn new(seed: usize) -> Self {
        let seed = u32::try_from(seed as u64 & 0xffff_ffff).unwrap_or(0);
        // Zero would stay zero.
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next number.
    pub fn number(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// The next number, below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.number() as usize % limit
    }
}
