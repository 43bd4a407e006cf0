//! CPUID results, and the bits of them that matter here, by leaf and register (SDM, "CPUID-CPU Identification").

use bitflags::bitflags;

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidResult {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

bitflags! {
    /// ECX of leaf 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf1Ecx: u32 {
        /// 64-bit layout of the debug store.
        const DTES64 = 1 << 2;
        /// Debug store qualified by privilege level.
        const DS_CPL = 1 << 4;
        /// VMX.
        const VMX = 1 << 5;
        /// SMX.
        const SMX = 1 << 6;
        /// x2APIC mode.
        const X2APIC = 1 << 21;
        /// XSAVE.
        const XSAVE = 1 << 26;
        /// CR4.OSXSAVE.
        const OSXSAVE = 1 << 27;
        /// RDRAND.
        const RDRAND = 1 << 30;
        /// Runs beneath a hypervisor.
        const HYPERVISOR = 1 << 31;
    }

    /// EDX of leaf 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf1Edx: u32 {
        /// Machine-check exception.
        const MCE = 1 << 7;
        /// A local APIC, switched on.
        const APIC = 1 << 9;
        /// Debug store.
        const DS = 1 << 21;
    }

    /// EAX of leaf 6.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf6Eax: u32 {
        /// Hardware feedback interface.
        const HARDWARE_FEEDBACK = 1 << 19;
    }

    /// EBX of leaf 7, subleaf 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Ebx: u32 {
        /// IA32_TSC_ADJUST.
        const TSC_ADJUST = 1 << 1;
        /// INVPCID.
        const INVPCID = 1 << 10;
        /// Bound checking.
        const MPX = 1 << 14;
        /// RDSEED.
        const RDSEED = 1 << 18;
        /// Processor trace.
        const PROCESSOR_TRACE = 1 << 25;
    }

    /// ECX of leaf 7, subleaf 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Ecx: u32 {
        /// CR4.PKE.
        const OSPKE = 1 << 4;
        /// UMONITOR, UMWAIT and TPAUSE.
        const WAITPKG = 1 << 5;
        /// Shadow stacks.
        const CET_SS = 1 << 7;
        /// Memory encryption.
        const TME = 1 << 13;
        /// Five-level paging.
        const LA57 = 1 << 16;
        /// RDPID.
        const RDPID = 1 << 22;
    }

    /// EDX of leaf 7, subleaf 0, but for what [`crate::speculation`] has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Edx: u32 {
        /// PCONFIG.
        const PCONFIG = 1 << 18;
        /// Architectural last-branch records.
        const ARCHITECTURAL_LBRS = 1 << 19;
        /// Indirect branch tracking.
        const CET_IBT = 1 << 20;
    }

    /// EAX of leaf 7, subleaf 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Sub1Eax: u32 {
        /// Event delivery by FRED.
        const FRED = 1 << 17;
        /// RDMSRLIST and WRMSRLIST.
        const MSRLIST = 1 << 27;
    }

    /// ECX of leaf 7, subleaf 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Sub1Ecx: u32 {
        /// RDMSR and WRMSRNS with an immediate number.
        const MSR_IMM = 1 << 5;
    }

    /// EDX of leaf 7, subleaf 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Sub1Edx: u32 {
        /// URDMSR and UWRMSR.
        const USER_MSR = 1 << 15;
    }

    /// EAX of leaf 0DH, subleaf 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LeafDSub1Eax: u32 {
        /// XSAVES and XRSTORS.
        const XSAVES = 1 << 3;
    }

    /// EBX of leaf 19H.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf19Ebx: u32 {
        /// CR4.KL, and the key locker is on.
        const AESKLE = 1 << 0;
    }

    /// EDX of leaf 8000_0001H.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf80000001Edx: u32 {
        /// Pages of 1 GiB.
        const PAGES_1G = 1 << 26;
        /// RDTSCP.
        const RDTSCP = 1 << 27;
        /// 64-bit mode.
        const LONG_MODE = 1 << 29;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_s_bits() {
        assert_eq!((Leaf1Ecx::all().bits(), Leaf1Edx::all().bits()), (0xcc20_0074, 0x20_0280));
        assert_eq!((Leaf6Eax::all().bits(), Leaf19Ebx::all().bits()), (0x8_0000, 1));
        assert_eq!((Leaf7Ebx::all().bits(), Leaf7Ecx::all().bits()), (0x204_4402, 0x41_20b0));
        assert_eq!((Leaf7Edx::all().bits(), Leaf7Sub1Eax::all().bits()), (0x1c_0000, 0x802_0000));
        assert_eq!((Leaf7Sub1Ecx::all().bits(), Leaf7Sub1Edx::all().bits()), (0x20, 0x8000));
        assert_eq!((LeafDSub1Eax::all().bits(), Leaf80000001Edx::all().bits()), (8, 0x2c00_0000));
    }

    #[test]
    fn neighbours_are_not_taken_for_each_other() {
        assert_eq!((Leaf1Ecx::VMX.bits(), Leaf1Ecx::HYPERVISOR.bits()), (0x20, 0x8000_0000));
        assert_eq!((Leaf1Ecx::XSAVE.bits(), Leaf1Ecx::OSXSAVE.bits()), (0x400_0000, 0x800_0000));
        assert_eq!((Leaf7Ecx::OSPKE.bits(), Leaf7Ecx::WAITPKG.bits()), (0x10, 0x20));
        assert_eq!((Leaf7Edx::PCONFIG.bits(), Leaf7Edx::CET_IBT.bits()), (0x4_0000, 0x10_0000));
        assert_eq!((Leaf80000001Edx::RDTSCP.bits(), Leaf80000001Edx::LONG_MODE.bits()), (1 << 27, 1 << 29));
    }
}
