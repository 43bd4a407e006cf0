//! Answers, as they come (TPM 2.0 Library part 1, "Command/Response Structure"). `None` where one ends too early.

/// What is left of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    rest: &'a [u8],
}

impl<'a> Answer<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// Bytes behind their number, a TPM2B.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// All that is left.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_with_their_high_bytes_first() {
        let bytes: Vec<u8> = (1..=18).collect();
        let mut answer = Answer::new(&bytes);
        assert_eq!(answer.u8(), Some(1));
        assert_eq!(answer.u16(), Some(0x0203));
        assert_eq!(answer.u32(), Some(0x0405_0607));
        assert_eq!(answer.u64(), Some(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(answer.u32(), None);
        assert_eq!(answer.rest(), [16, 17, 18]);
        assert_eq!(Answer::new(&bytes[..7]).u64(), None);
    }
}
