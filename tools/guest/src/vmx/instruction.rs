//! VMX instructions that do not fault, each with its outcome (SDM, "Conventions" of the VMX instructions).

#![expect(unsafe_code, reason = "single instructions that only assembly names")]
// UNSAFETY: what the processor does to the regions it is given is the test's business; they are never memory
// that Rust knows of.

use core::arch::asm;

use x86::vmx::vmcs::{Field, FieldValue, INSTRUCTION_ERROR};

/// How an instruction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// VMfailInvalid.
    Invalid,
    /// VMfailValid with the VM-instruction error.
    Valid(u32),
    /// Carry and zero flag both set, which no instruction does.
    Both,
}

macro_rules! outcome {
    ($instruction:literal $($operand:tt)*) => {{
        let (carry, zero): (u8, u8);
        // SAFETY: see the module's note.
        unsafe {
            asm!($instruction, "setc {carry}", "setz {zero}", carry = out(reg_byte) carry,
                zero = out(reg_byte) zero $($operand)*, options(nostack));
        }
        outcome(carry | zero << 1)
    }};
}

/// The outcome of flags: bit 0 carry, bit 1 zero flag.
pub(super) fn outcome(flags: u8) -> Result<(), Failure> {
    match flags {
        0 => Ok(()),
        1 => Err(Failure::Invalid),
        2 => Err(Failure::Valid(error())),
        _ => Err(Failure::Both),
    }
}

fn error() -> u32 {
    let value: u64;
    // SAFETY: VMfailValid says that there is a current VMCS.
    unsafe {
        asm!("vmread {value}, {field}", value = out(reg) value,
            field = in(reg) u64::from(INSTRUCTION_ERROR.encoding()), options(nostack));
    }
    value as u32
}

macro_rules! with_region {
    ($($(#[$doc:meta])* $name:ident $instruction:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// As the processor says.
        pub fn $name(region: u64) -> Result<(), Failure> {
            outcome!($instruction, operand = in(reg) &raw const region)
        }
    )*};
}

with_region! {
    /// VMXON.
    vmxon "vmxon [{operand}]";
    /// VMCLEAR.
    vmclear "vmclear [{operand}]";
    /// VMPTRLD.
    vmptrld "vmptrld [{operand}]";
}

/// VMXOFF.
///
/// # Errors
///
/// As the processor says.
pub fn vmxoff() -> Result<(), Failure> {
    outcome!("vmxoff")
}

/// VMLAUNCH that is to fail; one that succeeds does not come back.
///
/// # Errors
///
/// As the processor says.
pub fn vmlaunch() -> Result<(), Failure> {
    outcome!("vmlaunch")
}

/// VMRESUME that is to fail; one that succeeds does not come back.
///
/// # Errors
///
/// As the processor says.
pub fn vmresume() -> Result<(), Failure> {
    outcome!("vmresume")
}

/// VMPTRST.
pub fn vmptrst() -> u64 {
    let mut region = 0_u64;
    // SAFETY: stores eight bytes.
    unsafe { asm!("vmptrst [{}]", in(reg) &raw mut region, options(nostack)) };
    region
}

/// VMREAD of any encoding, upper bits included.
///
/// # Errors
///
/// As the processor says.
pub fn vmread(encoding: u64) -> Result<u64, Failure> {
    let value: u64;
    let read = outcome!("vmread {value}, {field}", field = in(reg) encoding, value = out(reg) value);
    read.map(|()| value)
}

/// VMWRITE of any encoding, upper bits included.
///
/// # Errors
///
/// As the processor says.
pub fn vmwrite(encoding: u64, value: u64) -> Result<(), Failure> {
    outcome!("vmwrite {field}, {value}", field = in(reg) encoding, value = in(reg) value)
}

/// INVEPT of type `kind`.
///
/// # Errors
///
/// As the processor says.
pub fn invept(kind: u64, descriptor: [u64; 2]) -> Result<(), Failure> {
    outcome!("invept {kind}, [{operand}]", kind = in(reg) kind, operand = in(reg) &raw const descriptor)
}

/// INVVPID of type `kind`.
///
/// # Errors
///
/// As the processor says.
pub fn invvpid(kind: u64, descriptor: [u64; 2]) -> Result<(), Failure> {
    outcome!("invvpid {kind}, [{operand}]", kind = in(reg) kind, operand = in(reg) &raw const descriptor)
}

/// VMREAD of a field that exists in the current VMCS.
pub fn read<T: FieldValue, const IS_TRUSTED: bool>(field: Field<T, IS_TRUSTED>) -> T {
    match vmread(field.encoding().into()) {
        Ok(value) => T::from_u64(value),
        Err(failure) => panic!("VMREAD of {:#x}: {failure:?}", field.encoding()),
    }
}

/// VMWRITE of a field that exists in the current VMCS.
pub fn write<T: FieldValue, const IS_TRUSTED: bool>(field: Field<T, IS_TRUSTED>, value: T) {
    if let Err(failure) = vmwrite(field.encoding().into(), value.to_u64()) {
        panic!("VMWRITE of {:#x}: {failure:?}", field.encoding());
    }
}
