//! Control-flow enforcement (SDM, "Control-flow Enforcement Technology (CET)").

use bitflags::bitflags;

bitflags! {
    /// IA32_U_CET and IA32_S_CET.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CetControl: u64 {
        /// Shadow stacks.
        const SH_STK_EN = 1 << 0;
        /// Indirect branch tracking.
        const ENDBR_EN = 1 << 2;
        /// Branch tracking is suppressed.
        const SUPPRESS = 1 << 10;
        /// The next instruction has to be a branch target.
        const TRACKER = 1 << 11;
        /// The rest.
        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::CetControl;

    #[test]
    fn the_manual_s_bits() {
        let tracking = CetControl::SUPPRESS | CetControl::TRACKER;
        assert_eq!(
            (CetControl::SH_STK_EN.bits(), CetControl::ENDBR_EN.bits(), tracking.bits()),
            (1, 4, 0xc00)
        );
        assert_eq!(CetControl::TRACKER.bits(), 0x800);
    }
}
