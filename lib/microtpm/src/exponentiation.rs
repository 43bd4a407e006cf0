//! Exponentiation modulo a number of 1024 bits, a part at a time, in a time that depends on no value.
//!
//! RSA takes longer than a processor may go without interrupts. The exponent is worked off by windows of two bits, each
//! by two squares and a product, whatever the bits are (HAC, "14.82 Algorithm Left-to-right k-ary exponentiation"), and
//! a step takes as many of those as its caller wants.

use alloc::boxed::Box;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{CtAssign, CtEq, Odd, U1024};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bits of the exponent that are worked off at once.
const WINDOW_BITS: u32 = 2;
/// Modular products for each of them.
const WINDOW_PRODUCTS: u32 = WINDOW_BITS + 1;

/// An exponentiation under way; the memory is zeroed when it goes.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct Exponentiation {
    modulus: Odd<U1024>,
    base: U1024,
    exponent: U1024,
    /// Products that are left.
    left: u32,
    /// Apart, as stacks are small; it zeroes itself.
    #[zeroize(skip)]
    run: Option<Box<Run>>,
}

/// What the first steps make; all but the parameters is in Montgomery form.
#[derive(Clone, ZeroizeOnDrop)]
struct Run {
    /// How many powers there are.
    count: usize,
    params: FixedMontyParams<{ U1024::LIMBS }>,
    /// The base to the power of 0, 1, 2 and 3.
    powers: [U1024; 1 << WINDOW_BITS],
    result: U1024,
}

impl Exponentiation {
    /// Begins with `base` to the power of `exponent`, which has at most `bits` bits.
    pub(crate) fn new(modulus: Odd<U1024>, base: U1024, exponent: U1024, bits: u32) -> Self {
        Self { modulus, base, exponent, left: bits.div_ceil(WINDOW_BITS) * WINDOW_PRODUCTS, run: None }
    }

    /// Does a step of at most so many modular products, and gives the result where it was the last one.
    // Of this crate's size, not of its caller's speed.
    #[inline(never)]
    pub(crate) fn step(&mut self, products: u32) -> Option<U1024> {
        let Some(run) = &mut self.run else {
            self.run = Some(Run::new(self.modulus));
            return None;
        };
        if run.count < run.powers.len() {
            run.next_power(&self.base);
            return None;
        }
        for _ in 0..products {
            let Some(left) = self.left.checked_sub(1) else { break };
            self.left = left;
            if left % WINDOW_PRODUCTS == 0 {
                // Where the window is depends on no secret.
                let window = self.exponent.shr_vartime(left / WINDOW_PRODUCTS * WINDOW_BITS);
                run.multiply(window.as_words()[0]);
            } else {
                run.result = run.product(&run.result, &run.result);
            }
        }
        (self.left == 0).then(|| run.form(&run.result).retrieve())
    }
}

impl Run {
    #[inline(never)]
    fn new(modulus: Odd<U1024>) -> Box<Self> {
        let params = FixedMontyParams::new(modulus);
        let nothing = U1024::ZERO;
        let run = Self { count: 0, params, powers: [nothing; 1 << WINDOW_BITS], result: nothing };
        #[expect(clippy::disallowed_methods, reason = "in memory that is the microTPM's alone")]
        Box::new(run)
    }

    #[inline(never)]
    fn next_power(&mut self, base: &U1024) {
        self.result = *self.params.one();
        self.powers[self.count] = match self.count {
            0 => self.result,
            1 => FixedMontyForm::new(base, &self.params).to_montgomery(),
            count => self.product(&self.powers[count - 1], &self.powers[1]),
        };
        self.count += 1;
    }

    const fn form(&self, value: &U1024) -> FixedMontyForm<{ U1024::LIMBS }> {
        FixedMontyForm::from_montgomery(*value, &self.params)
    }

    #[inline(never)]
    fn product(&self, one: &U1024, other: &U1024) -> U1024 {
        self.form(one).mul(&self.form(other)).to_montgomery()
    }

    /// Multiplies by the power that the lowest window of `word` means; all are read, whichever it is.
    #[inline(never)]
    fn multiply(&mut self, word: u64) {
        let mut power = self.powers[0];
        for (digit, candidate) in (0..).zip(&self.powers) {
            let is_meant = (word & ((1 << WINDOW_BITS) - 1)).ct_eq(&digit);
            power.ct_assign(candidate, is_meant);
        }
        self.result = self.product(&self.result, &power);
        power.zeroize();
    }
}

impl core::fmt::Debug for Exponentiation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Exponentiation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto_bigint::BoxedUint;
    use proptest::prelude::*;

    /// The result, and how many steps it took.
    fn power(mut exponentiation: Exponentiation) -> (U1024, usize) {
        let mut steps = 0;
        loop {
            steps += 1;
            if let Some(result) = exponentiation.step(6) {
                return (result, steps);
            }
        }
    }

    #[test]
    fn small_powers_are_as_by_hand() {
        let modulus = Odd::new(U1024::from_u64(1009)).unwrap();
        let small = |base, exponent| {
            power(Exponentiation::new(modulus, U1024::from_u64(base), U1024::from_u64(exponent), 7)).0
        };
        assert_eq!(small(3, 0), U1024::ONE);
        assert_eq!(small(3, 1), U1024::from_u64(3));
        assert_eq!(small(3, 100), U1024::from_u64(pow_by_hand(3, 100, 1009)));
        assert_eq!(small(0, 5), U1024::ZERO);
    }

    fn pow_by_hand(base: u64, exponent: u64, modulus: u64) -> u64 {
        (0..exponent).fold(1, |product, _| product * base % modulus)
    }

    #[test]
    fn the_number_of_steps_hangs_on_the_sizes_alone() {
        let modulus = Odd::new(U1024::MAX).unwrap();
        let steps = |exponent| power(Exponentiation::new(modulus, U1024::from_u64(5), exponent, 1024)).1;
        assert_eq!(steps(U1024::ZERO), 5 + 1024 / 2 * 3 / 6);
        assert_eq!(steps(U1024::MAX), 5 + 1024 / 2 * 3 / 6);
        let public = Exponentiation::new(modulus, U1024::from_u64(5), U1024::from_u64(65537), 17);
        assert_eq!(power(public).1, 5 + 27_usize.div_ceil(6));
    }

    #[test]
    fn nothing_of_it_shows_in_a_log() {
        let modulus = Odd::new(U1024::from_u64(7)).unwrap();
        let shown = format!("{:?}", Exponentiation::new(modulus, U1024::ONE, U1024::ONE, 1));
        assert_eq!(shown, "Exponentiation");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn it_agrees_with_the_crates_own(
            modulus in proptest::collection::vec(any::<u8>(), 128),
            base in proptest::collection::vec(any::<u8>(), 128),
            exponent in proptest::collection::vec(any::<u8>(), 128),
        ) {
            let number = |bytes: &[u8]| U1024::from_be_slice(bytes);
            let modulus = Odd::new(number(&modulus) | U1024::ONE).unwrap();
            let ours = power(Exponentiation::new(modulus, number(&base), number(&exponent), 1024)).0;
            let params = crypto_bigint::modular::BoxedMontyParams::new(Odd::new(BoxedUint::from(*modulus)).unwrap());
            let base = BoxedUint::from(number(&base)).rem(params.modulus().as_nz_ref());
            let form = crypto_bigint::modular::BoxedMontyForm::new(base, &params);
            let peer = form.pow(&BoxedUint::from(number(&exponent))).retrieve();
            prop_assert_eq!(BoxedUint::from(ours), peer);
        }
    }
}
