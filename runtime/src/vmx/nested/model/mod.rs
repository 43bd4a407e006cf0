//! Straightforward models of the manual's rules on nesting, with which fuzzers and property tests hold the code.
//!
//! An input is any bytes. Each function draws from them what L1 and L2 do and panics where the code does not do
//! as the model does.

mod bytes;
mod checks;
mod host;
mod l2;
mod life;
mod route;

/// Checks of a VM entry over the bytes of a VMCS12.
pub fn checks(input: &[u8]) {
    checks::check(input);
}

/// Entries and exits over a life of VMCSs: merge, and what an exit saves.
pub fn life(input: &[u8]) {
    life::check(input);
}

/// Host state after an exit.
pub fn host(input: &[u8]) {
    host::check(input);
}

/// Whose an exit of L2 is.
pub fn route(input: &[u8]) {
    route::check(input);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn input(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_vmcs12_is_checked_as_the_manual_says(input in input(120)) {
            super::checks(&input);
        }

        #[test]
        fn any_life_of_vmcss_is_as_the_manual_says(input in input(400)) {
            super::life(&input);
        }

        #[test]
        fn any_host_state_is_loaded_as_the_manual_says(input in input(300)) {
            super::host(&input);
        }

        #[test]
        fn any_deed_of_l2_goes_to_whom_the_manual_says(input in input(400)) {
            super::route(&input);
        }
    }
}
