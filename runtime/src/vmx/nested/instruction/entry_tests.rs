use super::Fixture;
use crate::vmx::nested::entry::checks::fixture::{Mode, sound};
use crate::vmx::nested::entry::checks::{EntryFailure, LoadedPdptes};
use crate::vmx::nested::vmcs12::fields::Access;
use crate::vmx::nested::vmcs12::{Dirty, LaunchState};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, FIELDS};

const USER_STACK: u32 = 0xc0f3;
const USE_TPR_SHADOW: u32 = 1 << 21;
const VTPR: u64 = 0x80;

impl Fixture {
    /// With a current VMCS that every check accepts, which was entered once.
    fn with_sound() -> Self {
        let mut fixture = Self::with_current();
        let values = sound(Mode::Bits64);
        for (index, field) in FIELDS.iter().enumerate() {
            let access = Access { index, is_high: false };
            fixture.nested.vmcs12.set_value(access, values.value(field.encoding));
        }
        assert_eq!(fixture.run(ExitReason::VMLAUNCH), Ok("enter"));
        fixture.nested.vmcs12.launch_state = LaunchState::Launched;
        fixture.nested.vmcs12.dirty = Dirty::empty();
        fixture
    }

    fn check_guest_state(&mut self) -> Result<LoadedPdptes, EntryFailure> {
        let vcpu = VmxVcpu::new(self.vmcs01.clone(), &mut self.registers, 0);
        self.nested.check_guest_state(&self.facts, &vcpu, &self.memory, &mut self.hardware)
    }
}

#[test]
fn stale_state_the_checks_go_by_what_the_last_exit_left() {
    let mut fixture = Fixture::with_sound();
    // L2 has left privilege level 3 since L1 looked.
    fixture.nested.vmcs12.write(vmcs::GUEST_SS_ACCESS_RIGHTS, USER_STACK);
    fixture.nested.vmcs12.is_stale = true;
    assert_eq!(fixture.check_guest_state(), Ok(None));
    assert_eq!(fixture.hardware.fetched, 0);
    fixture.nested.vmcs12.dirty = Dirty::CONTROLS;
    assert_eq!(fixture.check_guest_state(), Ok(None));
    assert_eq!(fixture.hardware.fetched, 1);
}

#[test]
fn stale_state_a_failed_entry_keeps_what_the_hardware_has() {
    let mut fixture = Fixture::with_sound();
    fixture.nested.vmcs12.is_stale = true;
    fixture.nested.revert_entry();
    assert!(!fixture.nested.vmcs12.dirty.contains(Dirty::COLD));
    fixture.nested.vmcs12.is_stale = false;
    fixture.nested.revert_entry();
    assert_eq!(fixture.nested.vmcs12.dirty, Dirty::all());
}

#[test]
fn missing_entry_checks_what_is_loaded_comes_after_all_checks() {
    let mut fixture = Fixture::with_sound();
    fixture.nested.vmcs12.write(vmcs::GUEST_RFLAGS, 0);
    // The hardware refuses these.
    assert_eq!(fixture.check_guest_state(), Ok(None));
    fixture.nested.vmcs12.write(vmcs::ENTRY_MSR_LOAD_COUNT, 1);
    assert!(matches!(fixture.check_guest_state(), Err(EntryFailure::GuestState { qualification: 0, .. })));
    fixture.nested.vmcs12.write(vmcs::ENTRY_MSR_LOAD_COUNT, 0);
    fixture.nested.vmcs12.write(vmcs::GUEST_RFLAGS, 2);
    fixture.nested.vmcs12.write(vmcs::VMCS_LINK_POINTER, 0x7000);
    assert!(matches!(fixture.check_guest_state(), Err(EntryFailure::GuestState { qualification: 4, .. })));
}

#[test]
fn missing_entry_checks_what_is_in_memory_is_read_each_time() {
    let mut fixture = Fixture::with_sound();
    assert_eq!(fixture.run(ExitReason::VMRESUME), Ok("enter"));
    // L1 has left IA-32e mode.
    fixture.vmcs01.write(vmcs::GUEST_EFER, 0);
    fixture.vmcs01.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xc09b);
    assert_eq!(fixture.error(ExitReason::VMRESUME), 8);
    fixture.vmcs01.write(vmcs::GUEST_EFER, 0xd01);
    fixture.vmcs01.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
    assert_eq!(fixture.run(ExitReason::VMRESUME), Ok("enter"));
    // The virtual task priority falls below the threshold.
    let primary = fixture.nested.vmcs12.read(vmcs::PRIMARY_CONTROLS) | USE_TPR_SHADOW;
    fixture.nested.vmcs12.write(vmcs::PRIMARY_CONTROLS, primary);
    fixture.nested.vmcs12.write(vmcs::VIRTUAL_APIC_ADDRESS, 0x6000);
    fixture.nested.vmcs12.write(vmcs::TPR_THRESHOLD, 3);
    fixture.memory.put(0x6000 + VTPR, &[0x50]);
    assert_eq!(fixture.run(ExitReason::VMRESUME), Ok("enter"));
    fixture.memory.put(0x6000 + VTPR, &[0x20]);
    assert_eq!(fixture.error(ExitReason::VMRESUME), 7);
}
