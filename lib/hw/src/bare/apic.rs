//! The local APIC: the few registers by which CPUs are started and called to a rendezvous
//! (SDM, "Advanced Programmable Interrupt Controller (APIC)").

use super::Processor;
use crate::apic::{Command, Destination, Mode};
use crate::{ApicRegisters, Msrs};
use x86::apic::{DELIVERY_PENDING, offset};
use x86::msr::Msr;

/// Bits of a register's offset in the page.
const REGISTER: u16 = 0xff0;
/// Polls of the delivery status before the APIC is called dead.
const PATIENCE: u32 = 1_000_000;

/// The local APIC of the processor that executes this code, in whichever mode the guest put it.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic {
    mapping: *mut u8,
}

/// The local APIC is disabled, cannot address the processor in its present mode, or did not accept the command.
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
    /// The guest has disabled this APIC, it cannot address that processor, or it does not accept commands.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a 64-bit value")]
    pub fn send(&self, to: Destination, command: Command) -> Result<(), ApicUnavailable> {
        let mode = current_mode();
        let word = mode.interrupt_command(to, command).ok_or(ApicUnavailable)?;
        if mode == Mode::X2apic {
            // SAFETY: an interrupt that is sent changes no memory.
            return unsafe { Processor.write_trusted(Msr::X2APIC_ICR, word) }.map_err(|_| ApicUnavailable);
        }
        self.wait_idle()?;
        let guest_destination = self.read_page(offset::COMMAND_HIGH);
        let [low, high] = [word, word >> 32].map(|half| half as u32);
        self.write_page(offset::COMMAND_HIGH, high);
        self.write_page(offset::COMMAND_LOW, low);
        self.wait_idle()?;
        self.write_page(offset::COMMAND_HIGH, guest_destination);
        Ok(())
    }

    /// Returns what the guest, or the firmware, made of it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        current_mode()
    }

    /// This APIC's ID, which the guest may have changed.
    #[must_use]
    pub fn id(&self) -> u32 {
        let id = self.read(offset::ID);
        if current_mode() == Mode::Xapic { id >> 24 } else { id }
    }

    fn wait_idle(&self) -> Result<(), ApicUnavailable> {
        for _ in 0..PATIENCE {
            if self.read_page(offset::COMMAND_LOW) & DELIVERY_PENDING == 0 {
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
        self.mapping.wrapping_add((register & REGISTER).into()).cast()
    }
}

impl ApicRegisters for LocalApic {
    fn read(&self, offset: u16) -> u32 {
        match current_mode() {
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
        match current_mode() {
            Mode::Disabled => {}
            Mode::Xapic => self.write_page(offset, value),
            Mode::X2apic => {
                // SAFETY: the APIC's registers name no memory.
                let _ = unsafe { Processor.write_trusted(x2apic(offset), value.into()) };
            }
        }
    }
}

/// Returns what the guest made of the APIC.
fn current_mode() -> Mode {
    Mode::of(Processor.read(Msr::IA32_APIC_BASE).unwrap_or_default())
}

fn x2apic(offset: u16) -> Msr {
    Msr(Msr::X2APIC_FIRST.0 + u32::from(offset & REGISTER) / 16)
}

/// This processor's APIC ID by CPUID, whatever mode its APIC is in.
#[must_use]
pub fn own_id() -> u32 {
    use crate::Cpuid;
    let extended = Processor.cpuid(0, 0).eax >= 0xb && Processor.cpuid(0xb, 0).ebx != 0;
    if extended { Processor.cpuid(0xb, 0).edx } else { Processor.cpuid(1, 0).ebx >> 24 }
}
