//! The manual's lists of checks, item by item, in its order and with its bit numbers: what the tables and
//! shared rules of the real checks are compared with. Nothing here is shared with them.

use super::fixture::{Broken, FakeVmcs, Fixture};
use super::{EntryFailure, Failure};
use crate::memory::guest::GuestMemory;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs::{self, Field, FieldValue};

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// VM-instruction error 7.
    Controls,
    /// VM-instruction error 8.
    Host,
    /// Exit reason 33 with this qualification.
    Guest(u64),
    Entered,
}

pub(super) fn verdict(machine: &Fixture, vmcs: &FakeVmcs) -> Verdict {
    let model = Model { machine, vmcs };
    if !model.controls() {
        Verdict::Controls
    } else if !(model.host_registers() && model.host_segments() && model.address_space_size()) {
        Verdict::Host
    } else {
        model.guest()
    }
}

fn checked(machine: &Fixture, vmcs: &FakeVmcs) -> Verdict {
    match machine.check(vmcs) {
        Ok(_) => Verdict::Entered,
        Err(Broken::Before(Failure { error: InstructionError::ENTRY_CONTROLS, .. })) => Verdict::Controls,
        Err(Broken::Before(_)) => Verdict::Host,
        Err(Broken::Entry(EntryFailure::GuestState { qualification, .. })) => Verdict::Guest(qualification),
        Err(Broken::Entry(EntryFailure::MsrLoading { .. })) => unreachable!("no MSRs are loaded here"),
    }
}

/// The checks come to the same as the model.
pub(crate) fn agree(machine: &Fixture, vmcs: &FakeVmcs, what: &dyn core::fmt::Display) {
    let (real, model) = (checked(machine, vmcs), verdict(machine, vmcs));
    assert_eq!(real, model, "{what}: {:?}", machine.broken_rule(vmcs));
}

pub(super) struct Model<'a> {
    pub(super) machine: &'a Fixture,
    pub(super) vmcs: &'a FakeVmcs,
}

pub(super) fn bit(value: impl Into<u64>, number: u32) -> bool {
    value.into() >> number & 1 == 1
}

impl Model<'_> {
    pub(super) fn f<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        self.vmcs.read(field)
    }

    fn pin(&self, number: u32) -> bool {
        bit(self.f(vmcs::PIN_BASED_CONTROLS), number)
    }

    fn primary(&self, number: u32) -> bool {
        bit(self.f(vmcs::PRIMARY_CONTROLS), number)
    }

    pub(super) fn secondary(&self, number: u32) -> bool {
        self.primary(31) && bit(self.f(vmcs::SECONDARY_CONTROLS), number)
    }

    fn exit(&self, number: u32) -> bool {
        bit(self.f(vmcs::EXIT_CONTROLS), number)
    }

    pub(super) fn entry(&self, number: u32) -> bool {
        bit(self.f(vmcs::ENTRY_CONTROLS), number)
    }

    pub(super) fn has_virtual_nmis(&self) -> bool {
        self.pin(5)
    }

    pub(super) fn physical(&self, address: u64, low_bits: u32) -> bool {
        let width = u32::from(self.machine.capability.physical_address_bits);
        (0..64).all(|number| !bit(address, number) || number >= low_bits && number < width)
    }

    pub(super) fn canonical(&self, address: u64) -> bool {
        let width = u32::from(self.machine.processor.linear_address_bits);
        (width..64).all(|number| bit(address, number) == bit(address, width - 1))
    }

    fn fits(&self, word: u32, capability: u64) -> bool {
        (0..32).all(|number| match bit(word, number) {
            false => !bit(capability, number),
            true => bit(capability, number + 32),
        })
    }

    fn controls(&self) -> bool {
        self.execution_controls()
            && self.apic_controls()
            && self.memory_controls()
            && self.exit_controls()
            && self.entry_controls()
    }

    fn execution_controls(&self) -> bool {
        let c = &self.machine.capability;
        self.fits(self.f(vmcs::PIN_BASED_CONTROLS), c.pin_based.0)
            && self.fits(self.f(vmcs::PRIMARY_CONTROLS), c.primary.0)
            && (!self.primary(31) || self.fits(self.f(vmcs::SECONDARY_CONTROLS), c.secondary.0))
            && self.f(vmcs::CR3_TARGET_COUNT) <= 4
            && (!self.primary(25)
                || self.physical(self.f(vmcs::IO_BITMAP_A), 12)
                    && self.physical(self.f(vmcs::IO_BITMAP_B), 12))
            && (!self.primary(28) || self.physical(self.f(vmcs::MSR_BITMAPS), 12))
    }

    fn apic_controls(&self) -> bool {
        let (accesses, x2apic, registers, delivery) =
            (self.secondary(0), self.secondary(4), self.secondary(8), self.secondary(9));
        if self.primary(21) {
            if !self.physical(self.f(vmcs::VIRTUAL_APIC_ADDRESS), 12) {
                return false;
            }
            let threshold = self.f(vmcs::TPR_THRESHOLD);
            if !delivery && threshold > 15 {
                return false;
            }
            if !delivery && !accesses {
                let page = GuestPhysAddr::new(self.f(vmcs::VIRTUAL_APIC_ADDRESS) + 0x80);
                let mut vtpr = [0];
                let is_memory = self.machine.memory.read(page, &mut vtpr).is_ok();
                if is_memory && threshold > u32::from(vtpr[0] >> 4) {
                    return false;
                }
            }
        } else if x2apic || registers || delivery {
            return false;
        }
        (self.pin(3) || !self.pin(5))
            && (self.pin(5) || !self.primary(22))
            && (!accesses || self.physical(self.f(vmcs::APIC_ACCESS_ADDRESS), 12))
            && !(x2apic && accesses)
            && (!delivery || self.pin(0))
            && (!self.pin(7)
                || delivery
                    && self.exit(15)
                    && self.f(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR) < 256
                    && self.physical(self.f(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS), 6))
    }

    fn memory_controls(&self) -> bool {
        let (ept, unrestricted, pml, mode_based) =
            (self.secondary(1), self.secondary(7), self.secondary(17), self.secondary(22));
        if self.secondary(5) && self.f(vmcs::VPID) == 0 {
            return false;
        }
        if ept {
            let pointer = self.f(vmcs::EPT_POINTER);
            let is_type_right = matches!(pointer & 7, 0 | 6);
            if !is_type_right || pointer >> 3 & 7 != 3 || !self.physical(pointer & !0x7f, 12) {
                return false;
            }
        }
        (!pml || ept && self.physical(self.f(vmcs::PML_ADDRESS), 12))
            && (!(unrestricted || mode_based) || ept)
            && (!self.secondary(14)
                || self.physical(self.f(vmcs::VMREAD_BITMAP_ADDRESS), 12)
                    && self.physical(self.f(vmcs::VMWRITE_BITMAP_ADDRESS), 12))
            && (!self.secondary(25) || self.f(vmcs::TSC_MULTIPLIER) != 0)
    }

    fn area(&self, count: u32, address: u64) -> bool {
        count == 0 || self.physical(address, 4) && self.physical(address + 16 * u64::from(count) - 1, 0)
    }

    fn exit_controls(&self) -> bool {
        self.fits(self.f(vmcs::EXIT_CONTROLS), self.machine.capability.exit.0)
            && (self.pin(6) || !self.exit(22))
            && self.area(self.f(vmcs::EXIT_MSR_STORE_COUNT), self.f(vmcs::EXIT_MSR_STORE_ADDRESS))
            && self.area(self.f(vmcs::EXIT_MSR_LOAD_COUNT), self.f(vmcs::EXIT_MSR_LOAD_ADDRESS))
    }

    fn entry_controls(&self) -> bool {
        if !self.fits(self.f(vmcs::ENTRY_CONTROLS), self.machine.capability.entry.0) {
            return false;
        }
        let event = self.f(vmcs::ENTRY_INTERRUPTION_INFORMATION);
        if bit(event, 31) {
            let (vector, kind) = (event & 0xff, event >> 8 & 7);
            let is_vector_right = match kind {
                1 => false,
                2 => vector == 2,
                3 => vector < 32,
                // Where there is a monitor trap flag.
                7 => vector == 0 && bit(self.machine.capability.primary.0, 32 + 27),
                _ => true,
            };
            let is_protected = !self.secondary(7) || bit(self.f(vmcs::GUEST_CR0), 0);
            let pushes = kind == 3 && is_protected && [8, 10, 11, 12, 13, 14, 17].contains(&vector);
            let may_choose = kind == 3 && is_protected && bit(self.machine.capability.basic, 56);
            let length = self.f(vmcs::ENTRY_INSTRUCTION_LENGTH);
            let is_right = is_vector_right
                && (may_choose || bit(event, 11) == pushes)
                && (12..31).all(|number| !bit(event, number))
                && (!bit(event, 11) || self.f(vmcs::ENTRY_EXCEPTION_ERROR_CODE) < 0x1_0000)
                && (!(4..7).contains(&kind)
                    || length < 16 && (length > 0 || bit(self.machine.capability.misc, 30)));
            if !is_right {
                return false;
            }
        }
        self.area(self.f(vmcs::ENTRY_MSR_LOAD_COUNT), self.f(vmcs::ENTRY_MSR_LOAD_ADDRESS))
    }

    pub(super) fn fixed(value: u64, must: u64, may: u64, skip: &[u32]) -> bool {
        (0..64)
            .filter(|number| !skip.contains(number))
            .all(|number| if bit(value, number) { bit(may, number) } else { !bit(must, number) })
    }

    pub(super) fn pat(value: u64) -> bool {
        value.to_le_bytes().iter().all(|byte| matches!(byte, 0 | 1 | 4..=7))
    }

    pub(super) fn s_cet(&self, value: u64) -> bool {
        (6..10).all(|number| !bit(value, number))
            && !(bit(value, 10) && bit(value, 11))
            && self.canonical(value >> 12 << 12)
    }

    fn host_registers(&self) -> bool {
        let (cr0, cr3, cr4) = (self.f(vmcs::HOST_CR0), self.f(vmcs::HOST_CR3), self.f(vmcs::HOST_CR4));
        let c = &self.machine.capability;
        let efer = self.f(vmcs::HOST_EFER);
        Self::fixed(cr0, c.cr0_fixed[0], c.cr0_fixed[1], &[29, 30])
            && Self::fixed(cr4, c.cr4_fixed[0], c.cr4_fixed[1], &[])
            && (!bit(cr4, 23) || bit(cr0, 16))
            && self.physical(cr3, 0)
            && self.canonical(self.f(vmcs::HOST_SYSENTER_ESP))
            && self.canonical(self.f(vmcs::HOST_SYSENTER_EIP))
            && (!self.exit(12) || self.f(vmcs::HOST_PERF_GLOBAL_CTRL) & !0x7_0000_000f == 0)
            && (!self.exit(19) || Self::pat(self.f(vmcs::HOST_PAT)))
            && (!self.exit(21)
                || efer & !0xd01 == 0 && bit(efer, 8) == self.exit(9) && bit(efer, 10) == self.exit(9))
            && (!self.exit(28)
                || self.s_cet(self.f(vmcs::HOST_S_CET))
                    && self.f(vmcs::HOST_SSP).is_multiple_of(4)
                    && self.canonical(self.f(vmcs::HOST_SSP))
                    && self.canonical(self.f(vmcs::HOST_INTERRUPT_SSP_TABLE)))
            && (!self.exit(29) || self.f(vmcs::HOST_PKRS) <= 0xffff_ffff)
    }

    fn host_segments(&self) -> bool {
        let selectors = [
            vmcs::HOST_CS_SELECTOR,
            vmcs::HOST_SS_SELECTOR,
            vmcs::HOST_DS_SELECTOR,
            vmcs::HOST_ES_SELECTOR,
            vmcs::HOST_FS_SELECTOR,
            vmcs::HOST_GS_SELECTOR,
            vmcs::HOST_TR_SELECTOR,
        ];
        let bases = [
            vmcs::HOST_FS_BASE,
            vmcs::HOST_GS_BASE,
            vmcs::HOST_GDTR_BASE,
            vmcs::HOST_IDTR_BASE,
            vmcs::HOST_TR_BASE,
        ];
        selectors.iter().all(|&selector| self.f(selector).is_multiple_of(8))
            && self.f(vmcs::HOST_CS_SELECTOR) != 0
            && self.f(vmcs::HOST_TR_SELECTOR) != 0
            && (self.exit(9) || self.f(vmcs::HOST_SS_SELECTOR) != 0)
            && bases.iter().all(|&base| self.canonical(self.f(base)))
    }

    fn address_space_size(&self) -> bool {
        let (cr4, rip) = (self.f(vmcs::HOST_CR4), self.f(vmcs::HOST_RIP));
        match (self.machine.is_ia32e, self.exit(9)) {
            (true, true) => bit(cr4, 5) && self.canonical(rip),
            (false, false) => {
                let cet = [vmcs::HOST_SSP, vmcs::HOST_S_CET];
                let has_narrow_cet = || cet.iter().all(|&field| self.f(field) <= 0xffff_ffff);
                !self.entry(9) && !bit(cr4, 17) && rip <= 0xffff_ffff && (!self.exit(28) || has_narrow_cet())
            }
            _ => false,
        }
    }
}
