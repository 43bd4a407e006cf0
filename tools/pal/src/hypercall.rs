//! The two instructions by which a program reaches TrustVisor: VMCALL and CPUID.
#![expect(unsafe_code, reason = "VMCALL is an instruction that Rust has no function for")]
// UNSAFETY: each asm block is one call with the registers that the interface names.

use core::arch::asm;
use trustvisor::command::{Command, NESTED_OFFSET};
use trustvisor::probe;
use trustvisor::status::Status;

/// What is added to hypercalls, and to ECX of the CPUID leaf: in a guest of a guest, what makes them TrustVisor's.
const OFFSET: u32 = if cfg!(feature = "l2") { NESTED_OFFSET } else { 0 };

/// The registers that carry a hypercall's arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Arguments {
    /// ECX or RCX.
    pub c: usize,
    /// EDX or RDX.
    pub d: usize,
    /// ESI or RSI.
    pub si: usize,
    /// EDI or RDI.
    pub di: usize,
}

/// Calls TrustVisor.
///
/// # Safety
///
/// 1. TrustVisor is there ([`is_present`]); without it the process takes #UD.
/// 2. Memory that the arguments name may be written as `command` has it.
#[inline(always)]
pub unsafe fn call(command: Command, arguments: Arguments) -> Status {
    // SAFETY: both duties are the caller's.
    Status(unsafe { vmcall(command.0.wrapping_add(OFFSET), &arguments) })
}

/// As [`call`], with success told from the rest.
///
/// # Safety
///
/// As [`call`].
///
/// # Errors
///
/// What the hypercall returned, where that is not success.
#[inline(always)]
pub unsafe fn checked(command: Command, arguments: Arguments) -> Result<(), Status> {
    // SAFETY: both duties are the caller's.
    match unsafe { call(command, arguments) } {
        Status::SUCCESS => Ok(()),
        status => Err(status),
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn vmcall(command: u32, arguments: &Arguments) -> u32 {
    let mut a = u64::from(command);
    // SAFETY: both duties are the caller's. No other register changes.
    unsafe {
        asm!("vmcall", inout("rax") a, in("rcx") arguments.c, in("rdx") arguments.d, in("rsi") arguments.si,
            in("rdi") arguments.di, options(nostack));
    }
    // A status has 32 bits.
    u32::try_from(a).unwrap_or(u32::MAX)
}

#[cfg(target_arch = "x86")]
#[inline(always)]
unsafe fn vmcall(command: u32, arguments: &Arguments) -> u32 {
    let mut a = command;
    // SAFETY: both duties are the caller's. ESI is the compiler's own, and given back.
    unsafe {
        asm!(
            "push esi",
            "mov esi, [edi + 8]",
            "mov edi, [edi + 12]",
            "vmcall",
            "pop esi",
            inout("eax") a,
            in("ecx") arguments.c,
            in("edx") arguments.d,
            inout("edi") arguments => _,
        );
    }
    a
}

/// Whether TrustVisor is there.
#[inline(always)]
#[must_use]
pub fn is_present() -> bool {
    probe().0 == probe::PRESENT
}

/// The number of the PAL that asks; `None` outside a PAL, and without TrustVisor.
#[inline(always)]
#[must_use]
pub fn pal_number() -> Option<u32> {
    let (present, number) = probe();
    if present == probe::PRESENT && number != probe::NOT_IN_PAL { Some(number) } else { None }
}

/// EAX and EBX of TrustVisor's leaf, the latter without meaning where EAX is not [`probe::PRESENT`].
#[inline(always)]
#[must_use]
pub fn probe() -> (u32, u32) {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::__cpuid_count;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::__cpuid_count;
    let leaf = __cpuid_count(probe::LEAF, OFFSET);
    (leaf.eax, leaf.ebx)
}
