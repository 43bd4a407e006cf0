//! What translations of the guest's addresses are cached under, and their invalidation.
//!
//! UNSAFETY: INVEPT.
#![expect(unsafe_code, reason = "invalidates translations")]

/// The guest's virtual-processor identifier: there is one guest.
pub(super) const VPID: u16 = 1;

/// Drops all translations of guest-physical addresses of this CPU, which is in VMX operation.
pub(super) fn all_guest_physical() {
    // SAFETY: the caller is in VMX operation, before which `Controls::for_processor` looked for all-context INVEPT.
    if unsafe { hw::bare::vmx::invept_all() }.is_err() {
        panic!("INVEPT failed");
    }
}
