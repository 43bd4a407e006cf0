//! Model-specific register numbers (SDM, "Model-Specific Registers (MSRs)").

/// The number of a model-specific register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msr(pub u32);

impl core::fmt::Debug for Msr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Msr({:#x})", self.0)
    }
}

/// IA32_MISC_ENABLE: CPUID ends at leaf 2 or 3.
pub const MISC_ENABLE_LIMIT_CPUID: u64 = 1 << 22;
/// IA32_MISC_ENABLE: execute-disable is taken away.
pub const MISC_ENABLE_XD_DISABLE: u64 = 1 << 34;
/// IA32_CORE_CAPABILITIES: a processor has others act by lists in memory, which are named by physical addresses.
pub const CORE_CAPABILITIES_RAR: u64 = 1 << 1;
/// IA32_HW_FEEDBACK_PTR: the processor uses the table.
pub const HW_FEEDBACK_PTR_VALID: u64 = 1 << 0;
/// IA32_RTIT_CTL: processor trace is on.
pub const RTIT_CTL_TRACE_EN: u64 = 1 << 0;
/// IA32_MCG_STATUS: the interrupted program can go on.
pub const MCG_STATUS_RIPV: u64 = 1 << 0;
/// IA32_MCG_STATUS: the machine check is the interrupted instruction's.
pub const MCG_STATUS_EIPV: u64 = 1 << 1;
/// Status of a bank of machine checks: what the processor has in its registers may be wrong.
pub const MC_STATUS_PCC: u64 = 1 << 57;
/// Status of a bank of machine checks: there is something in it.
pub const MC_STATUS_VAL: u64 = 1 << 63;
/// IA32_LBR_CTL: branches are recorded.
pub const LBR_CTL_LBREN: u64 = 1 << 0;
/// IA32_PERF_CAPABILITIES: there is a counter of performance metrics.
pub const PERF_CAPABILITIES_METRICS: u64 = 1 << 15;
/// IA32_PERF_GLOBAL_CTRL: performance metrics are on.
pub const PERF_GLOBAL_CTRL_METRICS: u64 = 1 << 48;

/// A register that may hold anything while the hypervisor runs: neither where its code and memory are, nor what is
/// written to memory, depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestMsr(Msr);

impl GuestMsr {
    /// The register's number.
    #[must_use]
    pub const fn msr(self) -> Msr {
        self.0
    }
}

macro_rules! guest_msrs {
    ($($name:ident)*) => {
        impl GuestMsr {
            $(#[doc = concat!("[`Msr::", stringify!($name), "`].")] pub const $name: Self = Self(Msr::$name);)*
        }
    };
}

guest_msrs! {
    // What the processor may speculate on, and how long instructions take.
    IA32_SPEC_CTRL IA32_PRED_CMD IA32_FLUSH_CMD IA32_MCU_OPT_CTRL IA32_UARCH_MISC_CTL
    // The hypervisor runs without CR4.CET, does not use SYSENTER, and checks no bounds by the processor.
    IA32_U_CET IA32_S_CET IA32_PL0_SSP IA32_PL1_SSP IA32_PL2_SSP IA32_PL3_SSP IA32_INTERRUPT_SSP_TABLE_ADDR
    IA32_SYSENTER_ESP IA32_BNDCFGS
    // What may be switched on, and was not yet.
    IA32_FEATURE_CONTROL
}

macro_rules! msrs {
    ($($(#[$doc:meta])* $name:ident = $number:expr;)*) => {
        impl Msr {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }
    };
}

msrs! {
    /// Time-stamp counter.
    IA32_TIME_STAMP_COUNTER = 0x10;
    /// Local APIC base and mode.
    IA32_APIC_BASE = 0x1b;
    /// VMX and SMX lock.
    IA32_FEATURE_CONTROL = 0x3a;
    /// What writes have added to the time-stamp counter.
    IA32_TSC_ADJUST = 0x3b;
    /// Speculation control.
    IA32_SPEC_CTRL = 0x48;
    /// Prediction command: a barrier of indirect branch predictors.
    IA32_PRED_CMD = 0x49;
    /// Where trace messages are written to; the firmware's.
    TRACE_HUB_STH_ACPIBAR_BASE = 0x80;
    /// Features of a core.
    IA32_CORE_CAPABILITIES = 0xcf;
    /// Remote action requests, first MSR.
    IA32_RAR_FIRST = 0xed;
    /// Remote action requests, last MSR.
    IA32_RAR_LAST = 0xf0;
    /// Base of the memory that system-management mode alone reaches; its mask comes behind.
    IA32_SMRR_PHYSBASE = 0x1f2;
    /// Mask of more memory that system-management mode alone reaches; its base comes before, and before that base and mask
    /// of the memory that enclaves alone reach.
    SMRR2_PHYS_MASK = 0x1f7;
    /// First of the bases of the memory that enclaves alone reach, where there are several.
    PRMRR_BASE_0 = 0x2a0;
    /// Last of them.
    PRMRR_BASE_7 = 0x2a7;
    /// The same memory as the rest of the package knows it.
    UNCORE_PRMRR_PHYS_BASE = 0x2f4;
    /// Its mask.
    UNCORE_PRMRR_PHYS_MASK = 0x2f5;
    /// Base of the memory that the module for trust domains alone reaches.
    IA32_SEAMRR_PHYS_BASE = 0x1400;
    /// Its mask.
    IA32_SEAMRR_PHYS_MASK = 0x1401;
    /// Microcode update trigger.
    IA32_BIOS_UPDT_TRIG = 0x79;
    /// Monitor of system-management mode.
    IA32_SMM_MONITOR_CTL = 0x9b;
    /// Base of system-management memory.
    IA32_SMBASE = 0x9e;
    /// Microcode revision.
    IA32_BIOS_SIGN_ID = 0x8b;
    /// What the processor enumerates of speculative-execution side channels.
    IA32_ARCH_CAPABILITIES = 0x10a;
    /// Flush command: the first-level data cache.
    IA32_FLUSH_CMD = 0x10b;
    /// Options of the microcode: mitigations that can be switched off.
    IA32_MCU_OPT_CTRL = 0x123;
    /// MTRR capabilities.
    IA32_MTRRCAP = 0xfe;
    /// SYSENTER code segment.
    IA32_SYSENTER_CS = 0x174;
    /// SYSENTER stack pointer.
    IA32_SYSENTER_ESP = 0x175;
    /// SYSENTER instruction pointer.
    IA32_SYSENTER_EIP = 0x176;
    /// Machine-check capability: how many banks there are.
    IA32_MCG_CAP = 0x179;
    /// Machine-check status.
    IA32_MCG_STATUS = 0x17a;
    /// Miscellaneous processor features.
    IA32_MISC_ENABLE = 0x1a0;
    /// Debug control.
    IA32_DEBUGCTL = 0x1d9;
    /// First variable-range MTRR base.
    IA32_MTRR_PHYSBASE0 = 0x200;
    /// Fixed-range MTRR of 0-512 KiB.
    IA32_MTRR_FIX64K_00000 = 0x250;
    /// Fixed-range MTRR of 512-640 KiB.
    IA32_MTRR_FIX16K_80000 = 0x258;
    /// Fixed-range MTRR of 640-768 KiB.
    IA32_MTRR_FIX16K_A0000 = 0x259;
    /// First fixed-range MTRR of 4 KiB ranges, 768-800 KiB.
    IA32_MTRR_FIX4K_C0000 = 0x268;
    /// Last fixed-range MTRR of 4 KiB ranges.
    IA32_MTRR_FIX4K_F8000 = 0x26f;
    /// Page attribute table.
    IA32_PAT = 0x277;
    /// MTRR default type and enables.
    IA32_MTRR_DEF_TYPE = 0x2ff;
    /// Switches of performance counters.
    IA32_PERF_GLOBAL_CTRL = 0x38f;
    /// Precise event-based sampling: first of its MSRs.
    IA32_PEBS_FIRST = 0x3f0;
    /// Precise event-based sampling.
    IA32_PEBS_ENABLE = 0x3f1;
    /// Place in the buffer of precise event-based sampling, whose physical address comes before; last of its MSRs.
    IA32_PEBS_INDEX = 0x3f5;
    /// Performance-monitoring capabilities.
    IA32_PERF_CAPABILITIES = 0x345;
    /// First VMX capability MSR.
    IA32_VMX_BASIC = 0x480;
    /// Pin-based controls.
    IA32_VMX_PINBASED_CTLS = 0x481;
    /// Primary processor-based controls.
    IA32_VMX_PROCBASED_CTLS = 0x482;
    /// VM-exit controls.
    IA32_VMX_EXIT_CTLS = 0x483;
    /// VM-entry controls.
    IA32_VMX_ENTRY_CTLS = 0x484;
    /// Miscellaneous VMX data.
    IA32_VMX_MISC = 0x485;
    /// CR0 bits that must be 1.
    IA32_VMX_CR0_FIXED0 = 0x486;
    /// CR0 bits that may be 1.
    IA32_VMX_CR0_FIXED1 = 0x487;
    /// CR4 bits that must be 1.
    IA32_VMX_CR4_FIXED0 = 0x488;
    /// CR4 bits that may be 1.
    IA32_VMX_CR4_FIXED1 = 0x489;
    /// Highest index of a VMCS field.
    IA32_VMX_VMCS_ENUM = 0x48a;
    /// Secondary processor-based controls.
    IA32_VMX_PROCBASED_CTLS2 = 0x48b;
    /// EPT and VPID capabilities.
    IA32_VMX_EPT_VPID_CAP = 0x48c;
    /// True pin-based controls.
    IA32_VMX_TRUE_PINBASED_CTLS = 0x48d;
    /// True primary processor-based controls.
    IA32_VMX_TRUE_PROCBASED_CTLS = 0x48e;
    /// True VM-exit controls.
    IA32_VMX_TRUE_EXIT_CTLS = 0x48f;
    /// True VM-entry controls.
    IA32_VMX_TRUE_ENTRY_CTLS = 0x490;
    /// Last VMX capability MSR, VM functions and tertiary exits included.
    IA32_VMX_LAST = 0x493;
    /// Processor trace, first MSR.
    IA32_RTIT_FIRST = 0x560;
    /// Processor trace, control.
    IA32_RTIT_CTL = 0x570;
    /// Processor trace, last MSR.
    IA32_RTIT_LAST = 0x58f;
    /// Switches of architectural last-branch records.
    IA32_LBR_CTL = 0x14ce;
    /// Control-flow enforcement of users.
    IA32_U_CET = 0x6a0;
    /// Control-flow enforcement of supervisors.
    IA32_S_CET = 0x6a2;
    /// Table of the shadow stacks of interrupts.
    IA32_INTERRUPT_SSP_TABLE_ADDR = 0x6a8;
    /// Shadow-stack pointer of privilege level 0.
    IA32_PL0_SSP = 0x6a4;
    /// Shadow-stack pointer of privilege level 1.
    IA32_PL1_SSP = 0x6a5;
    /// Shadow-stack pointer of privilege level 2.
    IA32_PL2_SSP = 0x6a6;
    /// Shadow-stack pointer of privilege level 3.
    IA32_PL3_SSP = 0x6a7;
    /// Bounds of memory protection extensions, in supervisor mode.
    IA32_BNDCFGS = 0xd90;
    /// Rights by the protection keys of supervisor pages.
    IA32_PKRS = 0x6e1;
    /// First x2APIC MSR.
    X2APIC_FIRST = 0x800;
    /// x2APIC identification.
    X2APIC_ID = 0x802;
    /// x2APIC end of interrupt.
    X2APIC_EOI = 0x80b;
    /// x2APIC interrupt command.
    X2APIC_ICR = 0x830;
    /// Choices of the processor's inner workings.
    IA32_UARCH_MISC_CTL = 0x1b01;
    /// First performance counter with four MSRs of its own: counter, and configurations A to C.
    IA32_PMC_GP0_CTR = 0x1900;
    /// Last MSR that there may be of such counters.
    IA32_PMC_LAST = 0x19ff;
    /// Extended supervisor states.
    IA32_XSS = 0xda0;
    /// Physical address of the table that the hardware feedback interface writes.
    IA32_HW_FEEDBACK_PTR = 0x17d0;
    /// Activation of total memory encryption.
    IA32_TME_ACTIVATE = 0x982;
    /// Base of the range that total memory encryption leaves out; its mask comes before.
    IA32_TME_EXCLUDE_BASE = 0x984;
    /// Extended features.
    IA32_EFER = 0xc000_0080;
    /// SYSCALL selectors.
    IA32_STAR = 0xc000_0081;
    /// SYSCALL target.
    IA32_LSTAR = 0xc000_0082;
    /// SYSCALL flag mask.
    IA32_FMASK = 0xc000_0084;
    /// FS base.
    IA32_FS_BASE = 0xc000_0100;
    /// GS base.
    IA32_GS_BASE = 0xc000_0101;
    /// GS base after SWAPGS.
    IA32_KERNEL_GS_BASE = 0xc000_0102;
    /// TSC auxiliary value.
    IA32_TSC_AUX = 0xc000_0103;
}

#[cfg(test)]
mod tests {
    use super::Msr;

    #[test]
    fn a_number_is_told_in_hexadecimal() {
        assert_eq!(format!("{:?}", Msr::IA32_EFER), "Msr(0xc0000080)");
    }
}
