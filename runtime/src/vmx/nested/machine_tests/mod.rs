//! L1 and its L2 on a machine of memory and threads: what L1 finds by its own instructions.

mod exits;
mod life;
mod memory;

use super::entry::checks::fixture::{Mode, REVISION, sound};
use super::vmcs12::fields;
use crate::vmx::fixture::{Heard, TestCpu, put, put_u64, read, script};
use crate::vmx::vm_entry;
use hw::host::own;
use x86::address::HostPhysAddr;
use x86::cr::Rflags;
use x86::vmx::controls::SecondaryControls;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, FIELDS, Field, FieldValue};

/// Memory at an address of 64 bits, in DS, with neither base nor index.
const MEMORY: u32 = 2 << 7 | 3 << 15 | 1 << 22 | 1 << 27;
/// Operands in RAX, and the encoding or type in RDX.
const RAX_AND_RDX: u32 = 1 << 10 | 2 << 28;
const SHADOWING: u32 = SecondaryControls::VMCS_SHADOWING.bits();
/// Where L1 goes on at an exit of its guest's, and that guest at an entry.
const L1_RIP: u64 = 0xffff_8000_0000_1000;
const L2_RIP: u64 = 0x7f_ffff_f000;
/// Where L1 executes its instructions.
const L1_CODE: u64 = 0x10_0000;
/// Offsets in L1's memory: of its page tables, of operands, of VMX's regions, and of what tests use besides.
const TABLES: u64 = 0x1000;
const OPERAND: u64 = 0x5000;
const VMXON_REGION: u64 = 0x8000;
const VMCS12: u64 = 0x9000;
const FREE: u64 = 0x1_0000;

/// L1 in 64-bit mode at CPL 0, its memory mapped at its own addresses.
struct L1 {
    cpu: TestCpu,
    /// Where its memory begins.
    base: u64,
}

impl L1 {
    /// Outside VMX operation.
    fn new() -> Self {
        let cpu = TestCpu::running();
        let base = cpu.memory();
        put_u64(base + TABLES, base + TABLES + 0x1003);
        put_u64(base + TABLES + 0x1000, 0x83);
        for region in [VMXON_REGION, VMCS12] {
            put(base + region, &REVISION.to_le_bytes());
        }
        for (field, value) in [
            (vmcs::GUEST_CR0, 0x8001_0031),
            (vmcs::CR0_READ_SHADOW, 0x8001_0031),
            (vmcs::GUEST_CR3, base + TABLES),
            (vmcs::GUEST_CR4, 0x2020),
            (vmcs::CR4_READ_SHADOW, 0x2020),
            (vmcs::GUEST_EFER, 0xd01),
            (vmcs::GUEST_RFLAGS, 2),
            (vmcs::GUEST_RIP, L1_CODE),
        ] {
            cpu.set(field, value);
        }
        cpu.set(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
        cpu.set(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc093);
        let entry = cpu.get(vmcs::ENTRY_CONTROLS);
        cpu.set(vmcs::ENTRY_CONTROLS, entry | 1 << 9);
        Self { cpu, base }
    }

    /// In VMX root operation with a current VMCS that every check accepts, as `mode` has it.
    fn with_vmcs(mode: Mode) -> Self {
        let mut l1 = Self::new();
        l1.succeed(ExitReason::VMXON, VMXON_REGION);
        l1.succeed(ExitReason::VMCLEAR, VMCS12);
        l1.succeed(ExitReason::VMPTRLD, VMCS12);
        let sound = sound(mode);
        for field in FIELDS.iter().filter(|field| field.encoding >> 10 & 3 != 1) {
            let value = sound.value(field.encoding);
            if value != 0 {
                l1.write_raw(field.encoding, value);
            }
        }
        l1.write(vmcs::HOST_CR3, l1.base + TABLES);
        l1.write(vmcs::GUEST_CR3, l1.base + TABLES);
        l1
    }

    /// In L2, 64-bit, for which L1 asks for nothing.
    fn in_l2() -> Self {
        Self::in_l2_with(|_| ())
    }

    /// The same with what L1 writes to its VMCS besides.
    fn in_l2_with(write: impl FnOnce(&mut Self)) -> Self {
        let mut l1 = Self::with_vmcs(Mode::Bits64);
        write(&mut l1);
        l1.launch();
        assert!(l1.is_l2(), "VM-instruction error {}", l1.read(vmcs::INSTRUCTION_ERROR));
        l1
    }

    /// Returns whether the guest that is entered next is L2.
    fn is_l2(&self) -> bool {
        self.cpu.get(vmcs::HOST_RIP) == vm_entry::l2_exit_address()
    }

    /// Executes an instruction of 3 bytes whose operand in memory is an address in L1's memory; returns CF and ZF.
    fn execute(&mut self, reason: ExitReason, pointer: u64) -> (bool, bool) {
        put_u64(self.base + OPERAND, self.base + pointer);
        self.execute_raw(reason)
    }

    /// The same with what lies at the operand already.
    fn execute_raw(&mut self, reason: ExitReason) -> (bool, bool) {
        self.cpu.set(vmcs::GUEST_RIP, L1_CODE);
        self.cpu.set(vmcs::EXIT_INSTRUCTION_LENGTH, 3);
        self.cpu.set(vmcs::EXIT_QUALIFICATION, self.base + OPERAND);
        let register_form = matches!(reason, ExitReason::VMREAD | ExitReason::VMWRITE);
        self.cpu.set(vmcs::EXIT_INSTRUCTION_INFORMATION, if register_form { RAX_AND_RDX } else { MEMORY });
        self.cpu.exit(reason);
        let flags = Rflags::from_bits_retain(self.cpu.get(vmcs::GUEST_RFLAGS));
        (flags.contains(Rflags::CF), flags.contains(Rflags::ZF))
    }

    /// The same, which succeeds.
    fn succeed(&mut self, reason: ExitReason, pointer: u64) {
        assert_eq!(self.execute(reason, pointer), (false, false), "{}", reason.name());
        assert_eq!(self.cpu.get(vmcs::GUEST_RIP), L1_CODE + 3);
    }

    /// VMLAUNCH; L2 runs behind it, or L1 goes on.
    fn launch(&mut self) -> (bool, bool) {
        self.execute_raw(ExitReason::VMLAUNCH)
    }

    /// VMRESUME.
    fn resume(&mut self) {
        self.execute_raw(ExitReason::VMRESUME);
    }

    /// VMWRITE.
    fn write<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>, value: T) {
        self.write_raw(field.encoding(), value.to_u64());
    }

    /// Sets bits of a field.
    fn add(&mut self, field: Field<u32, true>, bits: u32) {
        let value = self.read(field);
        self.write(field, value | bits);
    }

    /// VMREAD.
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>) -> T {
        let encoding = field.encoding();
        if let Some(shadow) = self.shadow(vmcs::VMREAD_BITMAP_ADDRESS.encoding(), encoding) {
            return own(|cpu| T::from_u64(cpu.vmcss[&shadow].value(encoding)));
        }
        self.cpu.registers.set_rdx(encoding.into());
        assert_eq!(self.execute_raw(ExitReason::VMREAD), (false, false), "{encoding:#x}");
        T::from_u64(self.cpu.registers.rax())
    }

    fn write_raw(&mut self, encoding: u32, value: u64) {
        assert!(fields::index(encoding).is_some());
        if let Some(shadow) = self.shadow(vmcs::VMWRITE_BITMAP_ADDRESS.encoding(), encoding) {
            return own(|cpu| cpu.vmcss.get_mut(&shadow).unwrap().set_value(encoding, value));
        }
        self.cpu.registers.set_rax(value);
        self.cpu.registers.set_rdx(encoding.into());
        assert_eq!(self.execute_raw(ExitReason::VMWRITE), (false, false), "{encoding:#x}");
    }

    /// Returns the shadow VMCS where the processor reads or writes the field there itself (SDM, "VMREAD"; "VMWRITE").
    fn shadow(&self, bitmap: u32, encoding: u32) -> Option<HostPhysAddr> {
        if self.cpu.get(vmcs::SECONDARY_CONTROLS) & SHADOWING == 0 {
            return None;
        }
        let bitmap = self.cpu.value(bitmap);
        let [byte] = read(bitmap + u64::from(encoding >> 3));
        let exits = byte >> (encoding & 7) & 1 == 1;
        (!exits).then(|| HostPhysAddr::new(self.cpu.get(vmcs::VMCS_LINK_POINTER)))
    }

    /// An exit of L2, at an instruction of 2 bytes.
    fn exit(&mut self, reason: ExitReason) {
        assert!(self.is_l2());
        self.cpu.set(vmcs::GUEST_RIP, L2_RIP);
        self.cpu.set(vmcs::EXIT_INSTRUCTION_LENGTH, 2);
        self.cpu.exit(reason);
    }

    /// What L1 was told: it runs at its host state's RIP.
    fn told(&mut self) -> ExitReason {
        assert!(!self.is_l2(), "L2 goes on");
        assert_eq!(self.cpu.get(vmcs::GUEST_RIP), L1_RIP);
        ExitReason(self.read(vmcs::EXIT_REASON))
    }

    /// L2 goes on: where, and with which event.
    fn goes_on(&self) -> (u64, u32) {
        assert!(self.is_l2(), "L1 was told");
        (self.cpu.get(vmcs::GUEST_RIP), self.cpu.get(vmcs::ENTRY_INTERRUPTION_INFORMATION))
    }
}

/// What the hypapp heard since the last call.
fn heard() -> Vec<Heard> {
    script(|script| core::mem::take(&mut script.heard))
}
