//! The four kinds of address, kept apart by type, and the units of memory.

/// Bytes of a kibibyte.
pub const KIB: u64 = 1024;
/// Bytes of a mebibyte.
pub const MIB: u64 = 1024 * KIB;
/// Bytes of a gibibyte.
pub const GIB: u64 = 1024 * MIB;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps an address.
            #[must_use]
            pub const fn new(address: u64) -> Self {
                Self(address)
            }

            /// Returns the address as a number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the first byte of the 4 KiB page that holds the address.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !0xfff)
            }

            /// Offset in the 4 KiB page, in bytes.
            #[must_use]
            pub const fn page_offset(self) -> usize {
                (self.0 & 0xfff) as usize
            }

            /// Returns the address `bytes` further on; `None` where it wraps.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A physical address as the processor puts it on the bus.
    HostPhysAddr
}
address! {
    /// A linear address of the hypervisor.
    HostVirtAddr
}
address! {
    /// A physical address as the guest sees it, to be translated by EPT.
    GuestPhysAddr
}
address! {
    /// A linear address of the guest, to be translated by the guest's own paging.
    GuestLinearAddr
}

#[cfg(test)]
mod tests {
    use super::{GuestPhysAddr, HostPhysAddr};

    #[test]
    fn an_address_splits_into_page_and_offset() {
        let address = HostPhysAddr::new(0x1234_5678);
        assert_eq!(
            (address.get(), address.page().get(), address.page_offset()),
            (0x1234_5678, 0x1234_5000, 0x678)
        );
        let last = HostPhysAddr::new(u64::MAX);
        assert_eq!((last.page().get(), last.page_offset()), (0xffff_ffff_ffff_f000, 0xfff));
    }

    #[test]
    fn an_address_that_would_wrap_is_none() {
        let address = HostPhysAddr::new(u64::MAX - 1);
        assert_eq!(address.checked_add(1), Some(HostPhysAddr::new(u64::MAX)));
        assert_eq!(address.checked_add(2), None);
    }

    #[test]
    fn an_address_is_told_with_its_kind() {
        let address = GuestPhysAddr::new(0xfee0_0000);
        assert_eq!(
            format!("{address:?} {address:x} {address:#x}"),
            "GuestPhysAddr(0xfee00000) fee00000 0xfee00000"
        );
    }
}
