#[path = "entry_tests.rs"]
mod entry;

use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::{PagingState, RegisterState, Registers};
use crate::vmx::nested::entry::checks::Processor;
use crate::vmx::nested::entry::checks::fixture::{REVISION, hardware};
use hw::sim::{SimCpuid, SimMsrs, SimVmcs};
use x86::cpuid::CpuidResult;
use x86::vmx::interruption::Interruptibility;
use x86::vmx::vmcs;

const OPERAND: u64 = 0x5000;
const VMXON_REGION: u64 = 0x8000;
const FIRST: u64 = 0x9000;
const SECOND: u64 = 0xa000;
/// Memory at an address of 64 bits, in DS, with neither base nor index.
const MEMORY: u32 = 2 << 7 | 3 << 15 | 1 << 22 | 1 << 27;
/// Operands in RAX, and the encoding or type in RDX.
const RAX_AND_RDX: u32 = 1 << 10 | 2 << 28;

#[derive(Debug, Default, PartialEq, Eq)]
struct FakeHardware {
    fetched: usize,
    ept: Vec<Option<u64>>,
    vpid: Vec<VpidScope>,
    changes: usize,
}

impl Hardware for FakeHardware {
    fn fetch_guest_state(&mut self, vmcs12: &mut Vmcs12) {
        self.fetched += 1;
        vmcs12.write(vmcs::GUEST_ES_BASE, 0xe5);
        vmcs12.write(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc093);
    }
    fn fetch_shadow(&mut self, _: &mut Vmcs12) {}
    fn invalidate_ept(&mut self, ept_pointer: Option<u64>) {
        self.ept.push(ept_pointer);
    }
    fn invalidate_vpid(&mut self, scope: VpidScope) {
        self.vpid.push(scope);
    }
    fn current_changed(&mut self, _: Option<&Vmcs12>) {
        self.changes += 1;
    }

    fn left_operation(&mut self) {}
}

/// L1 in 64-bit mode at CPL 0 with CR4.VMXE set, its memory mapped at its own addresses.
struct Fixture {
    nested: Nested,
    vmcs01: SimVmcs,
    registers: Registers,
    memory: FakeMemory,
    hardware: FakeHardware,
    facts: Facts,
}

impl Fixture {
    fn new() -> Self {
        let memory = FakeMemory::new(0x1_0000);
        memory.put_u64(0x1000, 0x2003);
        memory.put_u64(0x2000, 0x83);
        for region in [VMXON_REGION, FIRST, SECOND] {
            memory.put(region, &REVISION.to_le_bytes());
        }
        let mut vmcs01 = SimVmcs::default();
        vmcs01.write(vmcs::GUEST_CR0, 0x8001_0031);
        vmcs01.write(vmcs::CR0_READ_SHADOW, 0x8001_0031);
        vmcs01.write(vmcs::GUEST_CR3, 0x1000);
        vmcs01.write(vmcs::GUEST_CR4, 0x2020);
        vmcs01.write(vmcs::CR4_READ_SHADOW, 0x2020);
        vmcs01.write(vmcs::GUEST_EFER, 0xd01);
        vmcs01.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
        vmcs01.write(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc093);
        vmcs01.write(vmcs::GUEST_RFLAGS, 0x8d7);
        vmcs01.write(vmcs::EXIT_QUALIFICATION, OPERAND);
        vmcs01.write(vmcs::EXIT_INSTRUCTION_INFORMATION, MEMORY);
        let widths = CpuidResult { eax: 48 << 8 | 39, ..CpuidResult::default() };
        let cpuid = SimCpuid::default().with(0x8000_0008, 0, widths);
        let msrs = SimMsrs::new(hardware());
        let facts =
            Facts { capability: Capability::of(&msrs, 39).unwrap(), processor: Processor::of(&cpuid, &msrs) };
        let (nested, registers) = (Nested::new(), Registers::default());
        Self { nested, vmcs01, registers, memory, hardware: FakeHardware::default(), facts }
    }

    /// In VMX root operation with a current VMCS.
    fn with_current() -> Self {
        let mut fixture = Self::new();
        assert_eq!(fixture.run_at(ExitReason::VMXON, VMXON_REGION), Ok("succeed"));
        assert_eq!(fixture.run_at(ExitReason::VMPTRLD, FIRST), Ok("succeed"));
        fixture
    }

    /// Executes an instruction whose operand in memory is `pointer`.
    fn run_at(&mut self, reason: ExitReason, pointer: u64) -> Result<&'static str, Event> {
        self.memory.put_u64(OPERAND, pointer);
        self.run(reason)
    }

    fn run(&mut self, reason: ExitReason) -> Result<&'static str, Event> {
        let mut vcpu = VmxVcpu::new(self.vmcs01.clone(), &mut self.registers, 0);
        let mut l1 =
            L1 { vcpu: &mut vcpu, memory: &self.memory, facts: &self.facts, hardware: &mut self.hardware };
        let completion = execute(&mut self.nested, &mut l1, reason);
        let flags = vcpu.rflags();
        self.vmcs01 = vcpu.vmcs;
        let has_other = flags.intersects(Rflags::PF | Rflags::AF | Rflags::SF | Rflags::OF);
        match completion {
            Completion::Enter => Ok("enter"),
            Completion::L1(Action::Inject(event)) => Err(event),
            Completion::L1(Action::Advance) if has_other => Ok("flags left"),
            Completion::L1(Action::Advance) => {
                Ok(match (flags.contains(Rflags::CF), flags.contains(Rflags::ZF)) {
                    (false, false) => "succeed",
                    (true, false) => "invalid",
                    (false, true) => "valid",
                    (true, true) => "both",
                })
            }
            Completion::L1(other) => panic!("{other:?}"),
        }
    }

    /// Executes an instruction that is to end in VMfailValid, and gives the error.
    fn error(&mut self, reason: ExitReason) -> u32 {
        assert_eq!(self.run(reason), Ok("valid"));
        self.nested.vmcs12.read(vmcs::INSTRUCTION_ERROR)
    }

    fn error_at(&mut self, reason: ExitReason, pointer: u64) -> u32 {
        self.memory.put_u64(OPERAND, pointer);
        self.error(reason)
    }

    /// VMREAD or VMWRITE of `encoding` with a register operand; gives the operand.
    fn access(
        &mut self,
        reason: ExitReason,
        encoding: u32,
        value: u64,
    ) -> (Result<&'static str, Event>, u64) {
        self.vmcs01.write(vmcs::EXIT_INSTRUCTION_INFORMATION, RAX_AND_RDX);
        self.registers.set_rax(value);
        self.registers.set_rdx(encoding.into());
        let done = self.run(reason);
        self.vmcs01.write(vmcs::EXIT_INSTRUCTION_INFORMATION, MEMORY);
        (done, self.registers.rax())
    }
}

const ALL: [ExitReason; 11] = [
    ExitReason::VMXOFF,
    ExitReason::VMCLEAR,
    ExitReason::VMPTRLD,
    ExitReason::VMPTRST,
    ExitReason::VMREAD,
    ExitReason::VMWRITE,
    ExitReason::VMLAUNCH,
    ExitReason::VMRESUME,
    ExitReason::INVEPT,
    ExitReason::INVVPID,
    ExitReason::VMCALL,
];

#[test]
fn outside_vmx_operation_all_but_vmxon_are_undefined() {
    for reason in ALL {
        assert_eq!(Fixture::new().run(reason), Err(Event::UD), "{}", reason.name());
    }
}

#[test]
fn the_mode_comes_before_the_privilege() {
    for reason in ALL {
        let mut user = Fixture::with_current();
        user.vmcs01.write(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
        assert_eq!(user.run(reason), Err(Event::GP0), "{}", reason.name());
        // Compatibility mode.
        user.vmcs01.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xc0fb);
        assert_eq!(user.run(reason), Err(Event::UD), "{}", reason.name());
        let mut real = Fixture::with_current();
        real.vmcs01.write(vmcs::GUEST_CR0, 0x20);
        real.vmcs01.write(vmcs::CR0_READ_SHADOW, 0x20);
        real.vmcs01.write(vmcs::GUEST_EFER, 0);
        assert_eq!(real.run(reason), Err(Event::UD), "{}", reason.name());
    }
}

#[test]
fn vmxon_wants_vmxe_the_fixed_bits_and_a_region() {
    let mut disabled = Fixture::new();
    disabled.vmcs01.write(vmcs::CR4_READ_SHADOW, 0x20);
    assert_eq!(disabled.run(ExitReason::VMXON), Err(Event::UD));
    let mut unfixed = Fixture::new();
    unfixed.vmcs01.write(vmcs::CR0_READ_SHADOW, 0x8001_0011);
    assert_eq!(unfixed.run(ExitReason::VMXON), Err(Event::GP0));
    let mut fixture = Fixture::new();
    for bad in [VMXON_REGION + 8, 1 << 39, 0x7000] {
        assert_eq!(fixture.run_at(ExitReason::VMXON, bad), Ok("invalid"), "{bad:#x}");
    }
    fixture.memory.hidden = VMXON_REGION..VMXON_REGION + 0x1000;
    assert_eq!(fixture.run_at(ExitReason::VMXON, VMXON_REGION), Ok("invalid"));
    fixture.memory.hidden = 0..0;
    assert_eq!(fixture.run_at(ExitReason::VMXON, VMXON_REGION), Ok("succeed"));
    // A second one fails, invalid without a current VMCS.
    assert_eq!(fixture.run_at(ExitReason::VMXON, VMXON_REGION), Ok("invalid"));
    fixture.run_at(ExitReason::VMPTRLD, FIRST).unwrap();
    assert_eq!(fixture.error(ExitReason::VMXON), 15);
    assert_eq!(fixture.run(ExitReason::VMXOFF), Ok("succeed"));
    assert_eq!(fixture.run(ExitReason::VMXOFF), Err(Event::UD));
}

#[test]
fn in_vmx_operation_pe_and_pg_stay() {
    let mut fixture = Fixture::with_current();
    let fixed = |fixture: &mut Fixture| {
        let vcpu = VmxVcpu::new(fixture.vmcs01.clone(), &mut fixture.registers, 0);
        vcpu.fixed_bits()
    };
    assert_eq!(fixed(&mut fixture), (Cr0::PE | Cr0::PG | Cr0::NE, Cr4::VMXE));
    fixture.run(ExitReason::VMXOFF).unwrap();
    assert_eq!(fixed(&mut fixture), (Cr0::empty(), Cr4::empty()));
}

#[test]
fn vmptrld_and_vmclear_name_what_is_wrong_with_a_pointer() {
    let mut fixture = Fixture::with_current();
    for bad in [FIRST + 1, 1 << 40] {
        assert_eq!(fixture.error_at(ExitReason::VMPTRLD, bad), 9);
        assert_eq!(fixture.error_at(ExitReason::VMCLEAR, bad), 2);
    }
    assert_eq!(fixture.error_at(ExitReason::VMPTRLD, VMXON_REGION), 10);
    assert_eq!(fixture.error_at(ExitReason::VMCLEAR, VMXON_REGION), 3);
    assert_eq!(fixture.error_at(ExitReason::VMPTRLD, 0x7000), 11);
    fixture.memory.hidden = SECOND..SECOND + 0x1000;
    assert_eq!(fixture.error_at(ExitReason::VMPTRLD, SECOND), 11);
    assert_eq!(fixture.run(ExitReason::VMPTRST), Ok("succeed"));
    assert_eq!(fixture.memory.get_u64(OPERAND), FIRST);
}

#[test]
fn a_vmcs_that_is_not_current_lies_in_its_page() {
    let mut fixture = Fixture::with_current();
    let field = vmcs::GUEST_RIP.encoding();
    assert_eq!(fixture.access(ExitReason::VMWRITE, field, 0x1234).0, Ok("succeed"));
    fixture.nested.vmcs12.launch_state = crate::vmx::nested::vmcs12::LaunchState::Launched;
    fixture.run_at(ExitReason::VMPTRLD, SECOND).unwrap();
    assert_eq!(fixture.access(ExitReason::VMREAD, field, 7), (Ok("succeed"), 0));
    fixture.run_at(ExitReason::VMPTRLD, FIRST).unwrap();
    assert_eq!(fixture.access(ExitReason::VMREAD, field, 7), (Ok("succeed"), 0x1234));
    assert_eq!(fixture.error(ExitReason::VMLAUNCH), 4);
    // VMCLEAR makes the launch state clear, of the current VMCS and of any.
    fixture.run_at(ExitReason::VMPTRLD, SECOND).unwrap();
    fixture.run_at(ExitReason::VMCLEAR, FIRST).unwrap();
    fixture.run_at(ExitReason::VMPTRLD, FIRST).unwrap();
    assert_eq!(fixture.error(ExitReason::VMRESUME), 5);
    fixture.run_at(ExitReason::VMCLEAR, FIRST).unwrap();
    assert_eq!(fixture.run(ExitReason::VMLAUNCH), Ok("invalid"));
    fixture.run(ExitReason::VMPTRST).unwrap();
    assert_eq!(fixture.memory.get_u64(OPERAND), u64::MAX);
    assert_eq!(fixture.memory.get_u32(FIRST), REVISION);
}

#[test]
fn a_shadow_vmcs_holds_fields_and_is_not_entered() {
    let mut fixture = Fixture::with_current();
    fixture.memory.put(SECOND, &(REVISION | 1 << 31).to_le_bytes());
    let mut less = Fixture::with_current();
    less.facts.capability.secondary = x86::vmx::capability::Allowed(0);
    less.memory.put(SECOND, &(REVISION | 1 << 31).to_le_bytes());
    assert_eq!(less.error_at(ExitReason::VMPTRLD, SECOND), 11);
    assert_eq!(fixture.run_at(ExitReason::VMPTRLD, SECOND), Ok("succeed"));
    assert_eq!(fixture.access(ExitReason::VMWRITE, 0x681e, 5).0, Ok("succeed"));
    for entry in [ExitReason::VMLAUNCH, ExitReason::VMRESUME] {
        assert_eq!(fixture.run(entry), Ok("invalid"), "{}", entry.name());
    }
    fixture.run_at(ExitReason::VMPTRLD, FIRST).unwrap();
    assert_eq!(fixture.error(ExitReason::VMLAUNCH), 7);
    fixture.run_at(ExitReason::VMPTRLD, SECOND).unwrap();
    assert_eq!(fixture.access(ExitReason::VMREAD, 0x681e, 0).1, 5);
    assert_eq!(fixture.memory.get_u32(SECOND), REVISION | 1 << 31);
    // A VMXON region has no such indicator.
    fixture.run(ExitReason::VMXOFF).unwrap();
    assert_eq!(fixture.run_at(ExitReason::VMXON, SECOND), Ok("invalid"));
}

#[test]
fn vmread_and_vmwrite_know_their_fields() {
    let mut fixture = Fixture::with_current();
    for unknown in [0x6830, 0x6801, 0x2034, 1 << 16 | 0x681e, 0x2800 | 1 << 12] {
        for reason in [ExitReason::VMREAD, ExitReason::VMWRITE] {
            assert_eq!(fixture.access(reason, unknown, 0).0, Ok("valid"), "{unknown:#x}");
            assert_eq!(fixture.nested.vmcs12.read(vmcs::INSTRUCTION_ERROR), 12);
        }
    }
    // 16 and 32 bits are cut; the upper half of 64 bits stands alone.
    fixture.access(ExitReason::VMWRITE, 0x0802, 0x12_3456).0.unwrap();
    assert_eq!(fixture.access(ExitReason::VMREAD, 0x0802, 0).1, 0x3456);
    fixture.access(ExitReason::VMWRITE, 0x2010, 0x1111_2222_3333_4444).0.unwrap();
    fixture.access(ExitReason::VMWRITE, 0x2011, 0x5_6666_7777).0.unwrap();
    assert_eq!(fixture.access(ExitReason::VMREAD, 0x2010, 0).1, 0x6666_7777_3333_4444);
    assert_eq!(fixture.access(ExitReason::VMREAD, 0x2011, 0).1, 0x6666_7777);
    // IA32_VMX_MISC says whether VM-exit information can be written.
    assert_eq!(fixture.access(ExitReason::VMWRITE, 0x4402, 5).0, Ok("succeed"));
    fixture.facts.capability.misc &= !(1 << 29);
    assert_eq!(fixture.access(ExitReason::VMWRITE, 0x4402, 5).0, Ok("valid"));
    assert_eq!(fixture.nested.vmcs12.read(vmcs::INSTRUCTION_ERROR), 13);
}

#[test]
fn operands_lie_in_memory_too() {
    let mut fixture = Fixture::with_current();
    fixture.registers.set_rdx(vmcs::GUEST_RSP.encoding().into());
    // [rbx + rsi * 8 + 0x4000], register operand RDX.
    let indexed = 3 | 2 << 7 | 3 << 15 | 6 << 18 | 3 << 23 | 2 << 28;
    fixture.vmcs01.write(vmcs::EXIT_INSTRUCTION_INFORMATION, indexed);
    fixture.vmcs01.write(vmcs::EXIT_QUALIFICATION, 0x4000);
    fixture.registers.set_rbx(0x800);
    fixture.registers.set_rsi(0x100);
    fixture.memory.put_u64(OPERAND, 0xfeed);
    assert_eq!(fixture.run(ExitReason::VMWRITE), Ok("succeed"));
    fixture.memory.put_u64(OPERAND, 0);
    assert_eq!(fixture.run(ExitReason::VMREAD), Ok("succeed"));
    assert_eq!(fixture.memory.get_u64(OPERAND), 0xfeed);
    // A page that is not there, and an address that is none.
    fixture.registers.set_rbx(1 << 39);
    assert!(matches!(fixture.run(ExitReason::VMREAD), Err(Event::PageFault { error_code: 2, .. })));
    fixture.registers.set_rbx(1 << 48);
    assert_eq!(fixture.run(ExitReason::VMWRITE), Err(Event::GP0));
}

#[test]
fn fields_that_only_the_hardware_has_are_fetched_once() {
    let mut fixture = Fixture::with_current();
    fixture.nested.vmcs12.is_stale = true;
    assert_eq!(fixture.access(ExitReason::VMREAD, vmcs::GUEST_RIP.encoding(), 0).0, Ok("succeed"));
    assert_eq!(fixture.hardware.fetched, 0);
    for _ in 0..2 {
        assert_eq!(fixture.access(ExitReason::VMREAD, vmcs::GUEST_ES_BASE.encoding(), 0).1, 0xe5);
    }
    assert_eq!(fixture.hardware.fetched, 1);
}

#[test]
fn an_entry_checks_in_the_manuals_order() {
    let mut fixture = Fixture::with_current();
    fixture.vmcs01.write(vmcs::GUEST_INTERRUPTIBILITY, Interruptibility::BLOCKING_BY_MOV_SS.bits());
    assert_eq!(fixture.error(ExitReason::VMRESUME), 26);
    fixture.vmcs01.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    assert_eq!(fixture.error(ExitReason::VMRESUME), 5);
    assert_eq!(fixture.error(ExitReason::VMLAUNCH), 7);
    assert_eq!(fixture.error(ExitReason::VMCALL), 1);
    assert_eq!(fixture.run(ExitReason::VMFUNC), Err(Event::UD));
}

#[test]
fn invept_and_invvpid_drop_what_they_name() {
    let mut fixture = Fixture::with_current();
    fixture.vmcs01.write(vmcs::EXIT_INSTRUCTION_INFORMATION, MEMORY | 2 << 28);
    let mut run = |reason, kind, low: u64, high: u64| {
        fixture.registers.set_rdx(kind);
        fixture.memory.put_u64(OPERAND, low);
        fixture.memory.put_u64(OPERAND + 8, high);
        fixture.run(reason).map(|done| (done, fixture.nested.vmcs12.read(vmcs::INSTRUCTION_ERROR)))
    };
    for (kind, pointer) in
        [(0, 0x701e), (3, 0x701e), (1, 0x701f), (1, 0x7016), (1, 1 << 40 | 0x1e), (1, 0x781e)]
    {
        assert_eq!(run(ExitReason::INVEPT, kind, pointer, 0), Ok(("valid", 28)), "{kind} {pointer:#x}");
    }
    assert!(matches!(run(ExitReason::INVEPT, 1, 0x705e, 0), Ok(("succeed", _))));
    assert!(matches!(run(ExitReason::INVEPT, 2, 0x7016, 0), Ok(("succeed", _))));
    for (kind, low, high) in [(4, 1, 0), (0, 0, 0), (1, 0, 0), (3, 0, 0), (1, 0x1_0001, 0), (0, 1, 1 << 48)] {
        assert_eq!(run(ExitReason::INVVPID, kind, low, high), Ok(("valid", 28)), "{kind} {low:#x}");
    }
    for (kind, low) in [(0, 3), (1, 4), (2, 0), (3, 5)] {
        assert!(matches!(run(ExitReason::INVVPID, kind, low, 0x1000), Ok(("succeed", _))));
    }
    let address = GuestLinearAddr::new(0x1000);
    assert_eq!(fixture.hardware.ept, [Some(0x705e), None]);
    let scopes = [
        VpidScope::Address(3, address),
        VpidScope::Single(4),
        VpidScope::All,
        VpidScope::SingleRetainingGlobals(5),
    ];
    assert_eq!(fixture.hardware.vpid, scopes);
}
