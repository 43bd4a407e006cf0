//! Exit qualifications (SDM, "Basic VM-Exit Information").

use crate::paging::Rights;

/// Of control-register accesses (SDM, "Exit Qualification for Control-Register Accesses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegisterQualification(pub u64);

impl ControlRegisterQualification {
    /// Returns the number of the control register.
    #[must_use]
    pub const fn control_register(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// 0 MOV to CR, 1 MOV from CR, 2 CLTS, 3 LMSW.
    #[must_use]
    pub const fn access(self) -> u8 {
        (self.0 >> 4 & 3) as u8
    }

    /// Returns the encoding of the general-purpose register of a MOV.
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
    /// Returns the size of access: 0, 1 or 3 for 1, 2 or 4 bytes.
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

    /// Returns the port.
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

    /// Returns an access by a linear address that needs `rights`: to its translation, or to a paging-structure entry.
    #[must_use]
    pub const fn of_linear_address(rights: Rights, is_final: bool) -> Self {
        Self(rights.bits() as u64 | 1 << 7 | (is_final as u64) << 8)
    }

    /// Returns the same access, where the tables give `rights`.
    #[must_use]
    pub const fn with_allowed(self, rights: Rights) -> Self {
        Self(self.0 & !Self::ALLOWED | (rights.bits() as u64) << Self::RIGHTS_SHIFT)
    }

    /// Without what only processors with advanced VM-exit information tell of the page.
    #[must_use]
    pub const fn without_advanced(self) -> Self {
        Self(self.0 & !(7 << 9))
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

    /// Returns whether the guest-linear-address field is valid.
    #[must_use]
    pub const fn has_linear_address(self) -> bool {
        self.0 >> 7 & 1 == 1
    }

    /// Returns whether the access was to the translation of a linear address, not to a paging-structure entry.
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

#[cfg(test)]
mod tests {
    use super::{
        ControlRegisterQualification, EptViolationQualification, IoQualification, TaskSwitchQualification,
    };
    use crate::paging::Rights;

    /// What bit `bit`, alone in a qualification, is in the part that begins at `first` and has `count` bits.
    fn part(bit: u32, first: u32, count: u32) -> u64 {
        if (first..first + count).contains(&bit) { 1 << (bit - first) } else { 0 }
    }

    #[test]
    fn advanced_information_is_three_bits() {
        assert_eq!(EptViolationQualification(u64::MAX).without_advanced().0, !0xe00);
    }

    #[test]
    fn control_register_accesses_have_the_manual_s_bits() {
        for bit in 0..64 {
            let alone = ControlRegisterQualification(1 << bit);
            assert_eq!(u64::from(alone.control_register()), part(bit, 0, 4), "bit {bit}");
            assert_eq!(u64::from(alone.access()), part(bit, 4, 2), "bit {bit}");
            assert_eq!(u64::from(alone.register()), part(bit, 8, 4), "bit {bit}");
            assert_eq!(u64::from(alone.lmsw_source()), part(bit, 16, 16), "bit {bit}");
        }
        let all = ControlRegisterQualification(u64::MAX);
        assert_eq!((all.control_register(), all.access(), all.register()), (15, 3, 15));
        assert_eq!(all.lmsw_source(), 0xffff);
    }

    #[test]
    fn port_accesses_have_the_manual_s_bits() {
        for bit in 0..64 {
            let alone = IoQualification(1 << bit);
            assert_eq!(u64::from(alone.size()), part(bit, 0, 3), "bit {bit}");
            assert_eq!(alone.is_input(), bit == 3, "bit {bit}");
            assert_eq!(alone.is_string(), bit == 4, "bit {bit}");
            assert_eq!(alone.is_repeated(), bit == 5, "bit {bit}");
            assert_eq!(u64::from(alone.port()), part(bit, 16, 16), "bit {bit}");
        }
        let all = IoQualification(u64::MAX);
        assert_eq!((all.size(), all.port()), (7, 0xffff));
        assert!(all.is_input() && all.is_string() && all.is_repeated());
    }

    #[test]
    fn ept_violations_have_the_manual_s_bits() {
        for bit in 0..64 {
            let alone = EptViolationQualification(1 << bit);
            let access = [alone.is_read(), alone.is_write(), alone.is_fetch()];
            assert_eq!(access, [0, 1, 2].map(|own| own == bit), "bit {bit}");
            assert_eq!(alone.has_linear_address(), bit == 7, "bit {bit}");
            assert_eq!(alone.is_final_access(), bit == 8, "bit {bit}");
            assert_eq!(alone.is_nmi_unblocking(), bit == 12, "bit {bit}");
        }
        let all = EptViolationQualification(u64::MAX);
        assert!(all.is_read() && all.is_write() && all.is_fetch());
        assert!(all.has_linear_address() && all.is_final_access() && all.is_nmi_unblocking());
    }

    #[test]
    fn a_made_violation_tells_access_and_rights() {
        let write = EptViolationQualification::of_linear_address(Rights::WRITE, true);
        assert_eq!(write.0, 0x182);
        assert_eq!(EptViolationQualification::of_linear_address(Rights::READ, false).0, 0x81);
        let allowed = EptViolationQualification(write.0 | 0x78).with_allowed(Rights::READ | Rights::EXECUTE);
        assert_eq!(allowed.0, 0x1aa, "rights that were told before are gone, user-mode fetches too");
    }

    #[test]
    fn task_switches_have_the_manual_s_bits() {
        for bit in 0..64 {
            let alone = TaskSwitchQualification(1 << bit);
            assert_eq!(u64::from(alone.selector()), part(bit, 0, 16), "bit {bit}");
            assert_eq!(u64::from(alone.source()), part(bit, 30, 2), "bit {bit}");
        }
        let all = TaskSwitchQualification(u64::MAX);
        assert_eq!((all.selector(), all.source()), (0xffff, 3));
    }
}
