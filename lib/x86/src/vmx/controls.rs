//! VM-execution, VM-exit and VM-entry controls (SDM, "VM-Execution Control Fields").

use bitflags::bitflags;

bitflags! {
    /// Pin-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PinBasedControls: u32 {
        /// External interrupts cause VM exits.
        const EXTERNAL_INTERRUPT_EXITING = 1 << 0;
        /// NMIs cause VM exits.
        const NMI_EXITING = 1 << 3;
        /// NMI blocking is tracked for the guest alone.
        const VIRTUAL_NMIS = 1 << 5;
        /// The VMX-preemption timer counts down in the guest.
        const PREEMPTION_TIMER = 1 << 6;
        /// Posted interrupts are processed.
        const PROCESS_POSTED_INTERRUPTS = 1 << 7;
        /// Bits that processors may demand.
        const _ = !0;
    }

    /// Primary processor-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PrimaryControls: u32 {
        /// VM exit as soon as the guest can take an interrupt.
        const INTERRUPT_WINDOW_EXITING = 1 << 2;
        /// RDTSC is offset.
        const USE_TSC_OFFSETTING = 1 << 3;
        /// HLT causes VM exits.
        const HLT_EXITING = 1 << 7;
        /// INVLPG causes VM exits.
        const INVLPG_EXITING = 1 << 9;
        /// MWAIT causes VM exits.
        const MWAIT_EXITING = 1 << 10;
        /// RDPMC causes VM exits.
        const RDPMC_EXITING = 1 << 11;
        /// RDTSC causes VM exits.
        const RDTSC_EXITING = 1 << 12;
        /// MOV to CR3 causes VM exits.
        const CR3_LOAD_EXITING = 1 << 15;
        /// MOV from CR3 causes VM exits.
        const CR3_STORE_EXITING = 1 << 16;
        /// Tertiary controls are used.
        const ACTIVATE_TERTIARY_CONTROLS = 1 << 17;
        /// MOV to CR8 causes VM exits.
        const CR8_LOAD_EXITING = 1 << 19;
        /// MOV from CR8 causes VM exits.
        const CR8_STORE_EXITING = 1 << 20;
        /// TPR virtualization.
        const USE_TPR_SHADOW = 1 << 21;
        /// VM exit as soon as the guest can take an NMI.
        const NMI_WINDOW_EXITING = 1 << 22;
        /// MOV to and from debug registers causes VM exits.
        const MOV_DR_EXITING = 1 << 23;
        /// Every port access causes a VM exit.
        const UNCONDITIONAL_IO_EXITING = 1 << 24;
        /// I/O bitmaps decide.
        const USE_IO_BITMAPS = 1 << 25;
        /// A debug exception pends at the next instruction boundary.
        const MONITOR_TRAP_FLAG = 1 << 27;
        /// MSR bitmaps decide.
        const USE_MSR_BITMAPS = 1 << 28;
        /// MONITOR causes VM exits.
        const MONITOR_EXITING = 1 << 29;
        /// PAUSE causes VM exits.
        const PAUSE_EXITING = 1 << 30;
        /// Secondary controls are used.
        const ACTIVATE_SECONDARY_CONTROLS = 1 << 31;
        /// Bits that processors may demand.
        const _ = !0;
    }

    /// Secondary processor-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SecondaryControls: u32 {
        /// Accesses to the APIC-access page are special.
        const VIRTUALIZE_APIC_ACCESSES = 1 << 0;
        /// Extended page tables.
        const ENABLE_EPT = 1 << 1;
        /// Loads and stores of descriptor-table registers cause VM exits.
        const DESCRIPTOR_TABLE_EXITING = 1 << 2;
        /// RDTSCP works in the guest.
        const ENABLE_RDTSCP = 1 << 3;
        /// x2APIC MSRs are virtualized.
        const VIRTUALIZE_X2APIC_MODE = 1 << 4;
        /// Virtual-processor identifiers tag the TLB.
        const ENABLE_VPID = 1 << 5;
        /// WBINVD causes VM exits.
        const WBINVD_EXITING = 1 << 6;
        /// The guest may run unpaged and in real mode.
        const UNRESTRICTED_GUEST = 1 << 7;
        /// APIC registers are virtualized.
        const APIC_REGISTER_VIRTUALIZATION = 1 << 8;
        /// Pending virtual interrupts are delivered.
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 9;
        /// Loops of PAUSE cause VM exits.
        const PAUSE_LOOP_EXITING = 1 << 10;
        /// RDRAND causes VM exits.
        const RDRAND_EXITING = 1 << 11;
        /// INVPCID works in the guest.
        const ENABLE_INVPCID = 1 << 12;
        /// VMFUNC works in the guest.
        const ENABLE_VM_FUNCTIONS = 1 << 13;
        /// VMREAD and VMWRITE in the guest reach a shadow VMCS.
        const VMCS_SHADOWING = 1 << 14;
        /// ENCLS exits by bitmap.
        const ENABLE_ENCLS_EXITING = 1 << 15;
        /// RDSEED causes VM exits.
        const RDSEED_EXITING = 1 << 16;
        /// Page-modification log.
        const ENABLE_PML = 1 << 17;
        /// EPT violations become #VE.
        const EPT_VIOLATION_VE = 1 << 18;
        /// Intel PT hides that it runs in a guest.
        const CONCEAL_VMX_FROM_PT = 1 << 19;
        /// XSAVES and XRSTORS work in the guest.
        const ENABLE_XSAVES = 1 << 20;
        /// User wait and pause instructions work in the guest.
        const ENABLE_USER_WAIT_AND_PAUSE = 1 << 26;
        /// TSC is scaled.
        const USE_TSC_SCALING = 1 << 25;
        /// EPT execute permission depends on the guest's mode.
        const MODE_BASED_EXECUTE_CONTROL = 1 << 22;
        /// EPT can forbid writes to parts of a page.
        const SUB_PAGE_WRITE_PERMISSIONS = 1 << 23;
        /// ENCLV exits by bitmap.
        const ENABLE_ENCLV_EXITING = 1 << 28;
        /// Bits that processors may demand.
        const _ = !0;
    }

    /// VM-exit controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExitControls: u32 {
        /// Save DR7 and IA32_DEBUGCTL.
        const SAVE_DEBUG_CONTROLS = 1 << 2;
        /// The host is in 64-bit mode.
        const HOST_ADDRESS_SPACE_SIZE = 1 << 9;
        /// Load IA32_PERF_GLOBAL_CTRL.
        const LOAD_PERF_GLOBAL_CTRL = 1 << 12;
        /// External interrupts are acknowledged on exit.
        const ACKNOWLEDGE_INTERRUPT_ON_EXIT = 1 << 15;
        /// Save IA32_PAT.
        const SAVE_PAT = 1 << 18;
        /// Load IA32_PAT.
        const LOAD_PAT = 1 << 19;
        /// Save IA32_EFER.
        const SAVE_EFER = 1 << 20;
        /// Load IA32_EFER.
        const LOAD_EFER = 1 << 21;
        /// Save the VMX-preemption timer.
        const SAVE_PREEMPTION_TIMER = 1 << 22;
        /// Clear IA32_BNDCFGS.
        const CLEAR_BNDCFGS = 1 << 23;
        /// Clear IA32_RTIT_CTL.
        const CLEAR_RTIT_CTL = 1 << 25;
        /// Save IA32_LBR_CTL, and clear it.
        const CLEAR_LBR_CTL = 1 << 26;
        /// Load the state of control-flow enforcement.
        const LOAD_CET_STATE = 1 << 28;
        /// Load IA32_PKRS.
        const LOAD_PKRS = 1 << 29;
        /// Save IA32_PERF_GLOBAL_CTRL.
        const SAVE_PERF_GLOBAL_CTRL = 1 << 30;
        /// Bits that processors may demand.
        const _ = !0;
    }

    /// VM-entry controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryControls: u32 {
        /// Load DR7 and IA32_DEBUGCTL.
        const LOAD_DEBUG_CONTROLS = 1 << 2;
        /// The guest is in IA-32e mode.
        const IA32E_MODE_GUEST = 1 << 9;
        /// Load IA32_PERF_GLOBAL_CTRL.
        const LOAD_PERF_GLOBAL_CTRL = 1 << 13;
        /// Load IA32_PAT.
        const LOAD_PAT = 1 << 14;
        /// Load IA32_EFER.
        const LOAD_EFER = 1 << 15;
        /// Load IA32_BNDCFGS.
        const LOAD_BNDCFGS = 1 << 16;
        /// Load IA32_RTIT_CTL.
        const LOAD_RTIT_CTL = 1 << 18;
        /// Load the state of control-flow enforcement.
        const LOAD_CET_STATE = 1 << 20;
        /// Load IA32_LBR_CTL.
        const LOAD_LBR_CTL = 1 << 21;
        /// Load IA32_PKRS.
        const LOAD_PKRS = 1 << 22;
        /// Bits that processors may demand.
        const _ = !0;
    }
}
