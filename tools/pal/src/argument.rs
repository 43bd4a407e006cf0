//! What a PAL can be called with: integers, and memory that is copied in and back out.

use core::marker::PhantomData;
use trustvisor::parameter::{ParameterRecord, ParameterType};

/// An argument of a PAL's entry.
pub trait Argument: sealed::Argument {
    /// Its record in the parameter list.
    const RECORD: ParameterRecord;

    /// The argument as a call carries it.
    fn pass<'a>(self) -> Passed<'a>
    where
        Self: Sized + 'a;
}

/// An argument on its way to the PAL; memory that it names is borrowed for as long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed<'a> {
    pub(crate) record: ParameterRecord,
    pub(crate) word: usize,
    memory: PhantomData<&'a mut u8>,
}

/// Memory of which any content is a value, in whole words of this process.
pub trait Words: Copy + sealed::AnyBits {
    /// Its size in words.
    const COUNT: u64 = {
        assert!(
            size_of::<Self>().is_multiple_of(size_of::<usize>()),
            "a PAL's pointer names whole words: 4 or 8 bytes"
        );
        (size_of::<Self>() / size_of::<usize>()) as u64
    };
}

impl<T: Copy + sealed::AnyBits> Words for T {}

impl<T: Words> Argument for &mut T {
    const RECORD: ParameterRecord = pointer(T::COUNT);

    fn pass<'a>(self) -> Passed<'a>
    where
        Self: 'a,
    {
        let word = (&raw mut *self).expose_provenance();
        Passed { record: Self::RECORD, word, memory: PhantomData }
    }
}

/// The record of an integer.
#[must_use]
pub const fn integer() -> ParameterRecord {
    ParameterRecord { kind: ParameterType::Integer as u32, unused: 0, words: 1 }
}

/// The record of a pointer to `words` words.
#[must_use]
pub const fn pointer(words: u64) -> ParameterRecord {
    ParameterRecord { kind: ParameterType::Pointer as u32, unused: 0, words }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl sealed::Argument for $integer {}

        impl Argument for $integer {
            const RECORD: ParameterRecord = integer();

            fn pass<'a>(self) -> Passed<'a> {
                Passed { record: integer(), word: self as usize, memory: PhantomData }
            }
        }
    )*};
}

integers!(u8, u16, u32, usize, i8, i16, i32, isize);

mod sealed {
    /// Types whose record tells the truth.
    pub trait Argument {}

    impl<T: super::Words> Argument for &mut T {}

    /// Types of which any content is a value.
    pub trait AnyBits {}

    macro_rules! any_bits {
        ($($integer:ty),*) => { $(impl AnyBits for $integer {})* };
    }

    any_bits!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);
    impl<T: AnyBits, const N: usize> AnyBits for [T; N] {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_type_and_size() {
        assert_eq!(<u32 as Argument>::RECORD, integer());
        assert_eq!(<&mut [u32; 6] as Argument>::RECORD, pointer(3));
        assert_eq!(<&mut [[u8; 4]; 4] as Argument>::RECORD, pointer(2));
    }

    #[test]
    fn integers_keep_their_sign_in_a_word() {
        assert_eq!(((-1i32).pass().word, 0xffu8.pass().word), (usize::MAX, 0xff));
    }
}
