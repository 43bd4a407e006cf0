//! The local APIC: the few registers by which CPUs are started and called to a rendezvous
//! (SDM, "Advanced Programmable Interrupt Controller (APIC)").

use super::Processor;
use crate::Msrs;
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

const ICR_LOW: usize = 0x300;
const ICR_HIGH: usize = 0x310;
const DELIVERY_PENDING: u32 = 1 << 12;
const X2APIC_ENABLE: u64 = 1 << 10;
const GLOBAL_ENABLE: u64 = 1 << 11;
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
        let base = Processor.read(Msr::IA32_APIC_BASE).map_err(|_| ApicUnavailable)?;
        if base & GLOBAL_ENABLE == 0 {
            return Err(ApicUnavailable);
        }
        if base & X2APIC_ENABLE != 0 {
            let value = u64::from(apic_id) << 32 | u64::from(command.bits());
            return Processor.write(Msr::X2APIC_ICR, value).map_err(|_| ApicUnavailable);
        }
        self.wait_idle()?;
        let guest_destination = self.read(ICR_HIGH);
        self.write(ICR_HIGH, apic_id << 24);
        self.write(ICR_LOW, command.bits());
        self.wait_idle()?;
        self.write(ICR_HIGH, guest_destination);
        Ok(())
    }

    fn wait_idle(&self) -> Result<(), ApicUnavailable> {
        for _ in 0..PATIENCE {
            if self.read(ICR_LOW) & DELIVERY_PENDING == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(ApicUnavailable)
    }

    fn read(&self, register: usize) -> u32 {
        // SAFETY: by the contract of `new`; registers are 32 bits at multiples of 16.
        unsafe { self.register(register).read_volatile() }
    }

    fn write(&self, register: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.register(register).write_volatile(value) }
    }

    fn register(&self, register: usize) -> *mut u32 {
        self.mapping.wrapping_add(register).cast()
    }
}

/// This processor's APIC ID by CPUID, whatever mode its APIC is in.
#[must_use]
pub fn own_id() -> u32 {
    use crate::Cpuid;
    let extended = Processor.cpuid(0, 0).eax >= 0xb && Processor.cpuid(0xb, 0).ebx != 0;
    if extended { Processor.cpuid(0xb, 0).edx } else { Processor.cpuid(1, 0).ebx >> 24 }
}
