//! CPL checks: VMX instructions at privilege levels 1, 2 and 3, of a hypervisor and of its guest.
//! hypapp: quiesce
#![no_std]
#![no_main]

use guest::Mode;
use guest::vmx::form::Form;
use guest::vmx::prelude::*;
use guest::vmx::{Outcome, attempt, form, prepare, trial};

guest!(main);

const LEVELS: [(Mode, u32); 3] = [(Mode::Ring1, 1), (Mode::Ring2, 2), (Mode::User64, 3)];

fn main() {
    // The privilege level is looked at before the operand.
    prepare();
    for (mode, _) in LEVELS {
        check_eq!(
            attempt(mode, form::vmxon().code64, &mut form::without_memory()),
            Outcome::GP,
            "VMXON first in {mode:?}"
        );
    }
    enter_operation();
    let mut nested = Guest::new(trial::perform);
    for Form { name, code64, .. } in form::forms() {
        for (mode, _) in LEVELS {
            check_eq!(attempt(mode, code64, &mut form::without_memory()), Outcome::GP, "{name} in {mode:?}");
        }
    }
    check_eq!(nested.run(), ExitReason::VMCALL, "a guest after all that");
    for Form { name, code64, reason, .. } in form::forms().into_iter().chain([form::vmxon()]) {
        for (mode, level) in LEVELS {
            trial::begin(&mut nested, mode, code64, form::without_memory());
            let seen = nested.run();
            check_eq!(seen.name(), reason.name(), "{name} of a guest in {mode:?}");
            check!(!nested.has_ended(), "{name} of a guest in {mode:?} leaves where it stands");
            let rights = nested.read(vmcs::GUEST_SS_ACCESS_RIGHTS);
            check_eq!(rights >> 5 & 3, level, "{name} of a guest in {mode:?}: privilege level");
        }
    }
    leave_operation();
}
