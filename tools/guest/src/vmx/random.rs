//! Numbers without a pattern, the same in every run.

/// A generator by shifts and exclusive ors.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this number, which is not 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.word() >> 33) % end
    }

    /// The next index of a list of `length`.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// 32 bits of which about a quarter are 1.
    pub fn sparse(&mut self) -> u32 {
        (self.word() as u32) & (self.word() >> 32) as u32
    }
}
