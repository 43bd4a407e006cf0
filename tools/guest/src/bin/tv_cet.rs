//! A process with a shadow stack, and one whose indirect branches are tracked, come back from a PAL as from any call.
//! model: sapphire_rapids
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr, read_cr0, read_cr4, write_cr0, write_cr4, wrmsr};
use guest::memory::{FREE, read64, write64};
use guest::needs;
use guest::pal::prelude::*;
use guest::space::{BYTES, Space, USER, window};
use x86::msr::Msr;

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
const SUM: [u64; 10] = [40, 2, 0, 0, 0, 0, 0, 0, 0, 0];

fn main() {
    needs!(cpuid(7, 0).ecx & 1 << 7 != 0 && cpuid(7, 0).edx & 1 << 20 != 0, "control-flow enforcement");
    let pal = Pal::place(Mode::User64, 0, snippet!("lea rax, [rdi + rsi]", "ret"));
    let space = Space::new(TABLES);
    space.map(0, PAGE, SHADOW_PAGE);
    check_eq!(write_cr0(read_cr0() | 1 << 16), Ok(()), "CR0.WP");
    check_eq!(write_cr4(read_cr4() | 1 << 23), Ok(()), "CR4.CET");
    space.within(|| {
        check_eq!(pal.register(&INTEGERS), 0, "registering");
        for features in [BRANCH_TRACKING, SHADOW_STACK, SHADOW_STACK | BRANCH_TRACKING] {
            for arguments in [SUM, [1; 10]] {
                check_eq!(write64(PAGE + 0x7f8, 0), Ok(()), "write");
                check_eq!(wrmsr(Msr::IA32_U_CET, features), Ok(()), "IA32_U_CET");
                check_eq!(wrmsr(IA32_PL3_SSP, TOP), Ok(()), "IA32_PL3_SSP");
                let result = pal.call(arguments).map(|regs| (regs.rax, regs.rflags & CF));
                let ssp = rdmsr(IA32_PL3_SSP);
                check_eq!(wrmsr(Msr::IA32_U_CET, 0), Ok(()), "IA32_U_CET");
                check_eq!(result, Ok((arguments[0] + arguments[1], 0)), "a call with features {features:#x}");
                check_eq!(ssp, Ok(TOP), "the shadow stack behind a call with features {features:#x}");
                let is_pushed = read64(PAGE + 0x7f8) != Ok(0);
                check_eq!(is_pushed, features & SHADOW_STACK != 0, "the call was on the shadow stack");
            }
        }
        check_eq!(pal.unregister(), 0, "unregistering");
    });
}
