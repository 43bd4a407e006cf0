//! VM-exit reasons (SDM, appendix "VMX Basic Exit Reasons").

/// The exit-reason field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReason(pub u32);

macro_rules! reasons {
    ($($number:literal $name:ident $text:literal;)*) => {
        impl ExitReason {
            $(#[doc = concat!($text, ".")] pub const $name: Self = Self($number);)*
        }

        /// The SDM's names by basic exit reason; empty where none is defined.
        const NAMES: [&str; ExitReason::COUNT] = {
            let mut names = [""; ExitReason::COUNT];
            $(names[$number] = $text;)*
            names
        };
    };
}

impl ExitReason {
    /// One more than the largest basic reason that is named here.
    pub const COUNT: usize = 86;

    /// Returns the basic exit reason.
    #[must_use]
    pub const fn basic(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// Returns the basic exit reason and whether the VM entry failed: what the other bits tell of the exit is no part
    /// of its reason (SDM, "Basic VM-Exit Information").
    #[must_use]
    pub const fn without_flags(self) -> Self {
        Self(self.0 & 0x8000_ffff)
    }

    /// Returns whether the VM entry failed: the guest did not run.
    #[must_use]
    pub const fn is_entry_failure(self) -> bool {
        self.0 >> 31 == 1
    }

    /// Returns the same, of an entry that failed.
    #[must_use]
    pub const fn of_entry_failure(self) -> Self {
        Self(self.0 | 1 << 31)
    }

    /// Returns whether the VM entry failed because of a machine check (SDM, "Machine-Check Events During VM Entry").
    #[must_use]
    pub fn is_machine_check_in_entry(self) -> bool {
        self.is_entry_failure() && self.basic() == Self::MACHINE_CHECK.basic()
    }

    /// Returns the SDM's name of the basic reason.
    #[must_use]
    pub fn name(self) -> &'static str {
        match NAMES.get(usize::from(self.basic())) {
            Some(name) if !name.is_empty() => name,
            _ => "unknown",
        }
    }
}

reasons! {
    0 EXCEPTION_OR_NMI "Exception or NMI";
    1 EXTERNAL_INTERRUPT "External interrupt";
    2 TRIPLE_FAULT "Triple fault";
    3 INIT "INIT signal";
    4 STARTUP_IPI "Start-up IPI";
    5 IO_SMI "I/O SMI";
    6 OTHER_SMI "Other SMI";
    7 INTERRUPT_WINDOW "Interrupt window";
    8 NMI_WINDOW "NMI window";
    9 TASK_SWITCH "Task switch";
    10 CPUID "CPUID";
    11 GETSEC "GETSEC";
    12 HLT "HLT";
    13 INVD "INVD";
    14 INVLPG "INVLPG";
    15 RDPMC "RDPMC";
    16 RDTSC "RDTSC";
    17 RSM "RSM";
    18 VMCALL "VMCALL";
    19 VMCLEAR "VMCLEAR";
    20 VMLAUNCH "VMLAUNCH";
    21 VMPTRLD "VMPTRLD";
    22 VMPTRST "VMPTRST";
    23 VMREAD "VMREAD";
    24 VMRESUME "VMRESUME";
    25 VMWRITE "VMWRITE";
    26 VMXOFF "VMXOFF";
    27 VMXON "VMXON";
    28 CONTROL_REGISTER "Control-register accesses";
    29 MOV_DR "MOV DR";
    30 IO_INSTRUCTION "I/O instruction";
    31 RDMSR "RDMSR";
    32 WRMSR "WRMSR";
    33 INVALID_GUEST_STATE "VM-entry failure due to invalid guest state";
    34 MSR_LOADING "VM-entry failure due to MSR loading";
    36 MWAIT "MWAIT";
    37 MONITOR_TRAP_FLAG "Monitor trap flag";
    39 MONITOR "MONITOR";
    40 PAUSE "PAUSE";
    41 MACHINE_CHECK "VM-entry failure due to machine-check event";
    43 TPR_BELOW_THRESHOLD "TPR below threshold";
    44 APIC_ACCESS "APIC access";
    45 VIRTUALIZED_EOI "Virtualized EOI";
    46 GDTR_IDTR "Access to GDTR or IDTR";
    47 LDTR_TR "Access to LDTR or TR";
    48 EPT_VIOLATION "EPT violation";
    49 EPT_MISCONFIGURATION "EPT misconfiguration";
    50 INVEPT "INVEPT";
    51 RDTSCP "RDTSCP";
    52 PREEMPTION_TIMER "VMX-preemption timer expired";
    53 INVVPID "INVVPID";
    54 WBINVD "WBINVD or WBNOINVD";
    55 XSETBV "XSETBV";
    56 APIC_WRITE "APIC write";
    57 RDRAND "RDRAND";
    58 INVPCID "INVPCID";
    59 VMFUNC "VMFUNC";
    60 ENCLS "ENCLS";
    61 RDSEED "RDSEED";
    62 PAGE_MODIFICATION_LOG_FULL "Page-modification log full";
    63 XSAVES "XSAVES";
    64 XRSTORS "XRSTORS";
    65 PCONFIG "PCONFIG";
    66 SPP_EVENT "SPP-related event";
    67 UMWAIT "UMWAIT";
    68 TPAUSE "TPAUSE";
    69 LOADIWKEY "LOADIWKEY";
    70 ENCLV "ENCLV";
    72 ENQCMD_PASID "ENQCMD PASID translation failure";
    73 ENQCMDS_PASID "ENQCMDS PASID translation failure";
    74 BUS_LOCK "Bus lock";
    75 INSTRUCTION_TIMEOUT "Instruction timeout";
    76 SEAMCALL "SEAMCALL";
    77 TDCALL "TDCALL";
    78 RDMSRLIST "RDMSRLIST";
    79 WRMSRLIST "WRMSRLIST";
    80 URDMSR "URDMSR";
    81 UWRMSR "UWRMSR";
    84 RDMSR_IMMEDIATE "RDMSR of an immediate operand";
    85 WRMSRNS_IMMEDIATE "WRMSRNS to an immediate operand";
}

#[cfg(test)]
mod tests {
    use super::ExitReason;

    #[test]
    fn flags_beside_the_basic_reason_make_no_other_reason() {
        for bit in 16..31 {
            assert_eq!(ExitReason(1 << bit | 10).without_flags(), ExitReason::CPUID, "bit {bit}");
        }
        assert_eq!(ExitReason(0x8800_0021).without_flags(), ExitReason(0x8000_0021));
    }

    #[test]
    fn names_follow_the_basic_reason() {
        assert_eq!(ExitReason(0x8000_0021).name(), "VM-entry failure due to invalid guest state");
        assert!(ExitReason(0x8000_0021).is_entry_failure());
        assert_eq!(ExitReason(35).name(), "unknown");
        assert_eq!(ExitReason(900).name(), "unknown");
    }

    #[test]
    fn the_basic_reason_is_the_low_half_and_the_top_bit_a_failure() {
        for bit in 0..32 {
            let alone = ExitReason(1 << bit);
            assert_eq!(u32::from(alone.basic()), if bit < 16 { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(alone.is_entry_failure(), bit == 31, "bit {bit}");
        }
        assert_eq!((ExitReason(u32::MAX).basic(), ExitReason(u32::MAX).is_entry_failure()), (0xffff, true));
    }

    #[test]
    fn a_failed_entry_has_the_top_bit_once() {
        let failed = ExitReason(33).of_entry_failure();
        assert_eq!((failed, failed.of_entry_failure()), (ExitReason(0x8000_0021), failed));
    }

    #[test]
    fn machine_checks_in_an_entry_are_failures_of_reason_41() {
        for reason in 0..100 {
            assert_eq!(ExitReason(1 << 31 | reason).is_machine_check_in_entry(), reason == 41, "{reason}");
            assert!(!ExitReason(reason).is_machine_check_in_entry(), "{reason}");
        }
    }

    #[test]
    fn every_reason_below_the_count_has_its_name() {
        let unnamed: Vec<usize> =
            (0..ExitReason::COUNT).filter(|&reason| super::NAMES[reason].is_empty()).collect();
        assert_eq!(unnamed, [35, 38, 42, 71, 82, 83], "reserved by the manual");
        assert_eq!(ExitReason(85).name(), "WRMSRNS to an immediate operand");
    }
}
