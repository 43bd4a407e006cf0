//! CPL checks: VMX instructions at privilege levels 1, 2 and 3, of a hypervisor and of its guest.
//! hypapp: quiesce
#![no_std]
#![no_main]

use guest::vmx::{
    ExitReason, Guest, Outcome, attempt, enter_operation, leave_operation, prepare, trial, vmcs,
};
use guest::{Mode, Regs, Snippet, check, check_eq, guest, snippet};

guest!(main);

/// No memory: the privilege level is looked at before the operand.
const UNMAPPED: u64 = 0x7fff_ffff_f000;
const LEVELS: [(Mode, u32); 3] = [(Mode::Ring1, 1), (Mode::Ring2, 2), (Mode::User64, 3)];

fn main() {
    prepare();
    for (mode, _) in LEVELS {
        check_eq!(
            attempt(mode, snippet!("vmxon [rsi]"), &mut regs()),
            Outcome::GP,
            "VMXON first in {mode:?}"
        );
    }
    enter_operation();
    let mut nested = Guest::new(trial::perform);
    for (name, code, _) in instructions() {
        for (mode, _) in LEVELS {
            check_eq!(attempt(mode, code, &mut regs()), Outcome::GP, "{name} in {mode:?}");
        }
    }
    check_eq!(nested.run(), ExitReason::VMCALL, "a guest after all that");
    for (name, code, reason) in instructions() {
        for (mode, level) in LEVELS {
            trial::begin(&mut nested, mode, code, regs());
            let seen = nested.run();
            check_eq!(seen.name(), reason.name(), "{name} of a guest in {mode:?}");
            check!(!nested.has_ended(), "{name} of a guest in {mode:?} leaves where it stands");
            let rights = nested.read(vmcs::GUEST_SS_ACCESS_RIGHTS);
            check_eq!(rights >> 5 & 3, level, "{name} of a guest in {mode:?}: privilege level");
        }
    }
    leave_operation();
}

fn regs() -> Regs {
    Regs { rsi: UNMAPPED, rax: 1, rbx: 0x681e, ..Regs::default() }
}

fn instructions() -> [(&'static str, Snippet, ExitReason); 12] {
    use ExitReason as R;
    [
        ("VMXON", snippet!("vmxon [rsi]"), R::VMXON),
        ("VMXOFF", snippet!("vmxoff"), R::VMXOFF),
        ("VMLAUNCH", snippet!("vmlaunch"), R::VMLAUNCH),
        ("VMRESUME", snippet!("vmresume"), R::VMRESUME),
        ("VMCLEAR", snippet!("vmclear [rsi]"), R::VMCLEAR),
        ("VMPTRLD", snippet!("vmptrld [rsi]"), R::VMPTRLD),
        ("VMPTRST", snippet!("vmptrst [rsi]"), R::VMPTRST),
        ("VMREAD", snippet!("vmread rax, rbx"), R::VMREAD),
        ("VMWRITE", snippet!("vmwrite rax, rbx"), R::VMWRITE),
        ("INVEPT", snippet!("invept rax, [rsi]"), R::INVEPT),
        ("INVVPID", snippet!("invvpid rax, [rsi]"), R::INVVPID),
        ("VMCALL", snippet!("vmcall"), R::VMCALL),
    ]
}
