//! The fields of a virtual-machine control structure (SDM, appendix "Field Encoding in VMCS").
//!
//! One table declares every field; typed constants, the dump and, for nesting, the treatment of each
//! field derive from it. Width and access of a field are checked against its encoding at compile time.

use core::marker::PhantomData;

/// Of the first word of a VMCS region: it is a shadow VMCS (SDM, "Format of the VMCS Region").
pub const SHADOW_INDICATOR: u32 = 1 << 31;

/// A field whose value is a `T`: `u16`, `u32`, or `u64` for 64-bit and natural-width fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<T> {
    encoding: u32,
    value: PhantomData<T>,
}

/// A type that a VMCS field can have.
pub trait FieldValue: Copy {
    /// Width bits of an encoding that this type serves (SDM, "Structure of VMCS Component Encoding").
    const WIDTHS: &'static [u32];
    /// Widens to what VMWRITE takes.
    fn to_u64(self) -> u64;
    /// Narrows what VMREAD gives; upper bits are zero by the architecture.
    fn from_u64(value: u64) -> Self;
}

macro_rules! field_value {
    ($type:ty, $widths:expr) => {
        impl FieldValue for $type {
            const WIDTHS: &'static [u32] = &$widths;
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[expect(clippy::cast_possible_truncation, reason = "VMREAD zero-extends a narrow field")]
            fn from_u64(value: u64) -> Self {
                value as Self
            }
        }
    };
}

field_value!(u16, [0]);
field_value!(u32, [2]);

impl FieldValue for u64 {
    const WIDTHS: &'static [u32] = &[1, 3];
    fn to_u64(self) -> u64 {
        self
    }
    fn from_u64(value: u64) -> Self {
        value
    }
}

impl<T: FieldValue> Field<T> {
    const fn new(encoding: u32) -> Self {
        let mut index = 0;
        while index < T::WIDTHS.len() {
            if encoding >> 13 & 3 == T::WIDTHS[index] {
                return Self { encoding, value: PhantomData };
            }
            index += 1;
        }
        panic!("the type of a VMCS field does not fit its encoding")
    }

    /// The number that VMREAD and VMWRITE take.
    #[must_use]
    pub const fn encoding(self) -> u32 {
        self.encoding
    }
}

/// Type of a field (SDM, "Structure of VMCS Component Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Control.
    Control,
    /// VM-exit information, read-only.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// Width of a field (SDM, "Structure of VMCS Component Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits on every processor.
    Bits64,
    /// 32 bits.
    Bits32,
    /// As wide as the processor's registers.
    Natural,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// The number that VMREAD and VMWRITE take.
    pub encoding: u32,
    /// The SDM's name.
    pub name: &'static str,
}

impl FieldInfo {
    /// Type of the field.
    #[must_use]
    pub const fn group(self) -> Group {
        match self.encoding >> 10 & 3 {
            0 => Group::Control,
            1 => Group::ExitInformation,
            2 => Group::Guest,
            _ => Group::Host,
        }
    }

    /// Width of the field.
    #[must_use]
    pub const fn width(self) -> Width {
        match self.encoding >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }
}

macro_rules! fields {
    ($($encoding:literal $type:ident $name:ident $text:literal;)*) => {
        $(
            #[doc = concat!($text, ".")]
            pub const $name: Field<$type> = Field::new($encoding);
        )*

        /// Every field, in the order of encodings within a width and group.
        pub const FIELDS: &[FieldInfo] =
            &[$(FieldInfo { encoding: $encoding, name: $text },)*];
    };
}

fields! {
    // 16 bits control
    0x0000 u16 VPID "Virtual-processor identifier";
    0x0002 u16 POSTED_INTERRUPT_NOTIFICATION_VECTOR "Posted-interrupt notification vector";
    0x0004 u16 EPTP_INDEX "EPTP index";
    // 16 bits guest
    0x0800 u16 GUEST_ES_SELECTOR "Guest ES selector";
    0x0802 u16 GUEST_CS_SELECTOR "Guest CS selector";
    0x0804 u16 GUEST_SS_SELECTOR "Guest SS selector";
    0x0806 u16 GUEST_DS_SELECTOR "Guest DS selector";
    0x0808 u16 GUEST_FS_SELECTOR "Guest FS selector";
    0x080a u16 GUEST_GS_SELECTOR "Guest GS selector";
    0x080c u16 GUEST_LDTR_SELECTOR "Guest LDTR selector";
    0x080e u16 GUEST_TR_SELECTOR "Guest TR selector";
    0x0810 u16 GUEST_INTERRUPT_STATUS "Guest interrupt status";
    0x0812 u16 PML_INDEX "PML index";
    // 16 bits host
    0x0c00 u16 HOST_ES_SELECTOR "Host ES selector";
    0x0c02 u16 HOST_CS_SELECTOR "Host CS selector";
    0x0c04 u16 HOST_SS_SELECTOR "Host SS selector";
    0x0c06 u16 HOST_DS_SELECTOR "Host DS selector";
    0x0c08 u16 HOST_FS_SELECTOR "Host FS selector";
    0x0c0a u16 HOST_GS_SELECTOR "Host GS selector";
    0x0c0c u16 HOST_TR_SELECTOR "Host TR selector";
    // 64 bits control
    0x2000 u64 IO_BITMAP_A "Address of I/O bitmap A";
    0x2002 u64 IO_BITMAP_B "Address of I/O bitmap B";
    0x2004 u64 MSR_BITMAPS "Address of MSR bitmaps";
    0x2006 u64 EXIT_MSR_STORE_ADDRESS "VM-exit MSR-store address";
    0x2008 u64 EXIT_MSR_LOAD_ADDRESS "VM-exit MSR-load address";
    0x200a u64 ENTRY_MSR_LOAD_ADDRESS "VM-entry MSR-load address";
    0x200c u64 EXECUTIVE_VMCS_POINTER "Executive-VMCS pointer";
    0x200e u64 PML_ADDRESS "PML address";
    0x2010 u64 TSC_OFFSET "TSC offset";
    0x2012 u64 VIRTUAL_APIC_ADDRESS "Virtual-APIC address";
    0x2014 u64 APIC_ACCESS_ADDRESS "APIC-access address";
    0x2016 u64 POSTED_INTERRUPT_DESCRIPTOR_ADDRESS "Posted-interrupt descriptor address";
    0x2018 u64 VM_FUNCTION_CONTROLS "VM-function controls";
    0x201a u64 EPT_POINTER "EPT pointer";
    0x201c u64 EOI_EXIT_BITMAP_0 "EOI-exit bitmap 0";
    0x201e u64 EOI_EXIT_BITMAP_1 "EOI-exit bitmap 1";
    0x2020 u64 EOI_EXIT_BITMAP_2 "EOI-exit bitmap 2";
    0x2022 u64 EOI_EXIT_BITMAP_3 "EOI-exit bitmap 3";
    0x2024 u64 EPTP_LIST_ADDRESS "EPTP-list address";
    0x2026 u64 VMREAD_BITMAP_ADDRESS "VMREAD-bitmap address";
    0x2028 u64 VMWRITE_BITMAP_ADDRESS "VMWRITE-bitmap address";
    0x202a u64 VIRTUALIZATION_EXCEPTION_ADDRESS "Virtualization-exception information address";
    0x202c u64 XSS_EXITING_BITMAP "XSS-exiting bitmap";
    0x202e u64 ENCLS_EXITING_BITMAP "ENCLS-exiting bitmap";
    0x2030 u64 SUB_PAGE_PERMISSION_TABLE_POINTER "Sub-page-permission-table pointer";
    0x2032 u64 TSC_MULTIPLIER "TSC multiplier";
    0x2034 u64 TERTIARY_CONTROLS "Tertiary processor-based VM-execution controls";
    0x2036 u64 ENCLV_EXITING_BITMAP "ENCLV-exiting bitmap";
    // 64 bits read-only
    0x2400 u64 GUEST_PHYSICAL_ADDRESS "Guest-physical address";
    // 64 bits guest
    0x2800 u64 VMCS_LINK_POINTER "VMCS link pointer";
    0x2802 u64 GUEST_DEBUGCTL "Guest IA32_DEBUGCTL";
    0x2804 u64 GUEST_PAT "Guest IA32_PAT";
    0x2806 u64 GUEST_EFER "Guest IA32_EFER";
    0x2808 u64 GUEST_PERF_GLOBAL_CTRL "Guest IA32_PERF_GLOBAL_CTRL";
    0x280a u64 GUEST_PDPTE0 "Guest PDPTE0";
    0x280c u64 GUEST_PDPTE1 "Guest PDPTE1";
    0x280e u64 GUEST_PDPTE2 "Guest PDPTE2";
    0x2810 u64 GUEST_PDPTE3 "Guest PDPTE3";
    0x2812 u64 GUEST_BNDCFGS "Guest IA32_BNDCFGS";
    0x2814 u64 GUEST_RTIT_CTL "Guest IA32_RTIT_CTL";
    0x2816 u64 GUEST_LBR_CTL "Guest IA32_LBR_CTL";
    0x2818 u64 GUEST_PKRS "Guest IA32_PKRS";
    // 64 bits host
    0x2c00 u64 HOST_PAT "Host IA32_PAT";
    0x2c02 u64 HOST_EFER "Host IA32_EFER";
    0x2c04 u64 HOST_PERF_GLOBAL_CTRL "Host IA32_PERF_GLOBAL_CTRL";
    0x2c06 u64 HOST_PKRS "Host IA32_PKRS";
    // 32 bits control
    0x4000 u32 PIN_BASED_CONTROLS "Pin-based VM-execution controls";
    0x4002 u32 PRIMARY_CONTROLS "Primary processor-based VM-execution controls";
    0x4004 u32 EXCEPTION_BITMAP "Exception bitmap";
    0x4006 u32 PAGE_FAULT_ERROR_CODE_MASK "Page-fault error-code mask";
    0x4008 u32 PAGE_FAULT_ERROR_CODE_MATCH "Page-fault error-code match";
    0x400a u32 CR3_TARGET_COUNT "CR3-target count";
    0x400c u32 EXIT_CONTROLS "Primary VM-exit controls";
    0x400e u32 EXIT_MSR_STORE_COUNT "VM-exit MSR-store count";
    0x4010 u32 EXIT_MSR_LOAD_COUNT "VM-exit MSR-load count";
    0x4012 u32 ENTRY_CONTROLS "VM-entry controls";
    0x4014 u32 ENTRY_MSR_LOAD_COUNT "VM-entry MSR-load count";
    0x4016 u32 ENTRY_INTERRUPTION_INFORMATION "VM-entry interruption-information field";
    0x4018 u32 ENTRY_EXCEPTION_ERROR_CODE "VM-entry exception error code";
    0x401a u32 ENTRY_INSTRUCTION_LENGTH "VM-entry instruction length";
    0x401c u32 TPR_THRESHOLD "TPR threshold";
    0x401e u32 SECONDARY_CONTROLS "Secondary processor-based VM-execution controls";
    0x4020 u32 PLE_GAP "PLE gap";
    0x4022 u32 PLE_WINDOW "PLE window";
    // 32 bits read-only
    0x4400 u32 INSTRUCTION_ERROR "VM-instruction error";
    0x4402 u32 EXIT_REASON "Exit reason";
    0x4404 u32 EXIT_INTERRUPTION_INFORMATION "VM-exit interruption information";
    0x4406 u32 EXIT_INTERRUPTION_ERROR_CODE "VM-exit interruption error code";
    0x4408 u32 IDT_VECTORING_INFORMATION "IDT-vectoring information field";
    0x440a u32 IDT_VECTORING_ERROR_CODE "IDT-vectoring error code";
    0x440c u32 EXIT_INSTRUCTION_LENGTH "VM-exit instruction length";
    0x440e u32 EXIT_INSTRUCTION_INFORMATION "VM-exit instruction information";
    // 32 bits guest
    0x4800 u32 GUEST_ES_LIMIT "Guest ES limit";
    0x4802 u32 GUEST_CS_LIMIT "Guest CS limit";
    0x4804 u32 GUEST_SS_LIMIT "Guest SS limit";
    0x4806 u32 GUEST_DS_LIMIT "Guest DS limit";
    0x4808 u32 GUEST_FS_LIMIT "Guest FS limit";
    0x480a u32 GUEST_GS_LIMIT "Guest GS limit";
    0x480c u32 GUEST_LDTR_LIMIT "Guest LDTR limit";
    0x480e u32 GUEST_TR_LIMIT "Guest TR limit";
    0x4810 u32 GUEST_GDTR_LIMIT "Guest GDTR limit";
    0x4812 u32 GUEST_IDTR_LIMIT "Guest IDTR limit";
    0x4814 u32 GUEST_ES_ACCESS_RIGHTS "Guest ES access rights";
    0x4816 u32 GUEST_CS_ACCESS_RIGHTS "Guest CS access rights";
    0x4818 u32 GUEST_SS_ACCESS_RIGHTS "Guest SS access rights";
    0x481a u32 GUEST_DS_ACCESS_RIGHTS "Guest DS access rights";
    0x481c u32 GUEST_FS_ACCESS_RIGHTS "Guest FS access rights";
    0x481e u32 GUEST_GS_ACCESS_RIGHTS "Guest GS access rights";
    0x4820 u32 GUEST_LDTR_ACCESS_RIGHTS "Guest LDTR access rights";
    0x4822 u32 GUEST_TR_ACCESS_RIGHTS "Guest TR access rights";
    0x4824 u32 GUEST_INTERRUPTIBILITY "Guest interruptibility state";
    0x4826 u32 GUEST_ACTIVITY "Guest activity state";
    0x4828 u32 GUEST_SMBASE "Guest SMBASE";
    0x482a u32 GUEST_SYSENTER_CS "Guest IA32_SYSENTER_CS";
    0x482e u32 PREEMPTION_TIMER "VMX-preemption timer value";
    // 32 bits host
    0x4c00 u32 HOST_SYSENTER_CS "Host IA32_SYSENTER_CS";
    // Natural width control
    0x6000 u64 CR0_MASK "CR0 guest/host mask";
    0x6002 u64 CR4_MASK "CR4 guest/host mask";
    0x6004 u64 CR0_READ_SHADOW "CR0 read shadow";
    0x6006 u64 CR4_READ_SHADOW "CR4 read shadow";
    0x6008 u64 CR3_TARGET_0 "CR3-target value 0";
    0x600a u64 CR3_TARGET_1 "CR3-target value 1";
    0x600c u64 CR3_TARGET_2 "CR3-target value 2";
    0x600e u64 CR3_TARGET_3 "CR3-target value 3";
    // Natural width read-only
    0x6400 u64 EXIT_QUALIFICATION "Exit qualification";
    0x6402 u64 IO_RCX "I/O RCX";
    0x6404 u64 IO_RSI "I/O RSI";
    0x6406 u64 IO_RDI "I/O RDI";
    0x6408 u64 IO_RIP "I/O RIP";
    0x640a u64 GUEST_LINEAR_ADDRESS "Guest-linear address";
    // Natural width guest
    0x6800 u64 GUEST_CR0 "Guest CR0";
    0x6802 u64 GUEST_CR3 "Guest CR3";
    0x6804 u64 GUEST_CR4 "Guest CR4";
    0x6806 u64 GUEST_ES_BASE "Guest ES base";
    0x6808 u64 GUEST_CS_BASE "Guest CS base";
    0x680a u64 GUEST_SS_BASE "Guest SS base";
    0x680c u64 GUEST_DS_BASE "Guest DS base";
    0x680e u64 GUEST_FS_BASE "Guest FS base";
    0x6810 u64 GUEST_GS_BASE "Guest GS base";
    0x6812 u64 GUEST_LDTR_BASE "Guest LDTR base";
    0x6814 u64 GUEST_TR_BASE "Guest TR base";
    0x6816 u64 GUEST_GDTR_BASE "Guest GDTR base";
    0x6818 u64 GUEST_IDTR_BASE "Guest IDTR base";
    0x681a u64 GUEST_DR7 "Guest DR7";
    0x681c u64 GUEST_RSP "Guest RSP";
    0x681e u64 GUEST_RIP "Guest RIP";
    0x6820 u64 GUEST_RFLAGS "Guest RFLAGS";
    0x6822 u64 GUEST_PENDING_DEBUG_EXCEPTIONS "Guest pending debug exceptions";
    0x6824 u64 GUEST_SYSENTER_ESP "Guest IA32_SYSENTER_ESP";
    0x6826 u64 GUEST_SYSENTER_EIP "Guest IA32_SYSENTER_EIP";
    0x6828 u64 GUEST_S_CET "Guest IA32_S_CET";
    0x682a u64 GUEST_SSP "Guest SSP";
    0x682c u64 GUEST_INTERRUPT_SSP_TABLE "Guest IA32_INTERRUPT_SSP_TABLE_ADDR";
    // Natural width host
    0x6c00 u64 HOST_CR0 "Host CR0";
    0x6c02 u64 HOST_CR3 "Host CR3";
    0x6c04 u64 HOST_CR4 "Host CR4";
    0x6c06 u64 HOST_FS_BASE "Host FS base";
    0x6c08 u64 HOST_GS_BASE "Host GS base";
    0x6c0a u64 HOST_TR_BASE "Host TR base";
    0x6c0c u64 HOST_GDTR_BASE "Host GDTR base";
    0x6c0e u64 HOST_IDTR_BASE "Host IDTR base";
    0x6c10 u64 HOST_SYSENTER_ESP "Host IA32_SYSENTER_ESP";
    0x6c12 u64 HOST_SYSENTER_EIP "Host IA32_SYSENTER_EIP";
    0x6c14 u64 HOST_RSP "Host RSP";
    0x6c16 u64 HOST_RIP "Host RIP";
    0x6c18 u64 HOST_S_CET "Host IA32_S_CET";
    0x6c1a u64 HOST_SSP "Host SSP";
    0x6c1c u64 HOST_INTERRUPT_SSP_TABLE "Host IA32_INTERRUPT_SSP_TABLE_ADDR";
}

#[cfg(test)]
mod tests {
    use super::{FIELDS, GUEST_RIP, Group, Width};

    #[test]
    fn encodings_are_unique_and_of_full_access() {
        for (index, field) in FIELDS.iter().enumerate() {
            assert_eq!(field.encoding & 1, 0, "{}", field.name);
            assert!(
                FIELDS[..index].iter().all(|earlier| earlier.encoding != field.encoding),
                "{}",
                field.name
            );
        }
    }

    #[test]
    fn names_agree_with_the_group_in_the_encoding() {
        for field in FIELDS {
            assert_eq!(field.name.starts_with("Host "), field.group() == Group::Host, "{}", field.name);
            if field.name.starts_with("Guest ") && field.group() != Group::ExitInformation {
                assert_eq!(field.group(), Group::Guest, "{}", field.name);
            }
        }
    }

    #[test]
    fn guest_rip_is_a_natural_width_guest_field() {
        let row = FIELDS.iter().find(|f| f.encoding == GUEST_RIP.encoding()).copied();
        assert_eq!(row.map(|f| (f.group(), f.width())), Some((Group::Guest, Width::Natural)));
    }

    #[test]
    fn type_and_width_are_the_manual_s_bits() {
        use super::FieldInfo;
        for encoding in 0..0x8000 {
            let field = FieldInfo { encoding, name: "" };
            // SDM, "Structure of VMCS Component Encoding".
            let groups = [Group::Control, Group::ExitInformation, Group::Guest, Group::Host];
            let widths = [Width::Bits16, Width::Bits64, Width::Bits32, Width::Natural];
            assert_eq!(field.group(), groups[(encoding as usize >> 10) % 4], "{encoding:#x}");
            assert_eq!(field.width(), widths[(encoding as usize >> 13) % 4], "{encoding:#x}");
        }
    }

    #[test]
    fn values_pass_whole() {
        use super::FieldValue;
        assert_eq!((u16::MAX.to_u64(), u32::MAX.to_u64(), u64::MAX.to_u64()), (0xffff, 0xffff_ffff, !0));
        assert_eq!((u16::from_u64(0x1234), u32::from_u64(0x1234_5678)), (0x1234, 0x1234_5678));
        assert_eq!(u64::from_u64(0x1234_5678_9abc_def0), 0x1234_5678_9abc_def0);
        assert_eq!(GUEST_RIP.encoding(), 0x681e);
    }
}
