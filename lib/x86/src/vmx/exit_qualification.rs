//! Exit qualifications (SDM, "Basic VM-Exit Information").

use crate::paging::Rights;

/// Of control-register accesses (SDM, "Exit Qualification for Control-Register Accesses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegisterQualification(pub u64);

impl ControlRegisterQualification {
    /// Number of the control register.
    #[must_use]
    pub const fn control_register(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// 0 MOV to CR, 1 MOV from CR, 2 CLTS, 3 LMSW.
    #[must_use]
    pub const fn access(self) -> u8 {
        (self.0 >> 4 & 3) as u8
    }

    /// Encoding of the general-purpose register of a MOV.
    #[must_use]
    pub const fn register(self) -> u8 {
        (self.0 >> 8 & 0xf) as u8
    }

    /// Source operand of LMSW.
    #[must_use]
    pub const fn lmsw_source(self) -> u16 {
        (self.0 >> 16 & 0xffff) as u16
    }
}

/// Of I/O instructions (SDM, "Exit Qualification for I/O Instructions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoQualification(pub u64);

impl IoQualification {
    /// Size of access: 0, 1 or 3 for 1, 2 or 4 bytes.
    #[must_use]
    pub const fn size(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// IN or INS.
    #[must_use]
    pub const fn is_input(self) -> bool {
        self.0 >> 3 & 1 == 1
    }

    /// INS or OUTS.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 >> 4 & 1 == 1
    }

    /// REP prefix.
    #[must_use]
    pub const fn is_repeated(self) -> bool {
        self.0 >> 5 & 1 == 1
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16 & 0xffff) as u16
    }
}

/// Of EPT violations (SDM, "Exit Qualification for EPT Violations").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptViolationQualification(pub u64);

impl EptViolationQualification {
    /// IRET had removed blocking by NMI; in the qualification of a full page-modification log too.
    pub const NMI_UNBLOCKING: u64 = 1 << 12;
    const RIGHTS_SHIFT: u32 = 3;
    /// What the tables allow, user-mode fetches included.
    const ALLOWED: u64 = 0xf << Self::RIGHTS_SHIFT;

    /// An access by a linear address that needs `rights`: to its translation, or to a paging-structure entry.
    #[must_use]
    pub const fn of_linear_address(rights: Rights, is_final: bool) -> Self {
        Self(rights.bits() as u64 | 1 << 7 | (is_final as u64) << 8)
    }

    /// The same access, where the tables give `rights`.
    #[must_use]
    pub const fn with_allowed(self, rights: Rights) -> Self {
        Self(self.0 & !Self::ALLOWED | (rights.bits() as u64) << Self::RIGHTS_SHIFT)
    }

    /// Data read.
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.0 & 1 == 1
    }

    /// Data write.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0 >> 1 & 1 == 1
    }

    /// Instruction fetch.
    #[must_use]
    pub const fn is_fetch(self) -> bool {
        self.0 >> 2 & 1 == 1
    }

    /// The guest-linear-address field is valid.
    #[must_use]
    pub const fn has_linear_address(self) -> bool {
        self.0 >> 7 & 1 == 1
    }

    /// The access was to the translation of a linear address, not to a paging-structure entry.
    #[must_use]
    pub const fn is_final_access(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    /// IRET had removed blocking by NMI before the exit.
    #[must_use]
    pub const fn is_nmi_unblocking(self) -> bool {
        self.0 & Self::NMI_UNBLOCKING != 0
    }
}

/// Of task switches (SDM, "Exit Qualification for Task Switches").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitchQualification(pub u64);

impl TaskSwitchQualification {
    /// Selector of the TSS switched to.
    #[must_use]
    pub const fn selector(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// 0 CALL, 1 IRET, 2 JMP, 3 task gate in the IDT.
    #[must_use]
    pub const fn source(self) -> u8 {
        (self.0 >> 30 & 3) as u8
    }
}
