//! The format of the guest's second-level tables.

/// EPT entries (SDM, "EPT Translation Mechanism").
pub(crate) type SecondLevelFormat = x86::vmx::ept::EptFormat;
