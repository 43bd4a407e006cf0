//! What processors enumerate of speculative-execution side channels and of the means against them (SDM, "CPUID-CPU
//! Identification", leaf 7, and "Architectural MSRs").

use bitflags::bitflags;

bitflags! {
    /// EDX of CPUID leaf 7, subleaf 0, as far as it speaks of speculation.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SpeculationFeatures: u32 {
        /// IA32_MCU_OPT_CTRL can switch the mitigation of special-register buffer sampling off.
        const SRBDS_CTRL = 1 << 9;
        /// VERW overwrites buffers that loads and stores leave data in.
        const MD_CLEAR = 1 << 10;
        /// IA32_SPEC_CTRL with IBRS, and IA32_PRED_CMD with the barrier of indirect branch predictors.
        const IBRS_AND_IBPB = 1 << 26;
        /// IA32_SPEC_CTRL with STIBP.
        const STIBP = 1 << 27;
        /// IA32_FLUSH_CMD, which flushes the first-level data cache.
        const L1D_FLUSH = 1 << 28;
        /// IA32_ARCH_CAPABILITIES.
        const ARCH_CAPABILITIES = 1 << 29;
        /// IA32_SPEC_CTRL with SSBD.
        const SSBD = 1 << 31;
    }

    /// EDX of CPUID leaf 7, subleaf 2: further bits that IA32_SPEC_CTRL has.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SpecCtrlFeatures: u32 {
        /// PSFD.
        const PSFD = 1 << 0;
        /// IPRED_DIS_U and IPRED_DIS_S.
        const IPRED_CTRL = 1 << 1;
        /// RRSBA_DIS_U and RRSBA_DIS_S.
        const RRSBA_CTRL = 1 << 2;
        /// DDPD_U.
        const DDPD_U = 1 << 3;
        /// BHI_DIS_S.
        const BHI_CTRL = 1 << 4;
    }

    /// IA32_ARCH_CAPABILITIES.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ArchCapabilities: u64 {
        /// Loads never use what a page-table entry without its present bit names.
        const RDCL_NO = 1 << 0;
        /// The hypervisor beneath flushes the first-level data cache at entries.
        const SKIP_L1DFL_VMENTRY = 1 << 3;
        /// IA32_UARCH_MISC_CTL, which has the time of some instructions not depend on their data.
        const DOITM = 1 << 12;
        /// VERW overwrites fill buffers.
        const FB_CLEAR = 1 << 17;
        /// IA32_MCU_OPT_CTRL can keep VERW from that.
        const FB_CLEAR_CTRL = 1 << 18;
        /// IA32_MCU_OPT_CTRL can switch the mitigation of gather data sampling off, and lock it.
        const GDS_CTRL = 1 << 25;
        /// VERW overwrites register files.
        const RFDS_CLEAR = 1 << 28;
    }

    /// IA32_SPEC_CTRL.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SpecCtrl: u64 {
        /// Indirect branches are not predicted from what less privileged modes did.
        const IBRS = 1 << 0;
        /// Nor from what the sibling thread does.
        const STIBP = 1 << 1;
        /// Loads wait for older stores' addresses.
        const SSBD = 1 << 2;
        /// Indirect branches of user mode wait until their target is known.
        const IPRED_DIS_U = 1 << 3;
        /// So do those of supervisor mode.
        const IPRED_DIS_S = 1 << 4;
        /// Returns of user mode take no prediction but the return stack's.
        const RRSBA_DIS_U = 1 << 5;
        /// Nor do those of supervisor mode.
        const RRSBA_DIS_S = 1 << 6;
        /// Loads take no store's value before both addresses are known.
        const PSFD = 1 << 7;
        /// What user mode loads is not taken for addresses to fetch in advance.
        const DDPD_U = 1 << 8;
        /// Supervisor mode takes no prediction from branch history of user mode.
        const BHI_DIS_S = 1 << 10;
    }

    /// IA32_MCU_OPT_CTRL.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct McuOptCtrl: u64 {
        /// RDRAND, RDSEED and EGETKEY leave what they read in a buffer that other cores can sample.
        const RNGDS_MITG_DIS = 1 << 0;
        /// VERW leaves fill buffers as they are.
        const FB_CLEAR_DIS = 1 << 3;
        /// A gather can be given what another instruction left in vector registers' buffers.
        const GDS_MITG_DIS = 1 << 4;
        /// [`Self::GDS_MITG_DIS`] takes no write until the next reset.
        const GDS_MITG_LOCK = 1 << 5;
    }
}

/// IA32_UARCH_MISC_CTL: the time of instructions that are listed for it does not depend on their data (Intel, "Data
/// Operand Independent Timing ISA Guidance").
pub const DOITM: u64 = 1 << 0;

/// IA32_PRED_CMD: the barrier of indirect branch predictors.
pub const IBPB: u64 = 1 << 0;

/// IA32_FLUSH_CMD: writes back and invalidates the first-level data cache.
pub const L1D_FLUSH: u64 = 1 << 0;
