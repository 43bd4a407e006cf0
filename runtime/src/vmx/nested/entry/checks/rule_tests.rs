//! Rules by name, at their bounds and in combinations that the sound states do not have.

use super::fixture::{FakeVmcs, Fixture, Mode, sound};
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::vmcs;

/// Events to inject: valid, of this type and vector, with an error code or not.
const fn event(kind: u32, vector: u32, has_error_code: bool) -> u32 {
    1 << 31 | (has_error_code as u32) << 11 | kind << 8 | vector
}

const EXTERNAL: u32 = 0;
const HARDWARE_EXCEPTION: u32 = 3;

fn broken(machine: &Fixture, mode: Mode, change: impl FnOnce(&mut FakeVmcs)) -> Option<&'static str> {
    let mut vmcs = sound(mode);
    change(&mut vmcs);
    machine.broken_rule(&vmcs)
}

#[test]
fn an_error_code_is_delivered_in_protected_mode_alone() {
    let machine = Fixture::new();
    let general_protection = |mode, has_error_code| {
        broken(&machine, mode, |vmcs| {
            vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event(HARDWARE_EXCEPTION, 13, has_error_code));
        })
    };
    let rule = Some("delivery of an error code");
    for mode in [Mode::Bits64, Mode::Pae, Mode::Everything] {
        assert_eq!(general_protection(mode, true), None, "{mode:?}");
    }
    assert_eq!((general_protection(Mode::Real, true), general_protection(Mode::Real, false)), (rule, None));
}

#[test]
fn an_error_code_has_sixteen_bits_where_it_is_delivered() {
    let machine = Fixture::new();
    let with = |error_code: u32, has_error_code| {
        broken(&machine, Mode::Bits64, |vmcs| {
            let vector = if has_error_code { 13 } else { 6 };
            vmcs.write(
                vmcs::ENTRY_INTERRUPTION_INFORMATION,
                event(HARDWARE_EXCEPTION, vector, has_error_code),
            );
            vmcs.write(vmcs::ENTRY_EXCEPTION_ERROR_CODE, error_code);
        })
    };
    let rule = Some("reserved bits of the error code");
    assert_eq!([0, 1, 0xffff].map(|code| with(code, true)), [None; 3]);
    assert_eq!([1 << 16, 1 << 31].map(|code| with(code, true)), [rule; 2]);
    assert_eq!(with(!0, false), None);
}

#[test]
fn an_external_interrupt_needs_the_flag_that_lets_it_in() {
    let machine = Fixture::new();
    let inject = |event: u32, flags: u64| {
        broken(&machine, Mode::Bits64, |vmcs| {
            vmcs.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, event);
            vmcs.write(vmcs::GUEST_RFLAGS, flags);
        })
    };
    let rule = Some("injection of an external interrupt with RFLAGS.IF 0");
    assert_eq!([0x202, 2].map(|flags| inject(event(EXTERNAL, 0x31, false), flags)), [None, rule]);
    assert_eq!(inject(event(HARDWARE_EXCEPTION, 6, false), 2), None);
}

/// SDM, "Checks on Guest Non-Register State".
#[test]
fn a_single_step_is_pending_behind_a_shadow_or_a_halt() {
    const STI: u32 = 1;
    const MOV_SS: u32 = 2;
    const HLT: u32 = 1;
    let machine = Fixture::new();
    let state = |interruptibility, activity, is_trapping: bool, by_branches: bool, is_pending: bool| {
        broken(&machine, Mode::Bits64, |vmcs| {
            vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, interruptibility);
            vmcs.write(vmcs::GUEST_ACTIVITY, activity);
            vmcs.write(vmcs::GUEST_RFLAGS, 0x202 | u64::from(is_trapping) << 8);
            vmcs.write(vmcs::GUEST_DEBUGCTL, u64::from(by_branches) << 1);
            vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, u64::from(is_pending) << 14);
        })
    };
    let rule = Some("pending single step");
    for (interruptibility, activity) in [(STI, 0), (MOV_SS, 0), (0, HLT)] {
        let at = |traps, by_branches, pending| state(interruptibility, activity, traps, by_branches, pending);
        assert_eq!([at(true, false, true), at(true, false, false)], [None, rule], "{interruptibility}");
        assert_eq!([at(true, true, true), at(true, true, false)], [rule, None], "{interruptibility}");
        assert_eq!([at(false, false, true), at(false, false, false)], [rule, None], "{interruptibility}");
    }
    assert_eq!([state(0, 0, true, false, false), state(0, 0, false, false, true)], [None; 2]);
}

#[test]
fn a_transaction_s_breakpoint_is_pending_with_its_bit_alone() {
    let pending = |machine: &Fixture, value: u64, interruptibility: u32| {
        broken(machine, Mode::Bits64, |vmcs| {
            vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, value);
            vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, interruptibility);
        })
    };
    let (machine, rule) = (Fixture::new(), Some("debug exception in a transaction"));
    assert_eq!([0x1_1000, 0x1000].map(|value| pending(&machine, value, 0)), [None; 2]);
    assert_eq!([0x1_0000, 0x1_1001, 0x1_5000].map(|value| pending(&machine, value, 0)), [rule; 3]);
    assert_eq!([1, 2].map(|shadow| pending(&machine, 0x1_1000, shadow)), [None, rule]);
    let mut without = Fixture::new();
    without.processor.has_rtm = false;
    assert_eq!([0x1_1000, 0x1000].map(|value| pending(&without, value, 0)), [rule, None]);
}

#[test]
fn accessed_and_dirty_flags_need_their_capability() {
    let pointer = |machine: &Fixture, bits: u64| {
        broken(machine, Mode::Real, |vmcs| vmcs.write(vmcs::EPT_POINTER, 0x2000 | 3 << 3 | 6 | bits))
            .is_none()
    };
    let with = Fixture::new();
    assert!(pointer(&with, 0) && pointer(&with, 1 << 6));
    let mut without = Fixture::new();
    without.capability.ept_vpid.remove(EptVpidCapability::ACCESSED_DIRTY);
    assert!(pointer(&without, 0) && !pointer(&without, 1 << 6));
}

#[test]
fn an_msr_area_ends_within_the_address_width() {
    let machine = Fixture::new();
    let area = |before_end: u64, count: u32| {
        broken(&machine, Mode::Bits64, |vmcs| {
            vmcs.write(vmcs::EXIT_MSR_LOAD_COUNT, count);
            vmcs.write(vmcs::EXIT_MSR_LOAD_ADDRESS, (1 << 39) - before_end);
        })
        .is_none()
    };
    for count in [1, 2, 3, 500] {
        let bytes = 16 * u64::from(count);
        assert!(area(bytes, count) && !area(bytes - 16, count) && !area(bytes + 8, count), "{count}");
    }
    assert!(area(0, 0));
}

/// SDM, "Checks on Guest Segment Registers".
#[test]
fn a_stack_s_level_is_that_of_its_code() {
    let machine = Fixture::new();
    let levels = |mode, code: u32, stack: u32, requested: u16| {
        broken(&machine, mode, |vmcs| {
            vmcs.write(vmcs::GUEST_CS_SELECTOR, 0x30 | requested);
            vmcs.write(vmcs::GUEST_CS_ACCESS_RIGHTS, code);
            vmcs.write(vmcs::GUEST_SS_SELECTOR, 0x28 | requested);
            vmcs.write(vmcs::GUEST_SS_ACCESS_RIGHTS, stack);
        })
        .is_none()
    };
    assert!(levels(Mode::Bits64, 0xa0fb, 0xc0f3, 3) && levels(Mode::Bits64, 0xa09b, 0xc093, 0));
    assert!(!levels(Mode::Bits64, 0xa0fb, 0xc0f3, 0));
    // An unrestricted guest may have writable data for code, at level 0; in real mode everything is at level 0.
    assert!(levels(Mode::Everything, 0xa093, 0xc093, 0) && !levels(Mode::Everything, 0xa093, 0xc0f3, 3));
    assert!(levels(Mode::Real, 0x9b, 0xc093, 0) && !levels(Mode::Real, 0xfb, 0xc0f3, 3));
}

#[test]
fn data_is_not_above_what_its_selector_asks_for() {
    let machine = Fixture::new();
    let loaded = |rights: u32, requested: u16| {
        broken(&machine, Mode::Bits64, |vmcs| {
            vmcs.write(vmcs::GUEST_DS_SELECTOR, 0x18 | requested);
            vmcs.write(vmcs::GUEST_DS_ACCESS_RIGHTS, rights);
        })
        .is_none()
    };
    // Data and code that is read; code that conforms may be of any level.
    for rights in [0xc091, 0xc093, 0xc095, 0xc09b] {
        assert!(loaded(rights, 0) && !loaded(rights, 3), "{rights:#x}");
        assert!(loaded(rights | 3 << 5, 3), "{rights:#x}");
    }
    assert!(loaded(0xc09f, 0) && loaded(0xc09f, 3));
    // Not accessed, not readable.
    assert!(!loaded(0xc092, 0) && !loaded(0xc099, 0) && !loaded(0xc09d, 0));
}
