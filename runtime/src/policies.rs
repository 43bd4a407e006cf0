//! What handlers of exits know of the processor and the configuration: decided once, at boot.

use crate::exit::control_register::ControlRegisterPolicy;
use crate::exit::cpuid::CpuidPolicy;
use crate::exit::msr::MsrPolicy;
use crate::features::features;
use crate::machine;
use crate::reset::kept_registers::{KEPT_REGISTERS, KeptRegisters};
use crate::reset::pci_configuration::ByPorts;
use crate::reset::power_ports::PowerControl;
use hw::bare::Processor;
use hw::bare::random::Generators;
use spin::Once;
use x86::cr::Cr4;

struct Policies {
    generators: Generators,
    cpuid: CpuidPolicy,
    msr: MsrPolicy,
    control_register: ControlRegisterPolicy,
    power: PowerControl,
}

static POLICIES: Once<Policies> = Once::new();

/// Decides what exits' handlers are to know of the processor and the configuration; once, at boot.
pub(crate) fn decide() {
    let nested = machine::handoff().nested_ept02 != 0;
    let cr4_offered = machine::vendor().cr4_for_guest();
    POLICIES.call_once(|| Policies {
        generators: Generators::find(),
        cpuid: CpuidPolicy {
            nested,
            hypervisor_bit: machine::handoff().hypervisor_bit != 0,
            without: machine::vendor().missing_instructions(),
            hides_la57: !cr4_offered.contains(Cr4::LA57),
        },
        msr: MsrPolicy {
            nested,
            physical_address_bits: features().physical_address_bits,
            has_x2apic: features().has_x2apic,
            feedback_bytes: features().feedback_bytes,
        },
        control_register: ControlRegisterPolicy { nested, cr4_offered },
        power: power_control(),
    });
}

fn power_control() -> PowerControl {
    let power = PowerControl::new(&machine::handoff().power);
    let space = ByPorts::new(&Processor);
    let Ok(kept) = KeptRegisters::find(&space, |port| power.is_base(port), &machine::handoff().ecam) else {
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

/// Returns the processor's random numbers.
pub(crate) fn generators() -> Generators {
    policies().generators
}

/// Returns what CPUID shows the guest.
pub(crate) fn cpuid() -> &'static CpuidPolicy {
    &policies().cpuid
}

/// Returns how intercepted MSRs behave.
pub(crate) fn msr() -> &'static MsrPolicy {
    &policies().msr
}

/// Which control-register bits the guest may set.
pub(crate) fn control_register() -> &'static ControlRegisterPolicy {
    &policies().control_register
}

/// Reset and power ports.
pub(crate) fn power() -> &'static PowerControl {
    &policies().power
}

fn policies() -> &'static Policies {
    match POLICIES.get() {
        Some(policies) => policies,
        None => unreachable!("the runtime's entry sets the policies before the guest runs"),
    }
}
