//! IA32_APIC_BASE where other CPUs are called by the local APIC: the guest may switch it off, and it stays on.
//!
//! What the guest then has is what a processor without a local APIC has: the register and CPUID say that it is off, and
//! the interrupts of the machine's old controllers come by the pins. What is left of the APIC answers still, at its
//! address or by its MSRs, which no system looks at that has switched it off.
//!
//! UNSAFETY: passes the contract of writes on, from who asked whether the guest may move its APIC to the hardware.
#![expect(unsafe_code, reason = "IA32_APIC_BASE")]

use hw::apic::Mode;
use hw::{ApicRegisters, Cpuid, GeneralProtection, Msrs};
use x86::apic::offset::{LVT_LINT0, LVT_LINT1, SPURIOUS};
use x86::apic::{ApicBase, LocalVector};
use x86::cpuid::{CpuidResult, Leaf1Edx};
use x86::msr::{GuestMsr, Msr};

use core::cell::Cell;

const MODE: u64 = ApicBase::MODE.bits();
const ENABLE: u64 = ApicBase::ENABLE.bits();

/// Enabled by software, spurious vector 255.
const ENABLED_BY_SOFTWARE: u32 = 0x1ff;

/// The MSRs of a processor as its guest has them.
#[derive(Debug)]
pub struct GuestMsrs<'a, M> {
    hardware: &'a M,
    is_off: Cell<bool>,
}

impl<'a, M: Msrs> GuestMsrs<'a, M> {
    /// Of a guest that has switched its local APIC off, or not.
    pub const fn new(hardware: &'a M, is_off: bool) -> Self {
        Self { hardware, is_off: Cell::new(is_off) }
    }

    /// Returns whether the guest has switched its local APIC off.
    pub const fn is_off(&self) -> bool {
        self.is_off.get()
    }

    /// # Safety
    ///
    /// As for [`Msrs::write_trusted`].
    unsafe fn write_base(&self, value: u64) -> Result<(), GeneralProtection> {
        let mode = self.hardware.read(Msr::IA32_APIC_BASE)? & MODE;
        let write = |value| {
            // SAFETY: the page is where the caller answers for it; with other modes it lies over nothing else.
            unsafe { self.hardware.write_trusted(Msr::IA32_APIC_BASE, value) }
        };
        match Mode::of(value) {
            Mode::Disabled => write(value & !MODE | mode)?,
            Mode::Xapic if Mode::of(mode) == Mode::X2apic => {
                // The way between the two leads by "disabled" (SDM, "x2APIC State Transitions").
                write(value & !MODE)?;
                write(value)?;
            }
            Mode::Xapic | Mode::X2apic => write(value)?,
        }
        self.is_off.set(value & ENABLE == 0);
        Ok(())
    }
}

impl<M: Msrs> Msrs for GuestMsrs<'_, M> {
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        let value = self.hardware.read(msr)?;
        Ok(if msr == Msr::IA32_APIC_BASE && self.is_off() { value & !MODE } else { value })
    }

    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
        self.hardware.write(msr, value)
    }

    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        if msr == Msr::IA32_APIC_BASE {
            // SAFETY: by the caller's duties.
            unsafe { self.write_base(value) }
        } else {
            // SAFETY: by the caller's duties.
            unsafe { self.hardware.write_trusted(msr, value) }
        }
    }
}

/// Makes of an APIC in INIT's state one that passes the pins on, as if it were not there (SDM, "Virtual Wire Mode").
pub fn pass_pins(apic: &impl ApicRegisters) {
    // Enabled first: while it is disabled by software, its entries stay masked (SDM, "Local APIC State After It Has
    // Been Software Disabled").
    for (register, value) in [
        (SPURIOUS, ENABLED_BY_SOFTWARE),
        (LVT_LINT0, LocalVector::EXTERNAL.bits()),
        (LVT_LINT1, LocalVector::NMI.bits()),
    ] {
        apic.write(register, value);
    }
}

/// CPUID of a processor whose guest has switched its local APIC off, or not.
#[derive(Debug)]
pub struct GuestCpuid<'a, C, F> {
    hardware: &'a C,
    is_off: F,
}

impl<'a, C: Cpuid, F: Fn() -> bool> GuestCpuid<'a, C, F> {
    /// Of a guest whose local APIC is off where `is_off`, which is asked only where an answer tells.
    pub const fn new(hardware: &'a C, is_off: F) -> Self {
        Self { hardware, is_off }
    }
}

impl<C: Cpuid, F: Fn() -> bool> Cpuid for GuestCpuid<'_, C, F> {
    #[inline]
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let mut result = self.hardware.cpuid(leaf, subleaf);
        if leaf == 1 && (self.is_off)() {
            result.edx &= !Leaf1Edx::APIC.bits();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::sim::{SimCpuid, SimMsrs};

    const BASE: u64 = 0xfee0_0900;
    const X2APIC: u64 = 0xfee0_0d00;
    const OFF: u64 = 0xfee0_0100;

    fn write(msrs: &impl Msrs, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        // SAFETY: a fake's registers.
        unsafe { msrs.write_trusted(msr, value) }
    }

    /// What guest and hardware have after each of `writes`, from `start` on.
    fn after(start: u64, writes: &[u64]) -> Vec<(u64, u64)> {
        let hardware = SimMsrs::new([(Msr::IA32_APIC_BASE, start)]);
        let msrs = GuestMsrs::new(&hardware, false);
        let after = |&value: &u64| {
            write(&msrs, Msr::IA32_APIC_BASE, value).unwrap();
            let read = |msrs: &dyn Fn() -> Result<u64, GeneralProtection>| msrs().unwrap();
            (read(&|| msrs.read(Msr::IA32_APIC_BASE)), read(&|| hardware.read(Msr::IA32_APIC_BASE)))
        };
        writes.iter().map(after).collect()
    }

    #[test]
    fn an_apic_that_the_guest_switches_off_reads_off_and_stays_on() {
        assert_eq!(after(BASE, &[OFF, BASE]), [(OFF, BASE), (BASE, BASE)]);
        assert_eq!(after(X2APIC, &[OFF, BASE]), [(OFF, X2APIC), (BASE, BASE)]);
        assert_eq!(after(BASE, &[OFF, BASE, X2APIC]), [(OFF, BASE), (BASE, BASE), (X2APIC, X2APIC)]);
    }

    #[test]
    fn it_may_move_while_it_is_off() {
        let moved = 0x2000_0100;
        assert_eq!(after(BASE, &[OFF, moved]), [(OFF, BASE), (moved, moved | ENABLE)]);
    }

    #[test]
    fn from_x2apic_to_xapic_the_hardware_is_switched_off_in_between() {
        /// IA32_APIC_BASE as a processor has it: its modes change only as the manual draws them.
        struct Hardware(Cell<u64>);
        impl Msrs for Hardware {
            fn read(&self, _: Msr) -> Result<u64, GeneralProtection> {
                Ok(self.0.get())
            }
            fn write(&self, _: GuestMsr, _: u64) -> Result<(), GeneralProtection> {
                Err(GeneralProtection)
            }
            unsafe fn write_trusted(&self, _: Msr, value: u64) -> Result<(), GeneralProtection> {
                let refused = [(Mode::X2apic, Mode::Xapic), (Mode::Disabled, Mode::X2apic)];
                if refused.contains(&(Mode::of(self.0.get()), Mode::of(value))) {
                    return Err(GeneralProtection);
                }
                self.0.set(value);
                Ok(())
            }
        }
        let hardware = Hardware(Cell::new(X2APIC));
        let msrs = GuestMsrs::new(&hardware, false);
        assert_eq!(write(&msrs, Msr::IA32_APIC_BASE, OFF), Ok(()));
        assert_eq!((hardware.0.get(), msrs.is_off()), (X2APIC, true));
        assert_eq!(write(&msrs, Msr::IA32_APIC_BASE, BASE), Ok(()));
        assert_eq!((hardware.0.get(), msrs.is_off()), (BASE, false));
    }

    #[test]
    fn other_registers_are_the_hardwares() {
        let hardware = SimMsrs::new([(Msr(0x10), 0xc00)]);
        let msrs = GuestMsrs::new(&hardware, true);
        assert_eq!(msrs.read(Msr(0x10)), Ok(0xc00));
        assert_eq!((write(&msrs, Msr(0x10), 7), hardware.read(Msr(0x10))), (Ok(()), Ok(7)));
        let hardware = SimMsrs::new([(Msr::IA32_BNDCFGS, 0)]);
        let msrs = GuestMsrs::new(&hardware, true);
        assert_eq!(msrs.write(GuestMsr::IA32_BNDCFGS, 6), Ok(()));
        assert_eq!(hardware.read(Msr::IA32_BNDCFGS), Ok(6));
    }

    #[test]
    fn an_apic_that_passes_its_pins_is_enabled_before_they_are() {
        struct Writes(core::cell::RefCell<Vec<(u16, u32)>>);
        impl ApicRegisters for Writes {
            fn read(&self, _: u16) -> u32 {
                0
            }
            fn write(&self, offset: u16, value: u32) {
                self.0.borrow_mut().push((offset, value));
            }
        }
        let apic = Writes(core::cell::RefCell::default());
        pass_pins(&apic);
        // ExtINT of LINT0, NMI of LINT1.
        assert_eq!(apic.0.take(), [(0xf0, ENABLED_BY_SOFTWARE), (0x350, 0x700), (0x360, 0x400)]);
    }

    #[test]
    fn cpuid_tells_of_no_apic_that_is_off() {
        let leaf = CpuidResult { edx: !0, ..CpuidResult::default() };
        let hardware = SimCpuid::default().with(1, 0, leaf).with(2, 0, leaf);
        let edx = |is_off, leaf| GuestCpuid::new(&hardware, || is_off).cpuid(leaf, 0).edx;
        assert_eq!([edx(true, 1), edx(false, 1), edx(true, 2)], [!Leaf1Edx::APIC.bits(), !0, !0]);
    }
}
