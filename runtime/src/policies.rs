//! What handlers of exits know of the processor and the configuration: decided once, at boot.

use crate::exit::control_register::ControlRegisterPolicy;
use crate::exit::cpuid::{CpuidPolicy, Instructions};
use crate::exit::msr::MsrPolicy;
use crate::features::features;
use crate::reset::kept_registers::{KEPT_REGISTERS, KeptRegisters};
use crate::reset::pci_configuration::ByPorts;
use crate::reset::power_ports::PowerControl;
use hw::bare::Processor;
use hw::bare::random::Generators;
use platform::handoff::Handoff;
use x86::cr::Cr4;

/// What handlers of exits know.
#[derive(Debug)]
pub(crate) struct Policies {
    /// The processor's random numbers.
    pub(crate) generators: Generators,
    /// What CPUID shows the guest.
    pub(crate) cpuid: CpuidPolicy,
    /// How intercepted MSRs behave.
    pub(crate) msr: MsrPolicy,
    /// Which control-register bits the guest may set.
    pub(crate) control_register: ControlRegisterPolicy,
    /// Reset and power ports.
    pub(crate) power: PowerControl,
}

impl Policies {
    /// Decides what handlers of exits are to know of the processor and the configuration, on the bootstrap processor.
    /// The vendor says which CR4 bits its guest may set, and which instructions the processor has `without` its guest's
    /// having them.
    pub(crate) fn decide(handoff: &Handoff, cr4_offered: Cr4, without: Instructions) -> Self {
        let nested = handoff.nested_ept02 != 0;
        Self {
            generators: Generators::find(),
            cpuid: CpuidPolicy {
                nested,
                hypervisor_bit: handoff.hypervisor_bit != 0,
                without,
                hides_la57: !cr4_offered.contains(Cr4::LA57),
            },
            msr: MsrPolicy {
                nested,
                physical_address_bits: features().physical_address_bits,
                has_x2apic: features().has_x2apic,
                feedback_bytes: features().feedback_bytes,
            },
            control_register: ControlRegisterPolicy { nested, cr4_offered },
            power: power_control(handoff),
        }
    }
}

fn power_control(handoff: &Handoff) -> PowerControl {
    let power = PowerControl::new(&handoff.power);
    let space = ByPorts::new(&Processor);
    let Ok(kept) = KeptRegisters::find(&space, |port| power.is_base(port), &handoff.ecam) else {
        panic!(
            "more than {KEPT_REGISTERS} registers in PCI configuration space hold the base of power-management \
             ports, by the FADT, or of that space, by the MCFG: one of these tables is wrong"
        );
    };
    for register in kept.iter() {
        log::debug!("kept function={:#06x} register={:#04x}", register.function, register.register);
    }
    power.keeping(kept)
}
