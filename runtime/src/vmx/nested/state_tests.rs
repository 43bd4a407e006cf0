use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::Registers;
use crate::vmx::vcpu::VmxVcpu;
use checks::fixture::{LINKED, MODES, Mode, REVISION, hardware, sound};
use hw::sim::{SimCpuid, SimMsrs, SimVmcs};
use instruction::VpidScope;
use x86::cpuid::CpuidResult;
use x86::cr::Cr4;
use x86::vmx::controls::{EntryControls, ExitControls};
use x86::vmx::instruction_error::InstructionError;
use x86::vmx::vmcs::FIELDS;

struct Fixture {
    nested: Nested,
    facts: Facts,
    vmcs01: SimVmcs,
    memory: FakeMemory,
}

fn cpuid() -> SimCpuid {
    let widths = CpuidResult { eax: 48 << 8 | 39, ..CpuidResult::default() };
    let features = CpuidResult { edx: 1 << 11 | 1 << 20 | 1 << 29, ..CpuidResult::default() };
    SimCpuid::default().with(0x8000_0008, 0, widths).with(0x8000_0001, 0, features)
}

/// A VMCS of a guest in 64-bit mode that every check accepts is current.
fn fixture() -> Fixture {
    let facts = Facts::of_processor(&cpuid(), &SimMsrs::new(hardware()), 39).unwrap();
    let mut nested = Nested::new();
    nested.switch_on(GuestPhysAddr::new(0x1000));
    nested.current = Some(GuestPhysAddr::new(0x2000));
    assert_eq!(MODES[0], Mode::Bits64);
    let vmcs = sound(MODES[0]);
    for (index, field) in FIELDS.iter().enumerate() {
        nested.vmcs12.set_value(Access { index, is_high: false }, vmcs.value(field.encoding));
    }
    let mut vmcs01 = SimVmcs::default();
    vmcs01.write(vmcs::GUEST_EFER, 0xd01);
    Fixture { nested, facts, vmcs01, memory: FakeMemory::new(0x8000) }
}

/// VMCS12 has the newest value of everything.
struct Untouched;

impl Hardware for Untouched {
    fn fetch_guest_state(&mut self, _: &mut Vmcs12) {
        panic!("VMCS12 is not stale")
    }
    fn fetch_shadow(&mut self, _: &mut Vmcs12) {}
    fn invalidate_ept(&mut self, _: Option<u64>) {}
    fn invalidate_vpid(&mut self, _: VpidScope) {}
    fn current_changed(&mut self, _: Option<&Vmcs12>) {}

    fn left_operation(&mut self) {}
}

impl Fixture {
    fn check(&mut self) -> Option<u32> {
        let mut registers = Registers::default();
        let vcpu = VmxVcpu::new(self.vmcs01.clone(), &mut registers, 0);
        self.nested.check(&self.facts, &vcpu, &self.memory).err().map(|failure| failure.error.0)
    }

    fn check_guest_state(&mut self) -> Result<checks::LoadedPdptes, checks::EntryFailure> {
        let mut registers = Registers::default();
        let vcpu = VmxVcpu::new(self.vmcs01.clone(), &mut registers, 0);
        self.nested.check_guest_state(&self.facts, &vcpu, &self.memory, &mut Untouched)
    }

    fn set(&mut self, encoding: u32, value: u64) {
        let access = self.facts.capability.field(encoding.into()).unwrap();
        self.nested.vmcs12.set_value(access, value);
    }
}

#[test]
fn what_passed_and_was_not_written_since_passes_again() {
    let mut fixture = fixture();
    assert_eq!((fixture.check(), fixture.check_guest_state()), (None, Ok(None)));
    fixture.nested.vmcs12.dirty = Dirty::empty();
    // The processor, not L1, changed it: no check of ours looks.
    fixture.nested.vmcs12.write(vmcs::GUEST_CR4, 0);
    fixture.nested.vmcs12.write(vmcs::HOST_CR4, 0);
    assert_eq!((fixture.check(), fixture.check_guest_state()), (None, Ok(None)));
    fixture.set(vmcs::HOST_RIP.encoding(), 0);
    assert_eq!(fixture.check(), Some(8));
    fixture.set(vmcs::PIN_BASED_CONTROLS.encoding(), 0);
    assert_eq!(fixture.check(), Some(7));
    assert!(fixture.check_guest_state().is_err());
}

#[test]
fn what_is_linked_is_looked_at_with_every_entry() {
    let mut fixture = fixture();
    fixture.memory.put(LINKED, &REVISION.to_le_bytes());
    fixture.set(vmcs::VMCS_LINK_POINTER.encoding(), LINKED);
    assert_eq!(fixture.check_guest_state(), Ok(None));
    fixture.nested.vmcs12.dirty = Dirty::empty();
    assert_eq!(fixture.check_guest_state(), Ok(None));
    fixture.memory.put(LINKED, &(REVISION | 1 << 31).to_le_bytes());
    assert!(matches!(
        fixture.check_guest_state(),
        Err(checks::EntryFailure::GuestState { qualification: 4, .. })
    ));
}

#[test]
fn an_entry_that_failed_after_all_is_as_if_it_had_not_been() {
    let mut fixture = fixture();
    fixture.nested.begin_entry();
    assert_eq!(fixture.nested.vmcs12.launch_state, LaunchState::Launched);
    fixture.nested.vmcs12.dirty = Dirty::empty();
    fixture.nested.revert_entry();
    assert_eq!(
        (fixture.nested.vmcs12.launch_state, fixture.nested.vmcs12.dirty),
        (LaunchState::Clear, Dirty::all())
    );
    // One that was launched before stays so.
    fixture.nested.vmcs12.launch_state = LaunchState::Launched;
    fixture.nested.begin_entry();
    fixture.nested.revert_entry();
    assert_eq!(fixture.nested.vmcs12.launch_state, LaunchState::Launched);
}

/// What stands before an exit that is made up is all that the hardware would have looked at.
#[test]
fn fields_that_the_hardware_checks_are_checked_without_it() {
    let mut fixture = fixture();
    assert_eq!((fixture.check(), fixture.check_guest_state()), (None, Ok(None)));
    fixture.nested.vmcs12.dirty = Dirty::empty();
    fixture.set(vmcs::GUEST_INTERRUPTIBILITY.encoding(), 1 << 20);
    assert_eq!(fixture.check_guest_state(), Ok(None), "left to the hardware");
    let all = |fixture: &mut Fixture| {
        fixture.nested.check_all_guest_state(&fixture.facts, &fixture.memory, &mut Untouched)
    };
    assert!(all(&mut fixture).is_err());
    fixture.set(vmcs::GUEST_INTERRUPTIBILITY.encoding(), 0);
    assert_eq!(all(&mut fixture), Ok(()));
}

/// Which a hypervisor outside IA-32e mode may not enter (SDM, "Checks Related to Address-Space Size").
#[test]
fn an_l2_that_went_to_ia_32e_mode_is_checked_again() {
    let mut fixture = fixture();
    let long = EntryControls::IA32E_MODE_GUEST.bits();
    let entry = fixture.nested.vmcs12.read(vmcs::ENTRY_CONTROLS);
    fixture.set(vmcs::ENTRY_CONTROLS.encoding(), (entry & !long).into());
    fixture.set(vmcs::EXIT_CONTROLS.encoding(), {
        let exit = fixture.nested.vmcs12.read(vmcs::EXIT_CONTROLS);
        (exit & !ExitControls::HOST_ADDRESS_SPACE_SIZE.bits()).into()
    });
    for (field, value) in [
        (vmcs::HOST_RIP.encoding(), 0x1000),
        (vmcs::HOST_EFER.encoding(), 0),
        (vmcs::HOST_CR4.encoding(), Cr4::VMXE.bits()),
        (vmcs::HOST_SS_SELECTOR.encoding(), 0x10),
    ] {
        fixture.set(field, value);
    }
    fixture.vmcs01.write(vmcs::GUEST_EFER, 0);
    assert_eq!(fixture.check(), None, "an L2 of 32 bits");
    let mut vmcs02 = SimVmcs::default();
    for (controls, expected) in [(entry & !long, None), (entry | long, Some(8))] {
        fixture.nested.vmcs12.dirty = Dirty::empty();
        vmcs02.write(vmcs::ENTRY_CONTROLS, controls);
        exit::reflect::save_guest_state(&vmcs02, &mut fixture.nested.vmcs12);
        assert_eq!(fixture.check(), expected, "{controls:#x}");
    }
}

/// Cores of two kinds: the one has 8 general counters and 4 fixed ones, the other 6 and 3.
#[test]
fn each_cpus_counters_say_what_entries_load() {
    let kind = |general: u32, fixed: u32| {
        let leaf = CpuidResult { eax: general << 8 | 4, edx: fixed, ..CpuidResult::default() };
        cpuid().with(0xa, 0, leaf)
    };
    let (large, small) = (kind(8, 4), kind(6, 3));
    let msrs = SimMsrs::new(hardware());
    for (bootstrap, other) in [(&large, &small), (&small, &large)] {
        let facts = Facts::of_processor(bootstrap, &msrs, 39).unwrap();
        let of_other = facts.on(other, &msrs);
        assert_eq!(facts.on(bootstrap, &msrs).processor, facts.processor);
        for (facts, cpuid) in [(facts, bootstrap), (of_other, other)] {
            let is_large = core::ptr::eq(cpuid, &raw const large);
            for (value, is_taken) in [
                (0x7_0000_003f, true),
                (1 << 6, is_large),
                (1 << 7, is_large),
                (1 << 35, is_large),
                (1 << 8, false),
            ] {
                let mut fixture = Fixture { facts, ..fixture() };
                let exits = fixture.nested.vmcs12.read(vmcs::EXIT_CONTROLS);
                let exits = exits | ExitControls::LOAD_PERF_GLOBAL_CTRL.bits();
                fixture.set(vmcs::EXIT_CONTROLS.encoding(), exits.into());
                fixture.set(vmcs::HOST_PERF_GLOBAL_CTRL.encoding(), value);
                let expected = if is_taken { None } else { Some(InstructionError::ENTRY_HOST_STATE.0) };
                assert_eq!(fixture.check(), expected, "{value:#x}, large: {is_large}");
            }
        }
    }
}
