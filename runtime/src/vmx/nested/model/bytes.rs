//! Bytes that decide: what a fuzzer or a property test makes, and a model draws from.

/// What is left of the input; zeros behind its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(super) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (now, later) = self.0.split_at(self.0.len().min(N));
        array[..now.len()].copy_from_slice(now);
        self.0 = later;
        array
    }

    pub(super) fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// One of `choices`.
    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A number of several kinds: anything, small, a single bit, all but a bit.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() % 5 {
            0 => self.long(),
            1 => self.byte().into(),
            2 => 1 << (self.byte() % 64),
            3 => !(1 << (self.byte() % 64)),
            _ => self.word().into(),
        }
    }
}
