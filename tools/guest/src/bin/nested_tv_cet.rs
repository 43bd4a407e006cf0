//! A process of a guest's guest with a shadow stack, or with tracked branches, comes back from a PAL as from any call.
//! model: sapphire_rapids
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr_existing, read_cr0, read_cr4, write_cr0, write_cr4, wrmsr_existing};
use guest::memory::{FREE, read64, write64};
use guest::needs;
use guest::pal;
use guest::pal::prelude::*;
use guest::space::{BYTES, Space, USER, window};
use guest::vmx::Ept;
use guest::vmx::prelude::*;
use x86::msr::Msr;
use x86::vmx::controls::{EntryControls, ExitControls};

guest!(main);

const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
const SHADOW_STACK: u64 = 1;
const BRANCH_TRACKING: u64 = 4;
const IA32_PL3_SSP: Msr = Msr(0x6a7);
/// Accessed, dirty and not writable: a page of a shadow stack.
const SHADOW_PAGE: u64 = USER | 1 << 5 | 1 << 6;
const TABLES: u64 = FREE + 0x40_0000;
const PAGE: u64 = TABLES + BYTES;
const TOP: u64 = window(0) + 0x800;

fn main() {
    needs!(cpuid(7, 0).ecx & 1 << 7 != 0 && cpuid(7, 0).edx & 1 << 20 != 0, "control-flow enforcement");
    check_eq!(write_cr0(read_cr0() | 1 << 16), Ok(()), "CR0.WP");
    check_eq!(write_cr4(read_cr4() | 1 << 23), Ok(()), "CR4.CET");
    enter_operation();
    let ept = Ept::identity();
    let mut nested = Guest::new(calls);
    passes(&mut nested, "without EPT");
    nested.use_ept(&ept);
    nested.call(calls);
    passes(&mut nested, "with EPT");
    nested.write(
        vmcs::ENTRY_CONTROLS,
        nested.read(vmcs::ENTRY_CONTROLS) | EntryControls::LOAD_CET_STATE.bits(),
    );
    check!(nested.add_exit(ExitControls::LOAD_CET_STATE), "the processor can load the state");
    nested.call(calls);
    passes(&mut nested, "under a hypervisor that loads the state");
    leave_operation();
}

/// One exit: the end.
fn passes(nested: &mut Guest, what: &str) {
    pal::bear_offset(true);
    let reason = nested.run();
    pal::bear_offset(false);
    check!(reason == ExitReason::VMCALL && nested.has_ended(), "{what}: the first exit is {}", reason.name());
}

/// L2: calls a PAL as each kind of process.
extern "C" fn calls() {
    let pal = Pal::place(Mode::User64, 0, snippet!("lea rax, [rdi + rsi]", "ret"));
    let space = Space::new(TABLES);
    space.map(0, PAGE, SHADOW_PAGE);
    space.within(|| {
        check_eq!(pal.register(&INTEGERS), 0, "registering");
        for features in [BRANCH_TRACKING, SHADOW_STACK, SHADOW_STACK | BRANCH_TRACKING] {
            check_eq!(write64(PAGE + 0x7f8, 0), Ok(()), "write");
            wrmsr_existing(Msr::IA32_U_CET, features);
            wrmsr_existing(IA32_PL3_SSP, TOP);
            let result = pal.call([40, 2, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.rax, regs.rflags & CF));
            let ssp = rdmsr_existing(IA32_PL3_SSP);
            wrmsr_existing(Msr::IA32_U_CET, 0);
            check_eq!(result, Ok((42, 0)), "a call with features {features:#x}");
            check_eq!(ssp, TOP, "the shadow stack behind a call with features {features:#x}");
            let is_pushed = read64(PAGE + 0x7f8) != Ok(0);
            check_eq!(is_pushed, features & SHADOW_STACK != 0, "the call was on the shadow stack");
        }
        check_eq!(pal.unregister(), 0, "unregistering");
    });
}
