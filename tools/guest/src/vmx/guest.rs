//! A guest of this guest: a VMCS and general registers.

#![expect(unsafe_code, reason = "enters what the VMCS describes")]
// UNSAFETY: the guest runs functions of this program on a stack of its own; the exit comes back to `vmx.S`.

use x86::msr::Msr;
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

use super::instruction::{self, Failure, outcome, vmclear, vmptrld};
use super::{Ept, operation, page, state};
use crate::cpu::rdmsr_existing;
use crate::smp::Cpu;

/// General registers that VM entry and exit leave to software, and CR2.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "register names")]
pub struct Registers {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub cr2: u64,
}

/// A guest of this CPU. Its VMCS has to be current for everything but [`Guest::load`].
#[derive(Debug)]
pub struct Guest {
    /// Address of the VMCS.
    pub region: u64,
    /// General registers.
    pub registers: Registers,
    is_launched: bool,
}

unsafe extern "C" {
    fn vmx_enter(registers: *mut Registers, is_launched: u64) -> u64;
    fn vmx_guest_end();
}

impl Guest {
    /// A guest that starts with `code` in 64-bit mode, in this address space, at CPL 0 with interrupts off, and
    /// leaves for nothing that a processor lets it do. Its VMCS becomes current. Guests of a CPU share a stack.
    pub fn new(code: extern "C" fn()) -> Self {
        Self::at(operation::region(), code)
    }

    /// Like [`Guest::new`], with its VMCS at `region`, a page with the revision.
    pub fn at(region: u64, code: extern "C" fn()) -> Self {
        if let Err(failure) = vmclear(region).and_then(|()| vmptrld(region)) {
            panic!("VMCLEAR or VMPTRLD: {failure:?}");
        }
        state::write_all(0, 0);
        let mut guest = Self { region, registers: Registers::default(), is_launched: false };
        // Without a bitmap every RDMSR and WRMSR leaves.
        assert!(guest.add_primary(PrimaryControls::USE_MSR_BITMAPS), "the processor has no MSR bitmaps");
        guest.write(vmcs::MSR_BITMAPS, page::allocate());
        guest.call(code);
        guest
    }

    /// The guest of the VMCS that is current, at `region`, which was launched or not.
    pub fn current(region: u64, is_launched: bool) -> Self {
        Self { region, registers: Registers::default(), is_launched }
    }

    /// Makes the VMCS current.
    pub fn load(&self) {
        if let Err(failure) = vmptrld(self.region) {
            panic!("VMPTRLD: {failure:?}");
        }
    }

    /// Takes the VMCS over from another CPU, which has cleared it: it becomes current here, and exits come here.
    pub fn adopt(&mut self) {
        self.load();
        state::write_host();
    }

    /// VMCLEARs the VMCS: it is not current any more, and its next entry is a launch.
    pub fn clear(&mut self) {
        if let Err(failure) = vmclear(self.region) {
            panic!("VMCLEAR: {failure:?}");
        }
        self.is_launched = false;
    }

    /// Has the next entry begin `code` on an empty stack. When it returns, [`Guest::has_ended`].
    pub fn call(&mut self, code: extern "C" fn()) {
        let rsp = Cpu::current().nested_stack_top() - 8;
        super::write(rsp, vmx_guest_end as *const () as u64);
        self.write(vmcs::GUEST_RIP, code as *const () as u64);
        self.write(vmcs::GUEST_RSP, rsp);
        self.write(vmcs::GUEST_ACTIVITY, 0);
        // The function before may have been left in the middle, at any privilege level.
        state::write_code_and_stack();
        self.write(vmcs::GUEST_RFLAGS, 2);
    }

    /// Enters the guest and gives the reason of its exit.
    ///
    /// # Errors
    ///
    /// VMLAUNCH or VMRESUME failed, as the processor says.
    pub fn enter(&mut self) -> Result<ExitReason, Failure> {
        // SAFETY: see the module's note.
        let flags = unsafe { vmx_enter(&raw mut self.registers, self.is_launched.into()) };
        outcome(flags as u8)?;
        let reason = ExitReason(self.read(vmcs::EXIT_REASON));
        self.is_launched |= !reason.is_entry_failure();
        Ok(reason)
    }

    /// Enters the guest, whose VMCS lets it.
    pub fn run(&mut self) -> ExitReason {
        self.enter().unwrap_or_else(|failure| panic!("VM entry: {failure:?}"))
    }

    /// Whether the exit was the end of the function that the guest was to run.
    pub fn has_ended(&self) -> bool {
        self.read(vmcs::EXIT_REASON) == ExitReason::VMCALL.0
            && self.read(vmcs::GUEST_RIP) == vmx_guest_end as *const () as u64
    }

    /// Steps over the instruction that left the guest.
    pub fn advance(&mut self) {
        let length = self.read(vmcs::EXIT_INSTRUCTION_LENGTH);
        self.write(vmcs::GUEST_RIP, self.read(vmcs::GUEST_RIP) + u64::from(length));
    }

    /// Reads a field.
    pub fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        instruction::read(field)
    }

    /// Writes a field.
    pub fn write<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>, value: T) {
        instruction::write(field, value);
    }

    /// Sets pin-based controls; `false`, and nothing changed, where the processor lacks one of them.
    pub fn add_pin(&mut self, controls: PinBasedControls) -> bool {
        state::add(vmcs::PIN_BASED_CONTROLS, Msr::IA32_VMX_TRUE_PINBASED_CTLS, controls.bits())
    }

    /// Sets primary controls; `false`, and nothing changed, where the processor lacks one of them.
    pub fn add_primary(&mut self, controls: PrimaryControls) -> bool {
        state::add(vmcs::PRIMARY_CONTROLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS, controls.bits())
    }

    /// Sets secondary controls; `false`, and nothing changed, where the processor lacks one of them.
    pub fn add_secondary(&mut self, controls: SecondaryControls) -> bool {
        self.add_primary(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS)
            && state::add(vmcs::SECONDARY_CONTROLS, Msr::IA32_VMX_PROCBASED_CTLS2, controls.bits())
    }

    /// Sets VM-exit controls; `false`, and nothing changed, where the processor lacks one of them.
    pub fn add_exit(&mut self, controls: ExitControls) -> bool {
        state::add(vmcs::EXIT_CONTROLS, Msr::IA32_VMX_TRUE_EXIT_CTLS, controls.bits())
    }

    /// Clears bits of a control word.
    pub fn remove(&mut self, field: TrustedField<u32>, bits: u32) {
        let word = self.read(field);
        self.write(field, word & !bits);
    }

    /// Gives the guest `ept` as its memory.
    pub fn use_ept(&mut self, ept: &Ept) {
        assert!(self.add_secondary(SecondaryControls::ENABLE_EPT), "the processor has no EPT");
        self.write(vmcs::EPT_POINTER, ept.pointer());
    }
}

/// Exit qualification of an EPT violation, without what only processors with advanced VM-exit information for EPT
/// violations tell (SDM, "Exit Qualification for EPT Violations", bits 11:9).
#[must_use]
pub fn ept_violation(nested: &Guest) -> u64 {
    const ADVANCED: u64 = 1 << 22;
    let qualification = nested.read(vmcs::EXIT_QUALIFICATION);
    let has_advanced = rdmsr_existing(Msr::IA32_VMX_EPT_VPID_CAP) & ADVANCED != 0;
    if has_advanced { qualification & !0xe00 } else { qualification }
}
