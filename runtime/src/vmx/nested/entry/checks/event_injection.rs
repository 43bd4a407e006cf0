//! The VM-entry controls for event injection (SDM, "VM-Entry Control Fields").

use super::{Entry, Rule, require};
use hw::Vmcs;
use x86::cr::Cr0;
use x86::event::Vector;
use x86::vmx::capability::{VmxBasic, VmxMisc};
use x86::vmx::controls::{PrimaryControls, SecondaryControls};
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs;

/// Bits of the interruption information that no event uses.
const RESERVED: u32 = 0x7fff_f000;
const LONGEST_INSTRUCTION: u32 = 15;

/// Makes the checks on an event that is to be injected.
pub(super) fn check<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let event = Interruption(entry.read(vmcs::ENTRY_INTERRUPTION_INFORMATION));
    if !event.is_valid() {
        return Ok(());
    }
    let has_monitor_trap =
        entry.capability.primary.may_be_one() & PrimaryControls::MONITOR_TRAP_FLAG.bits() != 0;
    let is_vector_of_type = match event.kind() {
        InterruptionType(1) => return Err("reserved interruption type"),
        InterruptionType::OTHER if !has_monitor_trap => return Err("reserved interruption type"),
        InterruptionType::NMI => event.vector() == Vector::NMI.0,
        InterruptionType::HARDWARE_EXCEPTION => event.vector() <= 31,
        InterruptionType::OTHER => event.vector() == 0,
        _ => true,
    };
    require(is_vector_of_type, "vector of the injected event")?;
    error_code(entry, event)?;
    require(event.0 & RESERVED == 0, "reserved bits of the interruption information")?;
    instruction_length(entry, event)
}

fn error_code<V: Vmcs>(entry: &Entry<'_, V>, event: Interruption) -> Result<(), Rule> {
    let is_unrestricted = entry.has_secondary(SecondaryControls::UNRESTRICTED_GUEST);
    let is_protected = !is_unrestricted || entry.read(vmcs::GUEST_CR0) & Cr0::PE.bits() != 0;
    let may_have = is_protected && event.kind() == InterruptionType::HARDWARE_EXCEPTION;
    let is_free = VmxBasic(entry.capability.basic).has_free_error_codes();
    let is_right = match may_have {
        false => !event.has_error_code(),
        true if is_free => true,
        true => event.has_error_code() == Vector(event.vector()).has_error_code(),
    };
    require(is_right, "delivery of an error code")?;
    require(
        !event.has_error_code() || entry.read(vmcs::ENTRY_EXCEPTION_ERROR_CODE) >> 16 == 0,
        "reserved bits of the error code",
    )
}

fn instruction_length<V: Vmcs>(entry: &Entry<'_, V>, event: Interruption) -> Result<(), Rule> {
    let shortest = if VmxMisc(entry.capability.misc).allows_length_0() { 0 } else { 1 };
    let length = entry.read(vmcs::ENTRY_INSTRUCTION_LENGTH);
    require(
        !event.is_software() || (shortest..=LONGEST_INSTRUCTION).contains(&length),
        "instruction length of the injected event",
    )
}
