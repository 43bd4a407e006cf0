//! TXT configuration registers by name (TXT guide, "Intel TXT Configuration Registers").

/// Physical address of the private space, which only the measured environment and authenticated code reach.
pub const PRIVATE_SPACE: u64 = 0xfed2_0000;
/// Physical address of the public space, whose commands are without effect.
pub const PUBLIC_SPACE: u64 = 0xfed3_0000;
/// Bytes of either space.
pub const SPACE_SIZE: u64 = 0x1_0000;

/// A register, by its offset in either space. All may be read with 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub u16);

impl Register {
    /// Physical address in the public space.
    #[must_use]
    pub const fn public(self) -> u64 {
        PUBLIC_SPACE + self.0 as u64
    }

    /// Physical address in the private space.
    #[must_use]
    pub const fn private(self) -> u64 {
        PRIVATE_SPACE + self.0 as u64
    }
}

impl core::fmt::Debug for Register {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self}")
    }
}

macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident = $offset:literal, $word:literal;)*) => {
        impl Register {
            $($(#[$doc])* pub const $name: Self = Self($offset);)*
            /// Every register that has a name here.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }

        impl core::fmt::Display for Register {
            /// The guide's name, or the offset where there is none.
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    $($offset => f.write_str($word),)*
                    offset => write!(f, "TXT register {offset:#x}"),
                }
            }
        }
    };
}

registers! {
    /// Status, see [`Status`](crate::status::Status).
    STS = 0x0, "TXT.STS";
    /// Error status, see [`ErrorStatus`](crate::status::ErrorStatus).
    ESTS = 0x8, "TXT.ESTS";
    /// Why the last launch failed, see [`ErrorCode`](crate::error_code::ErrorCode); survives a reset.
    ERRORCODE = 0x30, "TXT.ERRORCODE";
    /// A store resets the platform.
    CMD_RESET = 0x38, "TXT.CMD.RESET";
    /// A store closes the private space.
    CMD_CLOSE_PRIVATE = 0x48, "TXT.CMD.CLOSE-PRIVATE";
    /// What the authenticated code of start-up said.
    ACM_STATUS = 0xa0, "TXT.ACM_STATUS";
    /// Version of the front-side bus interface, and whether the chipset is of production.
    VER_FSBIF = 0x100, "TXT.VER.FSBIF";
    /// The chipset, see [`ChipsetIdentity`](crate::status::ChipsetIdentity).
    DIDVID = 0x110, "TXT.DIDVID";
    /// Version of the QuickPath interface, as [`Register::VER_FSBIF`], on processors that have it instead.
    VER_QPIIF = 0x200, "TXT.VER.QPIIF";
    /// A store unlocks the memory configuration.
    CMD_UNLOCK_MEM_CONFIG = 0x218, "TXT.CMD.UNLOCK-MEM-CONFIG";
    /// Physical address of the memory for SINIT.
    SINIT_BASE = 0x270, "TXT.SINIT.BASE";
    /// Its bytes.
    SINIT_SIZE = 0x278, "TXT.SINIT.SIZE";
    /// Physical address of the structure by which the other processors join.
    MLE_JOIN = 0x290, "TXT.MLE.JOIN";
    /// Physical address of the heap.
    HEAP_BASE = 0x300, "TXT.HEAP.BASE";
    /// Its bytes.
    HEAP_SIZE = 0x308, "TXT.HEAP.SIZE";
    /// Physical address of the SMI transfer monitor's memory.
    MSEG_BASE = 0x310, "TXT.MSEG.BASE";
    /// Its bytes.
    MSEG_SIZE = 0x318, "TXT.MSEG.SIZE";
    /// Memory that no device reaches, see [`DmaProtectedRange`](crate::status::DmaProtectedRange).
    DPR = 0x330, "TXT.DPR";
    /// A store opens the TPM's locality 1.
    CMD_OPEN_LOCALITY1 = 0x380, "TXT.CMD.OPEN.LOCALITY1";
    /// A store closes the TPM's locality 1.
    CMD_CLOSE_LOCALITY1 = 0x388, "TXT.CMD.CLOSE.LOCALITY1";
    /// A store opens the TPM's locality 2.
    CMD_OPEN_LOCALITY2 = 0x390, "TXT.CMD.OPEN.LOCALITY2";
    /// A store closes the TPM's locality 2.
    CMD_CLOSE_LOCALITY2 = 0x398, "TXT.CMD.CLOSE.LOCALITY2";
    /// Hash of the key by which authenticated code is signed, 32 bytes.
    PUBLIC_KEY = 0x400, "TXT.PUBLIC.KEY";
    /// A store says that there are secrets in memory: a reset clears it before anybody reads it.
    CMD_SECRETS = 0x8e0, "TXT.CMD.SECRETS";
    /// A store says that there are none any more.
    CMD_NO_SECRETS = 0x8e8, "TXT.CMD.NO-SECRETS";
    /// Extended error status, see [`ExtendedErrorStatus`](crate::status::ExtendedErrorStatus).
    E2STS = 0x8f0, "TXT.E2STS";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spaces_have_the_same_registers() {
        assert_eq!((Register::STS.public(), Register::STS.private()), (0xfed3_0000, 0xfed2_0000));
        assert_eq!(Register::E2STS.public() - Register::E2STS.private(), SPACE_SIZE);
    }

    #[test]
    fn registers_ascend_are_aligned_and_have_names() {
        assert!(Register::ALL.is_sorted_by(|low, high| low < high));
        for register in Register::ALL {
            assert!(register.0 % 8 == 0 && register.to_string().starts_with("TXT."), "{register}");
        }
        assert_eq!(Register::ERRORCODE.to_string(), "TXT.ERRORCODE");
        assert_eq!(format!("{:?}", Register(0x123)), "TXT register 0x123");
    }
}
