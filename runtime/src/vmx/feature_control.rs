//! IA32_FEATURE_CONTROL, the same on every CPU (SDM, "Enabling and Entering VMX Operation").

use x86::feature_control::FeatureControl;

const LOCK: u64 = FeatureControl::LOCK.bits();
const VMX_OUTSIDE_SMX: u64 = FeatureControl::VMX_OUTSIDE_SMX.bits();

/// Returns what a CPU's register is to hold that holds `control`, where the first CPU's holds `first`.
pub(super) const fn wanted(control: u64, first: u64) -> u64 {
    if control & LOCK != 0 {
        control
    } else if first & LOCK != 0 {
        first
    } else {
        control | LOCK | VMX_OUTSIDE_SMX
    }
}

/// VMXON works on a CPU whose register holds `control`.
pub(super) const fn allows_vmx(control: u64) -> bool {
    control & (LOCK | VMX_OUTSIDE_SMX) == LOCK | VMX_OUTSIDE_SMX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_register_becomes_what_the_first_cpus_is() {
        let first = LOCK | VMX_OUTSIDE_SMX | 1 << 1 | 1 << 18;
        assert_eq!(wanted(0, first), first);
        assert_eq!(wanted(1 << 1, first), first);
        assert_eq!(wanted(1 << 1, 0), LOCK | VMX_OUTSIDE_SMX | 1 << 1, "the first CPU's own");
    }

    #[test]
    fn a_locked_register_stays_and_says_whether_vmx_is_allowed() {
        for control in [LOCK, LOCK | VMX_OUTSIDE_SMX, LOCK | 1 << 1] {
            assert_eq!(wanted(control, LOCK | VMX_OUTSIDE_SMX), control);
            assert_eq!(allows_vmx(control), control & VMX_OUTSIDE_SMX != 0);
        }
        assert!(!allows_vmx(VMX_OUTSIDE_SMX));
    }
}
