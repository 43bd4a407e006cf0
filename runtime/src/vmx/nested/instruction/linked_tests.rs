use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::{RegisterState, Registers};
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::entry::checks::Processor;
use crate::vmx::nested::entry::checks::fixture::hardware;
use hw::sim::{SimCpuid, SimMsrs, SimVmcs};
use x86::cr::Rflags;

const LINKED: u64 = 0x3000;
const RAX_AND_RDX: u32 = 1 << 10 | 2 << 28;
/// Memory at the exit qualification, in DS.
const MEMORY: u32 = 2 << 7 | 3 << 15 | 1 << 22 | 1 << 27 | 2 << 28;

/// L2 in 64-bit mode without paging of its own, a VMCS linked for it.
struct Fixture {
    nested: Nested,
    vmcs02: SimVmcs,
    registers: Registers,
    memory: FakeMemory,
    facts: Facts,
}

impl Fixture {
    fn new() -> Self {
        let mut nested = Nested::new();
        nested.current = Some(GuestPhysAddr::new(0x5000));
        nested.vmcs12.write(vmcs::VMCS_LINK_POINTER, LINKED);
        let mut vmcs02 = SimVmcs::default();
        vmcs02.write(vmcs::GUEST_EFER, 0xd00);
        vmcs02.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
        vmcs02.write(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc093);
        vmcs02.write(vmcs::EXIT_INSTRUCTION_INFORMATION, RAX_AND_RDX);
        let msrs = SimMsrs::new(hardware());
        let facts = Facts {
            capability: Capability::of(&msrs, 39).unwrap(),
            processor: Processor::of(&SimCpuid::default(), &msrs),
        };
        let memory = FakeMemory::new(0x8000);
        Self { nested, vmcs02, registers: Registers::default(), memory, facts }
    }

    fn run(&mut self, reason: ExitReason, encoding: u64, value: u64) -> Result<&'static str, Event> {
        self.registers.set_rax(value);
        self.registers.set_rdx(encoding);
        let mut vcpu = VmxVcpu::new(self.vmcs02.clone(), &mut self.registers, 0);
        let mut l2 =
            L2 { vcpu: &mut vcpu, memory: &self.memory, l1_memory: &self.memory, facts: &self.facts };
        let action = execute(&mut self.nested, &mut l2, reason);
        let flags = vcpu.rflags();
        match action {
            Action::Inject(event) => Err(event),
            Action::Advance => Ok(match (flags.contains(Rflags::CF), flags.contains(Rflags::ZF)) {
                (false, false) => "succeed",
                (true, false) => "invalid",
                _ => "valid",
            }),
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, encoding: u32) -> u64 {
        assert_eq!(self.run(ExitReason::VMREAD, encoding.into(), 0), Ok("succeed"));
        self.registers.rax()
    }

    fn error(&mut self, reason: ExitReason, encoding: u64) -> u32 {
        assert_eq!(self.run(reason, encoding, 0), Ok("valid"), "{encoding:#x}");
        self.nested.vmcs12.read(vmcs::INSTRUCTION_ERROR)
    }
}

#[test]
fn every_field_of_a_linked_vmcs_reads_as_when_it_is_current() {
    let mut fixture = Fixture::new();
    let there = |facts: &Facts| {
        let exists = |field: &&vmcs::FieldInfo| facts.capability.has_field(**field);
        vmcs::FIELDS.iter().filter(exists).map(|field| field.encoding).collect::<Vec<_>>()
    };
    let encodings = there(&fixture.facts);
    for &encoding in &encodings {
        let value = 0x0102_0304_0506_0708_u64.rotate_left(encoding);
        assert_eq!(fixture.run(ExitReason::VMWRITE, encoding.into(), value), Ok("succeed"), "{encoding:#x}");
    }
    let mut current = vmcs12::Vmcs12::new();
    current.load(&fixture.memory, GuestPhysAddr::new(LINKED)).unwrap();
    for encoding in encodings {
        let access = fixture.facts.capability.field(encoding.into()).unwrap();
        assert_eq!(fixture.read(encoding), current.value(access), "{encoding:#x}");
        assert_ne!(current.value(access), 0, "{encoding:#x}");
    }
    assert_eq!(fixture.nested.vmcs12.read(vmcs::GUEST_RIP), 0);
}

#[test]
fn halves_of_a_field_stand_alone() {
    let mut fixture = Fixture::new();
    fixture.run(ExitReason::VMWRITE, 0x2010, 0x1111_2222_3333_4444).unwrap();
    fixture.run(ExitReason::VMWRITE, 0x2011, 0x5_6666_7777).unwrap();
    assert_eq!((fixture.read(0x2010), fixture.read(0x2011)), (0x6666_7777_3333_4444, 0x6666_7777));
}

#[test]
fn errors_come_in_the_manuals_order_and_go_to_the_current_vmcs() {
    let mut fixture = Fixture::new();
    for reason in [ExitReason::VMREAD, ExitReason::VMWRITE] {
        assert_eq!((fixture.error(reason, 0x7ffe), fixture.error(reason, 0x681f)), (12, 12));
    }
    fixture.facts.capability.misc &= !(1 << 29);
    assert_eq!(fixture.error(ExitReason::VMWRITE, 0x4402), 13);
    fixture.nested.vmcs12.write(vmcs::VMCS_LINK_POINTER, NO_LINK);
    assert_eq!(fixture.run(ExitReason::VMREAD, 0x7ffe, 0), Ok("invalid"));
    assert_eq!(fixture.run(ExitReason::VMWRITE, 0x4402, 0), Ok("invalid"));
    fixture.vmcs02.write(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
    assert_eq!(fixture.run(ExitReason::VMREAD, 0x681e, 0), Err(Event::GP0));
    assert_eq!(fixture.run(ExitReason::VMWRITE, 0x681e, 0), Err(Event::GP0));
}

#[test]
fn operands_in_memory_are_l2s() {
    let mut fixture = Fixture::new();
    fixture.vmcs02.write(vmcs::EXIT_INSTRUCTION_INFORMATION, MEMORY);
    fixture.vmcs02.write(vmcs::EXIT_QUALIFICATION, 0x1008);
    fixture.memory.put_u64(0x1008, 0xfeed);
    fixture.run(ExitReason::VMWRITE, 0x681e, 0).unwrap();
    fixture.vmcs02.write(vmcs::EXIT_QUALIFICATION, 0x1010);
    fixture.run(ExitReason::VMREAD, 0x681e, 0).unwrap();
    assert_eq!(fixture.memory.get_u64(0x1010), 0xfeed);
    fixture.memory.hidden = 0x1000..0x2000;
    assert_eq!(fixture.run(ExitReason::VMREAD, 0x681e, 0), Err(Event::GP0));
}

#[test]
fn a_linked_page_that_l1_lost_reads_as_ones_and_takes_nothing() {
    let mut fixture = Fixture::new();
    fixture.memory.hidden = LINKED..LINKED + 0x1000;
    fixture.run(ExitReason::VMWRITE, 0x681e, 5).unwrap();
    assert_eq!((fixture.read(0x681e), fixture.read(0x0802)), (u64::MAX, 0xffff));
    fixture.memory.hidden = 0..0;
    assert_eq!(fixture.read(0x681e), 0);
}
