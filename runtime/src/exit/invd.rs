//! INVD and WBINVD.
//!
//! INVD is carried out as WBINVD. It would throw away every modified cache line of the package, the
//! hypervisor's own among them: its page tables would return to older contents. A guest cannot tell the
//! difference by what the architecture promises, for INVD never says which lines were modified.

use super::Action;
use hw::Caches;

/// Writes caches back and invalidates them, for either instruction.
pub fn handle(caches: &impl Caches) -> Action {
    caches.write_back_and_invalidate();
    Action::Advance
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[derive(Default)]
    struct Counter(Cell<usize>);

    impl Caches for Counter {
        fn write_back_and_invalidate(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn caches_are_written_back_once() {
        let caches = Counter::default();
        assert_eq!(handle(&caches), Action::Advance);
        assert_eq!(caches.0.get(), 1);
    }
}
