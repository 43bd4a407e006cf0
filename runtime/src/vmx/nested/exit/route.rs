//! Whose an exit of L2 is: two predicates, of the hypervisor and of L1.

use crate::memory::guest::GuestMemory;
use crate::vcpu::Registers;
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use core::ops::RangeInclusive;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::cr::Cr0;
use x86::event::Vector;
use x86::msr::Msr;
use x86::segment::AccessRights;
use x86::vmx::controls::{PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::exit_qualification::{ControlRegisterQualification, IoQualification};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::instruction_information::InstructionInformation;
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs;

/// Commands in EAX with which programs of L2 call the hypapp.
pub(crate) const HYPAPP_COMMANDS: RangeInclusive<u32> = 0x4c41_5000..=0x4c41_50ff;

/// Who deals with an exit of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// L1.
    L1,
    /// The hypervisor, as for an exit of L1.
    L0,
    /// The hypapp first, then L1.
    HypappThenL1,
    /// An NMI: ours, or L1's by the rules of VMCS12.
    Nmi,
    /// L2 can take an NMI that the hypervisor keeps for it.
    NmiWindow,
    /// L2 is at a boundary to which L1, or the hypervisor, set the monitor trap flag.
    Trap,
    /// VMREAD or VMWRITE of the VMCS that L1 linked for L2.
    Linked,
    /// Both sets of tables decide.
    SecondLevel,
}

/// Whose the exit is that `vmcs02` tells of.
#[inline]
pub(crate) fn route<M: GuestMemory>(
    vmcs02: &impl Vmcs,
    vmcs12: &Vmcs12,
    registers: &Registers,
    reason: ExitReason,
    memory: &M,
) -> Route {
    let l0_or_l1 = |l1_wants: bool| if l1_wants { Route::L1 } else { Route::L0 };
    match reason {
        ExitReason::CPUID => Route::HypappThenL1,
        ExitReason::VMCALL if HYPAPP_COMMANDS.contains(&eax(registers)) => Route::HypappThenL1,
        ExitReason::EXCEPTION_OR_NMI => {
            let event = Interruption(vmcs02.read(vmcs::EXIT_INTERRUPTION_INFORMATION));
            if event.kind() == InterruptionType::NMI {
                return Route::Nmi;
            }
            let error_code = || vmcs02.read(vmcs::EXIT_INTERRUPTION_ERROR_CODE);
            l0_or_l1(wants_exception(vmcs12, Vector(event.vector()), error_code))
        }
        ExitReason::NMI_WINDOW => {
            let is_wanted = L1Controls::of(vmcs12).primary.contains(PrimaryControls::NMI_WINDOW_EXITING);
            if is_wanted { Route::L1 } else { Route::NmiWindow }
        }
        ExitReason::MONITOR_TRAP_FLAG => Route::Trap,
        ExitReason::EXTERNAL_INTERRUPT => {
            l0_or_l1(L1Controls::of(vmcs12).pin_based.contains(PinBasedControls::EXTERNAL_INTERRUPT_EXITING))
        }
        ExitReason::INTERRUPT_WINDOW => {
            l0_or_l1(L1Controls::of(vmcs12).primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING))
        }
        ExitReason::CONTROL_REGISTER => {
            let facts = ControlRegisterQualification(vmcs02.read(vmcs::EXIT_QUALIFICATION));
            l0_or_l1(wants_control_register(vmcs02, vmcs12, registers, facts))
        }
        ExitReason::IO_INSTRUCTION => {
            let facts = IoQualification(vmcs02.read(vmcs::EXIT_QUALIFICATION));
            l0_or_l1(wants_port(vmcs12, facts, memory))
        }
        ExitReason::RDMSR => l0_or_l1(wants_msr(vmcs12, Msr(registers.ecx()), false, memory)),
        ExitReason::WRMSR => l0_or_l1(wants_msr(vmcs12, Msr(registers.ecx()), true, memory)),
        ExitReason::VMREAD | ExitReason::VMWRITE => {
            let is_wanted = wants_field(vmcs02, vmcs12, registers, reason, memory);
            if is_wanted { Route::L1 } else { Route::Linked }
        }
        ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION => Route::SecondLevel,
        _ => Route::L1,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "EAX is the lower half")]
fn eax(registers: &Registers) -> u32 {
    registers.rax() as u32
}

/// Returns whether L1 intercepts the exception (SDM, "Exception Bitmap").
pub(crate) fn wants_exception(vmcs12: &impl Vmcs, vector: Vector, error_code: impl FnOnce() -> u32) -> bool {
    let is_set = vmcs12.read(vmcs::EXCEPTION_BITMAP) >> (vector.0 & 0x1f) & 1 == 1;
    if vector != Vector::PF {
        return is_set;
    }
    let mask = vmcs12.read(vmcs::PAGE_FAULT_ERROR_CODE_MASK);
    let is_match = error_code() & mask == vmcs12.read(vmcs::PAGE_FAULT_ERROR_CODE_MATCH);
    is_set == is_match
}

/// Returns whether L1 intercepts the access (SDM, "Changes to Instruction Behavior in VMX Non-Root Operation"; MOV to
/// CR0 and CR4, CLTS, LMSW). What else exits for L1's sake only is L1's.
fn wants_control_register(
    vmcs02: &impl Vmcs,
    vmcs12: &impl Vmcs,
    registers: &Registers,
    facts: ControlRegisterQualification,
) -> bool {
    const TS: u64 = Cr0::TS.bits();
    const LMSW_BITS: u64 = 0xe;
    let (mask0, shadow0) = (vmcs12.read(vmcs::CR0_MASK), vmcs12.read(vmcs::CR0_READ_SHADOW));
    let register = || match facts.register() {
        4 => vmcs02.read(vmcs::GUEST_RSP),
        register => registers.0[usize::from(register)],
    };
    match (facts.access(), facts.control_register()) {
        (0, 0) => (register() ^ shadow0) & mask0 != 0,
        (0, 4) => (register() ^ vmcs12.read(vmcs::CR4_READ_SHADOW)) & vmcs12.read(vmcs::CR4_MASK) != 0,
        (2, _) => mask0 & TS != 0 && shadow0 & TS != 0,
        (3, _) => {
            // LMSW cannot clear PE, and exits for it only where it would set it.
            let source = u64::from(facts.lmsw_source());
            (source ^ shadow0) & mask0 & LMSW_BITS != 0 || source & !shadow0 & mask0 & 1 != 0
        }
        _ => true,
    }
}

/// Returns whether L1 intercepts the ports (SDM, "I/O-Bitmap Addresses"). An access that wraps around exits.
fn wants_port<M: GuestMemory>(vmcs12: &impl Vmcs, facts: IoQualification, memory: &M) -> bool {
    let primary = L1Controls::of(vmcs12).primary;
    if !primary.contains(PrimaryControls::USE_IO_BITMAPS) {
        return primary.contains(PrimaryControls::UNCONDITIONAL_IO_EXITING);
    }
    let bitmaps = [vmcs12.read(vmcs::IO_BITMAP_A), vmcs12.read(vmcs::IO_BITMAP_B)];
    let (first, last) = (u32::from(facts.port()), u32::from(facts.port()) + u32::from(facts.size()));
    if last > 0xffff {
        return true;
    }
    (first..=last).any(|port| bit(memory, bitmaps[(port >> 15) as usize], port & 0x7fff))
}

/// Returns whether L1 intercepts the MSR (SDM, "MSR-Bitmap Address").
fn wants_msr<M: GuestMemory>(vmcs12: &impl Vmcs, msr: Msr, is_write: bool, memory: &M) -> bool {
    if !L1Controls::of(vmcs12).primary.contains(PrimaryControls::USE_MSR_BITMAPS) {
        return true;
    }
    let number = match msr.0 {
        number @ 0..=0x1fff => number,
        number @ 0xc000_0000..=0xc000_1fff => number - 0xc000_0000 + 0x2000,
        _ => return true,
    };
    bit(memory, vmcs12.read(vmcs::MSR_BITMAPS), number + if is_write { 0x4000 } else { 0 })
}

/// Returns whether L1 intercepts VMREAD or VMWRITE of the field (SDM, "VMREAD and VMWRITE Bitmaps"; "Changes to
/// Instruction Behavior in VMX Non-Root Operation").
fn wants_field<M: GuestMemory>(
    vmcs02: &impl Vmcs,
    vmcs12: &impl Vmcs,
    registers: &Registers,
    reason: ExitReason,
    memory: &M,
) -> bool {
    if !L1Controls::of(vmcs12).secondary.contains(SecondaryControls::VMCS_SHADOWING) {
        return true;
    }
    let information = InstructionInformation(vmcs02.read(vmcs::EXIT_INSTRUCTION_INFORMATION));
    let value = match information.register2() {
        4 => vmcs02.read(vmcs::GUEST_RSP),
        register => registers.0[usize::from(register)],
    };
    // Outside 64-bit mode the operand is of 32 bits.
    let rights = AccessRights::from_bits_retain(vmcs02.read(vmcs::GUEST_CS_ACCESS_RIGHTS));
    let value = if rights.contains(AccessRights::L) { value } else { value & 0xffff_ffff };
    let bitmap =
        if reason == ExitReason::VMREAD { vmcs::VMREAD_BITMAP_ADDRESS } else { vmcs::VMWRITE_BITMAP_ADDRESS };
    match u32::try_from(value) {
        Ok(encoding @ 0..=0x7fff) => bit(memory, vmcs12.read(bitmap), encoding),
        _ => true,
    }
}

/// A bit of a bitmap in L1's memory; memory that L1 does not have reads as ones.
fn bit<M: GuestMemory>(memory: &M, bitmap: u64, number: u32) -> bool {
    let mut byte = [0xff];
    let at = GuestPhysAddr::new(bitmap + u64::from(number / 8));
    let _ = memory.read(at, &mut byte);
    byte[0] >> (number % 8) & 1 == 1
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
