//! IA32_FEATURE_CONTROL: what the firmware allows of VMX, SMX and others (SDM, "Enabling and Entering VMX Operation").

use bitflags::bitflags;

bitflags! {
    /// The register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FeatureControl: u64 {
        /// No bit can change until the next reset.
        const LOCK = 1 << 0;
        /// VMXON works inside SMX operation.
        const VMX_INSIDE_SMX = 1 << 1;
        /// VMXON works outside SMX operation.
        const VMX_OUTSIDE_SMX = 1 << 2;
        /// GETSEC\[SENTER\], as a whole and each of its functions.
        const SENTER = 0xff << 8;
        /// What is no business of a hypervisor's.
        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::FeatureControl;

    #[test]
    fn the_manual_s_bits() {
        let open = FeatureControl::LOCK | FeatureControl::VMX_INSIDE_SMX | FeatureControl::VMX_OUTSIDE_SMX;
        assert_eq!((open.bits(), FeatureControl::SENTER.bits()), (7, 0xff00));
        assert_eq!(FeatureControl::LOCK.bits() << 2, FeatureControl::VMX_OUTSIDE_SMX.bits());
    }
}
