//! MOV to and from control registers, CLTS and LMSW that touch a bit the hypervisor owns.
//!
//! Owned are the bits whose hardware value must not be the guest's; the guest reads its own from a shadow,
//! and an access exits only where it would change one. Then the whole instruction is done here: every fault
//! of the processor first (SDM, "MOV-Move to/from Control Registers"), its effects on paging after: the exit
//! kept the processor from dropping translations and loading PDPTEs itself.

use super::{Action, ControlRegisterAccess};
use crate::memory::guest::{GuestMemory, load_pdptes};
use crate::vcpu::{CodeSize, Vcpu};
use x86::cr::{CR3_KEEPS_TRANSLATIONS, Cr0, Cr4, Efer};
use x86::event::Event;
use x86::segment::{AccessRights, SegmentRegister, TssType};

/// CR0 bits that the hypervisor owns: NE must be 1 while the processor runs guests; CD and NW would switch the hypervisor's
/// caches off with the guest's.
pub const CR0_OWNED: Cr0 = Cr0::NE.union(Cr0::CD).union(Cr0::NW);
/// CR4 bits that the hypervisor owns where the processor has them: what the guest sees is in a shadow.
pub const CR4_OWNED: Cr4 = Cr4::VMXE.union(Cr4::SMXE);
/// CR4 bits whose features the hypervisor knows. Others are not the guest's, whatever the processor has: a VM entry may
/// refuse a guest that has such a bit in the wrong mode, as it does with event delivery by FRED.
pub const CR4_KNOWN: Cr4 = Cr4::VME
    .union(Cr4::PVI)
    .union(Cr4::TSD)
    .union(Cr4::DE)
    .union(Cr4::PSE)
    .union(Cr4::PAE)
    .union(Cr4::MCE)
    .union(Cr4::PGE)
    .union(Cr4::PCE)
    .union(Cr4::OSFXSR)
    .union(Cr4::OSXMMEXCPT)
    .union(Cr4::UMIP)
    .union(Cr4::LA57)
    .union(Cr4::VMXE)
    .union(Cr4::SMXE)
    .union(Cr4::FSGSBASE)
    .union(Cr4::PCIDE)
    .union(Cr4::OSXSAVE)
    .union(Cr4::KL)
    .union(Cr4::SMEP)
    .union(Cr4::SMAP)
    .union(Cr4::PKE)
    .union(Cr4::CET)
    .union(Cr4::PKS)
    .union(Cr4::UINTR)
    .union(Cr4::LASS)
    .union(Cr4::LAM_SUP);

/// What the guest's control registers may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegisterPolicy {
    /// The guest may set CR4.VMXE.
    pub nested: bool,
    /// CR4 bits that it may set besides. The hypervisor owns all others.
    pub cr4_offered: Cr4,
}

impl ControlRegisterPolicy {
    /// CR4 bits that the guest may set.
    const fn cr4_allowed(&self) -> Cr4 {
        if self.nested { self.cr4_offered.union(Cr4::VMXE) } else { self.cr4_offered }
    }
}

/// Carries out an access to a control register.
// Rare: kept out of the way of the exits that are not.
#[cold]
#[inline(never)]
pub fn handle<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    policy: &ControlRegisterPolicy,
    access: ControlRegisterAccess,
) -> Action {
    let done = match access {
        ControlRegisterAccess::MovTo { control_register, register } => {
            let value = general_purpose(vcpu, register);
            match control_register {
                0 => mov_to_cr0(vcpu, memory, value),
                3 => mov_to_cr3(vcpu, memory, value),
                4 => mov_to_cr4(vcpu, memory, policy, value),
                _ => Err(Event::UD),
            }
        }
        ControlRegisterAccess::MovFrom { control_register, register } => {
            mov_from(vcpu, control_register, register)
        }
        ControlRegisterAccess::Clts => {
            vcpu.set_cr0(vcpu.cr0() - Cr0::TS);
            Ok(())
        }
        ControlRegisterAccess::Lmsw { source } => lmsw(vcpu, memory, source),
    };
    match done {
        Ok(()) => Action::Advance,
        Err(event) => Action::Inject(event),
    }
}

fn mov_to_cr0<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    value: u64,
) -> Result<(), Event> {
    let (old, cr4, efer) = (vcpu.cr0(), vcpu.cr4(), vcpu.efer());
    // Other reserved bits of the lower half are ignored; ET reads as 1 whatever is written.
    let new = Cr0::from_bits_truncate(value) | Cr0::ET;
    let is_64bit = vcpu.code_size() == CodeSize::Bits64;
    let (has_paging, had_paging) = (new.contains(Cr0::PG), old.contains(Cr0::PG));
    let is_bad = value >> 32 != 0
        || has_paging && !new.contains(Cr0::PE)
        || new.contains(Cr0::NW) && !new.contains(Cr0::CD)
        || !new.contains(vcpu.fixed_bits().0)
        || !has_paging && cr4.contains(Cr4::PCIDE)
        || !new.contains(Cr0::WP) && cr4.contains(Cr4::CET)
        || had_paging && !has_paging && is_64bit;
    if is_bad {
        return Err(Event::GP0);
    }
    let begins_long_mode = has_paging && !had_paging && efer.contains(Efer::LME);
    if begins_long_mode && !can_begin_long_mode(vcpu) {
        return Err(Event::GP0);
    }
    let is_long = begins_long_mode || had_paging && has_paging && efer.contains(Efer::LMA);
    let reloads = (old ^ new).intersects(Cr0::PG | Cr0::CD | Cr0::NW);
    if reloads && has_paging && cr4.contains(Cr4::PAE) && !is_long {
        // Before CR0 changes, as one that is not valid is a fault, after which nothing has happened.
        vcpu.set_pdptes(load_pdptes(memory, vcpu.cr3())?);
    }
    if has_paging != had_paging {
        let lma = if is_long { Efer::LMA } else { Efer::empty() };
        vcpu.set_efer(efer.difference(Efer::LMA).union(lma));
    }
    vcpu.set_cr0(new);
    vcpu.invalidate_translations();
    Ok(())
}

/// Returns whether IA-32e mode may begin (SDM, "Initializing IA-32e Mode").
fn can_begin_long_mode<V: Vcpu + ?Sized>(vcpu: &V) -> bool {
    let is_64bit_code = vcpu.segment(SegmentRegister::Cs).rights.contains(AccessRights::L);
    let has_16bit_tss = !vcpu.segment(SegmentRegister::Tr).rights.tss_type().contains(TssType::WIDE);
    vcpu.cr4().contains(Cr4::PAE) && !is_64bit_code && !has_16bit_tss
}

fn mov_to_cr3<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    value: u64,
) -> Result<(), Event> {
    let (cr4, is_long) = (vcpu.cr4(), vcpu.efer().contains(Efer::LMA));
    let value = if is_long && cr4.contains(Cr4::PCIDE) { value & !CR3_KEEPS_TRANSLATIONS } else { value };
    if is_long && value >> memory.physical_address_bits() != 0 {
        return Err(Event::GP0);
    }
    if vcpu.cr0().contains(Cr0::PG) && cr4.contains(Cr4::PAE) && !is_long {
        // Before CR3 changes, for the same reason.
        vcpu.set_pdptes(load_pdptes(memory, value)?);
    }
    vcpu.set_cr3(value);
    vcpu.invalidate_translations();
    Ok(())
}

fn mov_to_cr4<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    policy: &ControlRegisterPolicy,
    value: u64,
) -> Result<(), Event> {
    let (old, cr0) = (vcpu.cr4(), vcpu.cr0());
    let new = Cr4::from_bits_retain(value);
    let changed = old ^ new;
    let is_long = vcpu.efer().contains(Efer::LMA);
    let begins_pcid = changed.contains(Cr4::PCIDE) && new.contains(Cr4::PCIDE);
    let is_bad = !policy.cr4_allowed().contains(new)
        || !new.contains(vcpu.fixed_bits().1)
        || begins_pcid && (!is_long || vcpu.cr3() & 0xfff != 0)
        || is_long && !new.contains(Cr4::PAE)
        || is_long && changed.contains(Cr4::LA57)
        || new.contains(Cr4::CET) && !cr0.contains(Cr0::WP);
    if is_bad {
        return Err(Event::GP0);
    }
    let reloads = changed.intersects(Cr4::PAE | Cr4::PGE | Cr4::PSE | Cr4::SMEP);
    if reloads && cr0.contains(Cr0::PG) && new.contains(Cr4::PAE) && !is_long {
        // Before CR4 changes, for the same reason.
        vcpu.set_pdptes(load_pdptes(memory, vcpu.cr3())?);
    }
    vcpu.set_cr4(new);
    vcpu.invalidate_translations();
    Ok(())
}

fn mov_from<V: Vcpu + ?Sized>(vcpu: &mut V, control_register: u8, register: u8) -> Result<(), Event> {
    let value = match control_register {
        0 => vcpu.cr0().bits(),
        3 => vcpu.cr3(),
        4 => vcpu.cr4().bits(),
        _ => return Err(Event::UD),
    };
    match register {
        4 => vcpu.set_rsp(value),
        _ => vcpu.registers_mut().0[usize::from(register & 0xf)] = value,
    }
    Ok(())
}

/// LMSW writes the lowest four bits, and cannot clear PE.
fn lmsw<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    source: u16,
) -> Result<(), Event> {
    let cr0 = vcpu.cr0().bits();
    mov_to_cr0(vcpu, memory, cr0 & !0xe | u64::from(source) & 0xf)
}

/// Returns the source of MOV: all of the register in 64-bit mode, its lower half elsewhere.
fn general_purpose<V: Vcpu + ?Sized>(vcpu: &V, register: u8) -> u64 {
    let value = match register {
        4 => vcpu.rsp(),
        _ => vcpu.registers().0[usize::from(register & 0xf)],
    };
    if vcpu.code_size() == CodeSize::Bits64 { value } else { value & 0xffff_ffff }
}

#[cfg(test)]
#[path = "control_register_tests.rs"]
mod tests;
