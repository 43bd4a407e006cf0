//! The local APIC: the few registers by which CPUs are started and called to a rendezvous
//! (SDM, "Advanced Programmable Interrupt Controller (APIC)").

use super::Processor;
use crate::{ApicRegisters, Msrs};
use x86::msr::Msr;

/// Delivery modes of the interrupt command register, with the level bit asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// NMI.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI to page number `vector`.
    Startup {
        /// Page number of the start address.
        vector: u8,
    },
}

impl Command {
    const fn bits(self) -> u32 {
        match self {
            Self::Nmi => 0x4400,
            Self::Init => 0x4500,
            Self::Startup { vector } => 0x4600 | vector as u32,
        }
    }
}

const ICR_LOW: u16 = 0x300;
const ICR_HIGH: u16 = 0x310;
const DELIVERY_PENDING: u32 = 1 << 12;
const X2APIC_ENABLE: u64 = 1 << 10;
const GLOBAL_ENABLE: u64 = 1 << 11;
/// MSR of the register at offset 0; each stands for 16 bytes of the page.
const X2APIC_FIRST: u32 = 0x800;
/// Polls of the delivery status before the APIC is called dead.
const PATIENCE: u32 = 1_000_000;

/// The local APIC of the processor that executes this code, in whichever mode the guest put it.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic {
    mapping: *mut u8,
}

/// The local APIC is disabled or did not accept a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicUnavailable;

impl LocalApic {
    /// # Safety
    ///
    /// `mapping` is this processor's APIC page, mapped uncacheable, whenever the APIC is in xAPIC mode.
    #[must_use]
    pub const unsafe fn new(mapping: *mut u8) -> Self {
        Self { mapping }
    }

    /// Sends an inter-processor interrupt. The guest's half-written ICR is kept in xAPIC mode.
    ///
    /// # Errors
    ///
    /// The guest has disabled this APIC, or it does not accept commands.
    pub fn send(&self, apic_id: u32, command: Command) -> Result<(), ApicUnavailable> {
        match Mode::current() {
            Mode::Disabled => return Err(ApicUnavailable),
            Mode::X2apic => {
                let value = u64::from(apic_id) << 32 | u64::from(command.bits());
                return Processor.write(Msr::X2APIC_ICR, value).map_err(|_| ApicUnavailable);
            }
            Mode::Xapic => {}
        }
        self.wait_idle()?;
        let guest_destination = self.read_page(ICR_HIGH);
        self.write_page(ICR_HIGH, apic_id << 24);
        self.write_page(ICR_LOW, command.bits());
        self.wait_idle()?;
        self.write_page(ICR_HIGH, guest_destination);
        Ok(())
    }

    fn wait_idle(&self) -> Result<(), ApicUnavailable> {
        for _ in 0..PATIENCE {
            if self.read_page(ICR_LOW) & DELIVERY_PENDING == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(ApicUnavailable)
    }

    fn read_page(&self, register: u16) -> u32 {
        // SAFETY: by the contract of `new`; registers are 32 bits at multiples of 16.
        unsafe { self.register(register).read_volatile() }
    }

    fn write_page(&self, register: u16, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.register(register).write_volatile(value) }
    }

    fn register(&self, register: u16) -> *mut u32 {
        self.mapping.wrapping_add(register.into()).cast()
    }
}

impl ApicRegisters for LocalApic {
    fn read(&self, offset: u16) -> u32 {
        match Mode::current() {
            Mode::Disabled => 0,
            Mode::Xapic => self.read_page(offset),
            // Of all registers only the interrupt command is wider, and that reads as its lower half.
            Mode::X2apic => {
                let value = Processor.read(x2apic(offset)).unwrap_or_default();
                u32::try_from(value & 0xffff_ffff).unwrap_or_default()
            }
        }
    }

    fn write(&self, offset: u16, value: u32) {
        match Mode::current() {
            Mode::Disabled => {}
            Mode::Xapic => self.write_page(offset, value),
            Mode::X2apic => {
                let _ = Processor.write(x2apic(offset), value.into());
            }
        }
    }
}

/// What the guest made of the APIC.
enum Mode {
    Disabled,
    Xapic,
    X2apic,
}

impl Mode {
    fn current() -> Self {
        let base = Processor.read(Msr::IA32_APIC_BASE).unwrap_or_default();
        match base & (GLOBAL_ENABLE | X2APIC_ENABLE) {
            GLOBAL_ENABLE => Self::Xapic,
            0 | X2APIC_ENABLE => Self::Disabled,
            _ => Self::X2apic,
        }
    }
}

fn x2apic(offset: u16) -> Msr {
    Msr(X2APIC_FIRST + u32::from(offset) / 16)
}

/// This processor's APIC ID by CPUID, whatever mode its APIC is in.
#[must_use]
pub fn own_id() -> u32 {
    use crate::Cpuid;
    let extended = Processor.cpuid(0, 0).eax >= 0xb && Processor.cpuid(0xb, 0).ebx != 0;
    if extended { Processor.cpuid(0xb, 0).edx } else { Processor.cpuid(1, 0).ebx >> 24 }
}
