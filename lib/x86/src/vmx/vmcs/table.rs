//! The one table of VMCS fields (SDM, appendix "Field Encoding in VMCS").
//!
//! A row is: encoding, type, name, the SDM's name, what nesting does with the field ([`Treatment`](super::Treatment)),
//! how its shadow VMCS has it ([`Shadow`](super::Shadow)), and the controls of which the processor needs one for the
//! field to exist ([`Exists`](super::Exists)).

/// Calls `$apply!` with `$args`, a token or a group, and all rows of the table.
///
/// A macro takes the rows, so that code for each field of a kind can be written out with the field's own type and a
/// constant encoding, in the order of the table.
#[macro_export]
macro_rules! vmcs_fields {
    ($apply:ident! $args:tt) => {
        $apply! {
            $args
            // 16 bits control
            0x0000 u16 VPID "Virtual-processor identifier" Control - [secondary ENABLE_VPID];
            0x0002 u16 POSTED_INTERRUPT_NOTIFICATION_VECTOR "Posted-interrupt notification vector" Control - [pin_based PROCESS_POSTED_INTERRUPTS];
            0x0004 u16 EPTP_INDEX "EPTP index" Absent - [secondary EPT_VIOLATION_VE];
            // 16 bits guest
            0x0800 u16 GUEST_ES_SELECTOR "Guest ES selector" Cold - [];
            0x0802 u16 GUEST_CS_SELECTOR "Guest CS selector" Cold - [];
            0x0804 u16 GUEST_SS_SELECTOR "Guest SS selector" Cold - [];
            0x0806 u16 GUEST_DS_SELECTOR "Guest DS selector" Cold - [];
            0x0808 u16 GUEST_FS_SELECTOR "Guest FS selector" Cold - [];
            0x080a u16 GUEST_GS_SELECTOR "Guest GS selector" Cold - [];
            0x080c u16 GUEST_LDTR_SELECTOR "Guest LDTR selector" Cold - [];
            0x080e u16 GUEST_TR_SELECTOR "Guest TR selector" Cold - [];
            0x0810 u16 GUEST_INTERRUPT_STATUS "Guest interrupt status" Hot - [secondary VIRTUAL_INTERRUPT_DELIVERY];
            0x0812 u16 PML_INDEX "PML index" ByValue log [secondary ENABLE_PML];
            // 16 bits host
            0x0c00 u16 HOST_ES_SELECTOR "Host ES selector" Host - [];
            0x0c02 u16 HOST_CS_SELECTOR "Host CS selector" Host - [];
            0x0c04 u16 HOST_SS_SELECTOR "Host SS selector" Host - [];
            0x0c06 u16 HOST_DS_SELECTOR "Host DS selector" Host - [];
            0x0c08 u16 HOST_FS_SELECTOR "Host FS selector" Host - [];
            0x0c0a u16 HOST_GS_SELECTOR "Host GS selector" Host - [];
            0x0c0c u16 HOST_TR_SELECTOR "Host TR selector" Host - [];
            // 64 bits control
            0x2000 u64 IO_BITMAP_A "Address of I/O bitmap A" Control - [];
            0x2002 u64 IO_BITMAP_B "Address of I/O bitmap B" Control - [];
            0x2004 u64 MSR_BITMAPS "Address of MSR bitmaps" Control - [primary USE_MSR_BITMAPS];
            0x2006 u64 EXIT_MSR_STORE_ADDRESS "VM-exit MSR-store address" ByValue - [];
            0x2008 u64 EXIT_MSR_LOAD_ADDRESS "VM-exit MSR-load address" ByValue - [];
            0x200a u64 ENTRY_MSR_LOAD_ADDRESS "VM-entry MSR-load address" ByValue - [];
            0x200c u64 EXECUTIVE_VMCS_POINTER "Executive-VMCS pointer" Ignored - [];
            0x200e u64 PML_ADDRESS "PML address" ByValue - [secondary ENABLE_PML];
            0x2010 u64 TSC_OFFSET "TSC offset" Control - [];
            0x2012 u64 VIRTUAL_APIC_ADDRESS "Virtual-APIC address" Control - [primary USE_TPR_SHADOW];
            0x2014 u64 APIC_ACCESS_ADDRESS "APIC-access address" Control - [secondary VIRTUALIZE_APIC_ACCESSES];
            0x2016 u64 POSTED_INTERRUPT_DESCRIPTOR_ADDRESS "Posted-interrupt descriptor address" Control - [pin_based PROCESS_POSTED_INTERRUPTS];
            0x2018 u64 VM_FUNCTION_CONTROLS "VM-function controls" Absent - [secondary ENABLE_VM_FUNCTIONS];
            0x201a u64 EPT_POINTER "EPT pointer" Control - [secondary ENABLE_EPT];
            0x201c u64 EOI_EXIT_BITMAP_0 "EOI-exit bitmap 0" Control - [secondary VIRTUAL_INTERRUPT_DELIVERY];
            0x201e u64 EOI_EXIT_BITMAP_1 "EOI-exit bitmap 1" Control - [secondary VIRTUAL_INTERRUPT_DELIVERY];
            0x2020 u64 EOI_EXIT_BITMAP_2 "EOI-exit bitmap 2" Control - [secondary VIRTUAL_INTERRUPT_DELIVERY];
            0x2022 u64 EOI_EXIT_BITMAP_3 "EOI-exit bitmap 3" Control - [secondary VIRTUAL_INTERRUPT_DELIVERY];
            0x2024 u64 EPTP_LIST_ADDRESS "EPTP-list address" Absent - [secondary ENABLE_VM_FUNCTIONS];
            0x2026 u64 VMREAD_BITMAP_ADDRESS "VMREAD-bitmap address" ByValue - [secondary VMCS_SHADOWING];
            0x2028 u64 VMWRITE_BITMAP_ADDRESS "VMWRITE-bitmap address" ByValue - [secondary VMCS_SHADOWING];
            0x202a u64 VIRTUALIZATION_EXCEPTION_ADDRESS "Virtualization-exception information address" Absent - [secondary EPT_VIOLATION_VE];
            0x202c u64 XSS_EXITING_BITMAP "XSS-exiting bitmap" Control - [secondary ENABLE_XSAVES];
            0x202e u64 ENCLS_EXITING_BITMAP "ENCLS-exiting bitmap" Control - [secondary ENABLE_ENCLS_EXITING];
            0x2030 u64 SUB_PAGE_PERMISSION_TABLE_POINTER "Sub-page-permission-table pointer" Absent - [secondary SUB_PAGE_WRITE_PERMISSIONS];
            0x2032 u64 TSC_MULTIPLIER "TSC multiplier" Control - [secondary USE_TSC_SCALING];
            0x2034 u64 TERTIARY_CONTROLS "Tertiary processor-based VM-execution controls" Absent - [primary ACTIVATE_TERTIARY_CONTROLS];
            0x2036 u64 ENCLV_EXITING_BITMAP "ENCLV-exiting bitmap" Control - [secondary ENABLE_ENCLV_EXITING];
            // 64 bits read-only
            0x2400 u64 GUEST_PHYSICAL_ADDRESS "Guest-physical address" Exit told [secondary ENABLE_EPT];
            // 64 bits guest
            0x2800 u64 VMCS_LINK_POINTER "VMCS link pointer" ByValue - [];
            0x2802 u64 GUEST_DEBUGCTL "Guest IA32_DEBUGCTL" Hot - [];
            0x2804 u64 GUEST_PAT "Guest IA32_PAT" Hot - [entry LOAD_PAT, exit SAVE_PAT];
            0x2806 u64 GUEST_EFER "Guest IA32_EFER" Hot - [entry LOAD_EFER, exit SAVE_EFER];
            0x2808 u64 GUEST_PERF_GLOBAL_CTRL "Guest IA32_PERF_GLOBAL_CTRL" ByValue - [entry LOAD_PERF_GLOBAL_CTRL];
            0x280a u64 GUEST_PDPTE0 "Guest PDPTE0" Hot - [secondary ENABLE_EPT];
            0x280c u64 GUEST_PDPTE1 "Guest PDPTE1" Hot - [secondary ENABLE_EPT];
            0x280e u64 GUEST_PDPTE2 "Guest PDPTE2" Hot - [secondary ENABLE_EPT];
            0x2810 u64 GUEST_PDPTE3 "Guest PDPTE3" Hot - [secondary ENABLE_EPT];
            0x2812 u64 GUEST_BNDCFGS "Guest IA32_BNDCFGS" Absent - [entry LOAD_BNDCFGS, exit CLEAR_BNDCFGS];
            0x2814 u64 GUEST_RTIT_CTL "Guest IA32_RTIT_CTL" Absent - [entry LOAD_RTIT_CTL, exit CLEAR_RTIT_CTL];
            0x2816 u64 GUEST_LBR_CTL "Guest IA32_LBR_CTL" Absent - [entry LOAD_LBR_CTL, exit CLEAR_LBR_CTL];
            0x2818 u64 GUEST_PKRS "Guest IA32_PKRS" Absent - [entry LOAD_PKRS];
            // 64 bits host
            0x2c00 u64 HOST_PAT "Host IA32_PAT" Host - [exit LOAD_PAT];
            0x2c02 u64 HOST_EFER "Host IA32_EFER" Host - [exit LOAD_EFER];
            0x2c04 u64 HOST_PERF_GLOBAL_CTRL "Host IA32_PERF_GLOBAL_CTRL" Host - [exit LOAD_PERF_GLOBAL_CTRL];
            0x2c06 u64 HOST_PKRS "Host IA32_PKRS" Absent - [exit LOAD_PKRS];
            // 32 bits control
            0x4000 u32 PIN_BASED_CONTROLS "Pin-based VM-execution controls" Control - [];
            0x4002 u32 PRIMARY_CONTROLS "Primary processor-based VM-execution controls" Control control [];
            0x4004 u32 EXCEPTION_BITMAP "Exception bitmap" Control control [];
            0x4006 u32 PAGE_FAULT_ERROR_CODE_MASK "Page-fault error-code mask" Control - [];
            0x4008 u32 PAGE_FAULT_ERROR_CODE_MATCH "Page-fault error-code match" Control - [];
            0x400a u32 CR3_TARGET_COUNT "CR3-target count" Control - [];
            0x400c u32 EXIT_CONTROLS "Primary VM-exit controls" Control - [];
            0x400e u32 EXIT_MSR_STORE_COUNT "VM-exit MSR-store count" ByValue - [];
            0x4010 u32 EXIT_MSR_LOAD_COUNT "VM-exit MSR-load count" ByValue - [];
            0x4012 u32 ENTRY_CONTROLS "VM-entry controls" Control - [];
            0x4014 u32 ENTRY_MSR_LOAD_COUNT "VM-entry MSR-load count" ByValue - [];
            0x4016 u32 ENTRY_INTERRUPTION_INFORMATION "VM-entry interruption-information field" Control state [];
            0x4018 u32 ENTRY_EXCEPTION_ERROR_CODE "VM-entry exception error code" Control control [];
            0x401a u32 ENTRY_INSTRUCTION_LENGTH "VM-entry instruction length" Control control [];
            0x401c u32 TPR_THRESHOLD "TPR threshold" Control - [primary USE_TPR_SHADOW];
            0x401e u32 SECONDARY_CONTROLS "Secondary processor-based VM-execution controls" Control - [primary ACTIVATE_SECONDARY_CONTROLS];
            0x4020 u32 PLE_GAP "PLE gap" Control - [secondary PAUSE_LOOP_EXITING];
            0x4022 u32 PLE_WINDOW "PLE window" Control - [secondary PAUSE_LOOP_EXITING];
            // 32 bits read-only
            0x4400 u32 INSTRUCTION_ERROR "VM-instruction error" Exit - [];
            0x4402 u32 EXIT_REASON "Exit reason" Exit told [];
            0x4404 u32 EXIT_INTERRUPTION_INFORMATION "VM-exit interruption information" Exit told [];
            0x4406 u32 EXIT_INTERRUPTION_ERROR_CODE "VM-exit interruption error code" Exit told [];
            0x4408 u32 IDT_VECTORING_INFORMATION "IDT-vectoring information field" Exit told [];
            0x440a u32 IDT_VECTORING_ERROR_CODE "IDT-vectoring error code" Exit told [];
            0x440c u32 EXIT_INSTRUCTION_LENGTH "VM-exit instruction length" Exit told [];
            0x440e u32 EXIT_INSTRUCTION_INFORMATION "VM-exit instruction information" Exit told [];
            // 32 bits guest
            0x4800 u32 GUEST_ES_LIMIT "Guest ES limit" Cold - [];
            0x4802 u32 GUEST_CS_LIMIT "Guest CS limit" Cold - [];
            0x4804 u32 GUEST_SS_LIMIT "Guest SS limit" Cold - [];
            0x4806 u32 GUEST_DS_LIMIT "Guest DS limit" Cold - [];
            0x4808 u32 GUEST_FS_LIMIT "Guest FS limit" Cold - [];
            0x480a u32 GUEST_GS_LIMIT "Guest GS limit" Cold - [];
            0x480c u32 GUEST_LDTR_LIMIT "Guest LDTR limit" Cold - [];
            0x480e u32 GUEST_TR_LIMIT "Guest TR limit" Cold - [];
            0x4810 u32 GUEST_GDTR_LIMIT "Guest GDTR limit" Cold - [];
            0x4812 u32 GUEST_IDTR_LIMIT "Guest IDTR limit" Cold - [];
            0x4814 u32 GUEST_ES_ACCESS_RIGHTS "Guest ES access rights" Cold - [];
            0x4816 u32 GUEST_CS_ACCESS_RIGHTS "Guest CS access rights" Hot told [];
            0x4818 u32 GUEST_SS_ACCESS_RIGHTS "Guest SS access rights" Cold - [];
            0x481a u32 GUEST_DS_ACCESS_RIGHTS "Guest DS access rights" Cold - [];
            0x481c u32 GUEST_FS_ACCESS_RIGHTS "Guest FS access rights" Cold - [];
            0x481e u32 GUEST_GS_ACCESS_RIGHTS "Guest GS access rights" Cold - [];
            0x4820 u32 GUEST_LDTR_ACCESS_RIGHTS "Guest LDTR access rights" Cold - [];
            0x4822 u32 GUEST_TR_ACCESS_RIGHTS "Guest TR access rights" Cold - [];
            0x4824 u32 GUEST_INTERRUPTIBILITY "Guest interruptibility state" Hot state [];
            0x4826 u32 GUEST_ACTIVITY "Guest activity state" Hot - [];
            0x4828 u32 GUEST_SMBASE "Guest SMBASE" Ignored - [];
            0x482a u32 GUEST_SYSENTER_CS "Guest IA32_SYSENTER_CS" Cold - [];
            0x482e u32 PREEMPTION_TIMER "VMX-preemption timer value" Hot - [pin_based PREEMPTION_TIMER];
            // 32 bits host
            0x4c00 u32 HOST_SYSENTER_CS "Host IA32_SYSENTER_CS" Host - [];
            // Natural width control
            0x6000 u64 CR0_MASK "CR0 guest/host mask" Control control [];
            0x6002 u64 CR4_MASK "CR4 guest/host mask" Control - [];
            0x6004 u64 CR0_READ_SHADOW "CR0 read shadow" Control control [];
            0x6006 u64 CR4_READ_SHADOW "CR4 read shadow" Control control [];
            0x6008 u64 CR3_TARGET_0 "CR3-target value 0" Control - [];
            0x600a u64 CR3_TARGET_1 "CR3-target value 1" Control - [];
            0x600c u64 CR3_TARGET_2 "CR3-target value 2" Control - [];
            0x600e u64 CR3_TARGET_3 "CR3-target value 3" Control - [];
            // Natural width read-only
            0x6400 u64 EXIT_QUALIFICATION "Exit qualification" Exit told [];
            0x6402 u64 IO_RCX "I/O RCX" Exit - [];
            0x6404 u64 IO_RSI "I/O RSI" Exit - [];
            0x6406 u64 IO_RDI "I/O RDI" Exit - [];
            0x6408 u64 IO_RIP "I/O RIP" Exit - [];
            0x640a u64 GUEST_LINEAR_ADDRESS "Guest-linear address" Exit told [];
            // Natural width guest
            0x6800 u64 GUEST_CR0 "Guest CR0" Hot state [];
            0x6802 u64 GUEST_CR3 "Guest CR3" Hot state [];
            0x6804 u64 GUEST_CR4 "Guest CR4" Hot state [];
            0x6806 u64 GUEST_ES_BASE "Guest ES base" Cold - [];
            0x6808 u64 GUEST_CS_BASE "Guest CS base" Cold - [];
            0x680a u64 GUEST_SS_BASE "Guest SS base" Cold - [];
            0x680c u64 GUEST_DS_BASE "Guest DS base" Cold - [];
            0x680e u64 GUEST_FS_BASE "Guest FS base" Cold - [];
            0x6810 u64 GUEST_GS_BASE "Guest GS base" Cold - [];
            0x6812 u64 GUEST_LDTR_BASE "Guest LDTR base" Cold - [];
            0x6814 u64 GUEST_TR_BASE "Guest TR base" Cold - [];
            0x6816 u64 GUEST_GDTR_BASE "Guest GDTR base" Cold - [];
            0x6818 u64 GUEST_IDTR_BASE "Guest IDTR base" Cold - [];
            0x681a u64 GUEST_DR7 "Guest DR7" Hot - [];
            0x681c u64 GUEST_RSP "Guest RSP" Hot state [];
            0x681e u64 GUEST_RIP "Guest RIP" Hot state [];
            0x6820 u64 GUEST_RFLAGS "Guest RFLAGS" Hot state [];
            0x6822 u64 GUEST_PENDING_DEBUG_EXCEPTIONS "Guest pending debug exceptions" Hot - [];
            0x6824 u64 GUEST_SYSENTER_ESP "Guest IA32_SYSENTER_ESP" Cold - [];
            0x6826 u64 GUEST_SYSENTER_EIP "Guest IA32_SYSENTER_EIP" Cold - [];
            0x6828 u64 GUEST_S_CET "Guest IA32_S_CET" Cold - [entry LOAD_CET_STATE];
            0x682a u64 GUEST_SSP "Guest SSP" Cold - [entry LOAD_CET_STATE];
            0x682c u64 GUEST_INTERRUPT_SSP_TABLE "Guest IA32_INTERRUPT_SSP_TABLE_ADDR" Cold - [entry LOAD_CET_STATE];
            // Natural width host
            0x6c00 u64 HOST_CR0 "Host CR0" Host - [];
            0x6c02 u64 HOST_CR3 "Host CR3" Host - [];
            0x6c04 u64 HOST_CR4 "Host CR4" Host - [];
            0x6c06 u64 HOST_FS_BASE "Host FS base" Host control [];
            0x6c08 u64 HOST_GS_BASE "Host GS base" Host control [];
            0x6c0a u64 HOST_TR_BASE "Host TR base" Host - [];
            0x6c0c u64 HOST_GDTR_BASE "Host GDTR base" Host - [];
            0x6c0e u64 HOST_IDTR_BASE "Host IDTR base" Host - [];
            0x6c10 u64 HOST_SYSENTER_ESP "Host IA32_SYSENTER_ESP" Host - [];
            0x6c12 u64 HOST_SYSENTER_EIP "Host IA32_SYSENTER_EIP" Host - [];
            0x6c14 u64 HOST_RSP "Host RSP" Host control [];
            0x6c16 u64 HOST_RIP "Host RIP" Host - [];
            0x6c18 u64 HOST_S_CET "Host IA32_S_CET" Host - [exit LOAD_CET_STATE];
            0x6c1a u64 HOST_SSP "Host SSP" Host - [exit LOAD_CET_STATE];
            0x6c1c u64 HOST_INTERRUPT_SSP_TABLE "Host IA32_INTERRUPT_SSP_TABLE_ADDR" Host - [exit LOAD_CET_STATE];
        }
    };
}
