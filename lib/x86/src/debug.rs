//! Debug registers and debug exceptions (SDM, "Debug Registers"; "Guest Non-Register State").

use bitflags::bitflags;

/// DR7 as RESET, INIT and VM exits leave it: no breakpoint is enabled.
pub const DR7_RESET: u64 = 0x400;

bitflags! {
    /// DR6: why a debug exception was raised.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Dr6: u64 {
        /// A task switch to a task that wants to know.
        const BT = 1 << 15;
        /// The rest.
        const _ = !0;
    }
}

bitflags! {
    /// IA32_DEBUGCTL.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Debugctl: u64 {
        /// RFLAGS.TF steps from branch to branch.
        const BTF = 1 << 1;
        /// The rest.
        const _ = !0;
    }
}

bitflags! {
    /// Debug exceptions that are pending in the guest state of a VMCS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PendingDebugExceptions: u64 {
        /// Breakpoints whose conditions were met, by number.
        const BREAKPOINTS = 0xf;
        /// A bus lock was detected.
        const BUS_LOCK = 1 << 11;
        /// At least one of the breakpoints is enabled.
        const ENABLED_BREAKPOINT = 1 << 12;
        /// A single step.
        const SINGLE_STEP = 1 << 14;
        /// Within a transaction.
        const TRANSACTION = 1 << 16;
        /// Bits that are reserved.
        const _ = !0;
    }
}

impl PendingDebugExceptions {
    /// What is raised, and not only told of when something else is.
    pub const RAISED: Self = Self::ENABLED_BREAKPOINT.union(Self::SINGLE_STEP);
}

#[cfg(test)]
mod tests {
    use super::{Debugctl, Dr6, PendingDebugExceptions};

    #[test]
    fn the_manual_s_bits() {
        assert_eq!((Dr6::BT.bits(), Debugctl::BTF.bits()), (0x8000, 2));
        let pending = PendingDebugExceptions::BREAKPOINTS | PendingDebugExceptions::BUS_LOCK;
        assert_eq!((pending.bits(), PendingDebugExceptions::RAISED.bits()), (0x80f, 0x5000));
        assert_eq!(PendingDebugExceptions::TRANSACTION.bits(), 0x1_0000);
    }
}
