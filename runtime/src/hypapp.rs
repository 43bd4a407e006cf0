//! What a hypervisor application may do: a trait with a default for every event.
//!
//! The runtime calls the one hypapp that is linked into its image; an answer of `Chain` has the
//! core do what it does without a hypapp. Unless a method says otherwise, other CPUs go on meanwhile.

use core::fmt;
use core::ops::RangeInclusive;

use crate::exit::{CompartmentExit, PortAccess, SecondLevelViolation};
use crate::vcpu::Vcpu;
use x86::cpuid::CpuidResult;
use x86::msr::Msr;

/// Who carries out a write of an MSR or a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAnswer {
    /// Not the hypapp: the core does its own.
    Chain,
    /// The hypapp did; the guest goes on behind the instruction.
    Handled,
}

/// What comes of the hypercall instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypercallAnswer {
    /// It is none of the hypapp's: #UD.
    Chain,
    /// The guest goes on behind the instruction.
    Handled,
    /// The hypapp set where the guest goes on, or it gives the command again.
    Moved,
}

/// What comes of an access that a hypapp's protections stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationAnswer {
    /// The guest takes #GP(0).
    Chain,
    /// The guest goes on where its instruction pointer is: it tries again, or where the hypapp set it.
    Resume,
}

/// Why a hypapp refuses to start; printed, and the machine stops before the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// An option of the boot command line has a value that it does not take.
    Option {
        /// Its name, without the equals sign.
        name: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// The image has too little memory.
    Memory {
        /// For what.
        wanted: &'static str,
    },
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option { name, takes } => write!(f, "{name}= takes {takes}"),
            Self::Memory { wanted } => write!(f, "the image has too little memory for {wanted}"),
        }
    }
}

/// A hypervisor application.
pub trait Hypapp: Sync {
    /// Called once on the bootstrap processor, before any guest code runs.
    ///
    /// # Errors
    ///
    /// A configuration that the hypapp cannot work with.
    fn init(&self, _boot: &Boot<'_>) -> Result<(), ConfigurationError> {
        Ok(())
    }

    /// Ports whose reads come to [`Hypapp::read_port`] and whose writes come to [`Hypapp::write_port`], beside those
    /// that the core looks at.
    fn ports(&self) -> &[RangeInclusive<u16>] {
        &[]
    }

    /// MSRs whose reads come to [`Hypapp::read_msr`] and whose writes come to [`Hypapp::write_msr`], beside
    /// those that the core looks at.
    ///
    /// None of those that a VM entry loads and an exit saves for whichever guest: IA32_EFER, IA32_PAT, IA32_DEBUGCTL, the
    /// bases of FS and GS, and the three of SYSENTER. A hypapp that lists one stops the boot: it would see some of their
    /// changes alone.
    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &[]
    }

    /// RDMSR of an MSR that exits; `None` has the core answer. MSR areas of a hypervisor in the guest come here too,
    /// and to [`Hypapp::write_msr`].
    fn read_msr(&self, _vcpu: &mut dyn Vcpu, _msr: Msr) -> Option<u64> {
        None
    }

    /// WRMSR of an MSR that exits. Chained, the core carries it out as the processor would.
    fn write_msr(&self, _vcpu: &mut dyn Vcpu, _msr: Msr, _value: u64) -> WriteAnswer {
        WriteAnswer::Chain
    }

    /// The hypercall instruction (VMCALL on Intel), at any privilege level; by custom the command is in EAX. Chained, it is #UD.
    fn hypercall(&self, _vcpu: &mut dyn Vcpu) -> HypercallAnswer {
        HypercallAnswer::Chain
    }

    /// CPUID `leaf`, `subleaf`; `None` has the core answer.
    fn cpuid(&self, _vcpu: &mut dyn Vcpu, _leaf: u32, _subleaf: u32) -> Option<CpuidResult> {
        None
    }

    /// IN, or one element of INS, where a port of the access is intercepted, by whomever: [`PortAccess::touches`] says
    /// whether that is one of the hypapp's. The core carries the value to register or memory; of a narrower access, its
    /// low bytes. `None` has the core read all of the access's ports.
    fn read_port(&self, _vcpu: &mut dyn Vcpu, _access: PortAccess) -> Option<u32> {
        None
    }

    /// OUT, or one element of OUTS, as for [`Hypapp::read_port`]. Chained, the core writes the value.
    fn write_port(&self, _vcpu: &mut dyn Vcpu, _access: PortAccess, _value: u32) -> WriteAnswer {
        WriteAnswer::Chain
    }

    /// An access that the hypapp's own protections stopped. Chained, the guest takes #GP(0).
    fn second_level_violation(
        &self,
        _vcpu: &mut dyn Vcpu,
        _violation: SecondLevelViolation,
    ) -> ViolationAnswer {
        ViolationAnswer::Chain
    }

    /// The guest's software left the compartment that this CPU runs in (`services::compartment`). The hypapp leaves the
    /// compartment, or the software goes on; behind [`CompartmentExit::Init`] it has to be left.
    fn compartment_exit(&self, _vcpu: &mut dyn Vcpu, _exit: CompartmentExit) {}

    /// The guest writes an MTRR; `false` refuses with #GP(0).
    fn allow_mtrr(&self, _vcpu: &mut dyn Vcpu, _msr: Msr, _value: u64) -> bool {
        true
    }

    /// An external interrupt is pending, where the hypapp asked to be told; it stays pending, and comes back
    /// until the hypapp no longer asks.
    fn external_interrupt(&self, _vcpu: &mut dyn Vcpu) {}

    /// The guest can take an interrupt, where the hypapp asked to be told.
    fn interrupt_window(&self, _vcpu: &mut dyn Vcpu) {}

    /// A hypervisor in the guest enters a guest of its own, the processor of which `vcpu` is.
    fn nested_entry(&self, _vcpu: &mut dyn Vcpu) {}

    /// A guest of the guest's hypervisor has left for that one, the processor of which `vcpu` is.
    fn nested_exit(&self, _vcpu: &mut dyn Vcpu) {}

    /// The guest ends and the machine will be reset: called once on every CPU, all of them stopped.
    fn shutdown(&self, _cpu: usize) {}
}

/// What a hypapp is told at [`Hypapp::init`].
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The boot command line.
    pub command_line: &'a str,
    /// Number of CPUs.
    pub cpus: usize,
    /// BIOS number of the drive that the guest boots from.
    pub boot_drive: u8,
    /// The module that GRUB loaded for the hypapp, the third one; empty where there is none.
    pub module: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::ConfigurationError;

    #[test]
    fn a_refusal_names_the_option_or_what_lacks_memory() {
        let option = ConfigurationError::Option { name: "pal_ticks", takes: "a number of ticks" };
        assert_eq!(option.to_string(), "pal_ticks= takes a number of ticks");
        let memory = ConfigurationError::Memory { wanted: "a heap" };
        assert_eq!(memory.to_string(), "the image has too little memory for a heap");
    }
}
