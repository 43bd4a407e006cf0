//! x87 and vector registers: a PAL can neither use nor see them, and its caller has them back as they were.
//! model: corei7_skylake_x
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses below 4 GiB, selectors, and patterns of bytes"
)]

use guest::canary::{self, Vault};
use guest::cpu::{cpuid, read_cr4, write_cr4, xgetbv, xsetbv};
use guest::memory::{FREE, read64, write8, write64};
use guest::pal::prelude::*;
use guest::{Regs, run};
use trustvisor::call::Failure;

guest!(main);

const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
/// CR4: OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE.
const ALL_STATE: u64 = 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18;
/// x87, SSE, AVX, and the three parts of AVX-512.
const WANTED: u64 = 7 | 0xe0;
const UD: u64 = 6;
const NM: u64 = 7;
/// Areas of XSAVE: what is loaded, what that is when it is stored again, and what is stored behind a call.
const LOADED: u64 = FREE + 0x4_0000;
const BEFORE: u64 = FREE + 0x4_4000;
const AFTER: u64 = FREE + 0x4_8000;

fn main() {
    check_eq!(write_cr4(read_cr4() | ALL_STATE), Ok(()), "CR4 with all state");
    let features = cpuid(0xd, 0);
    let state = u64::from(features.eax) & WANTED;
    check!(state & 7 == 7, "a processor with AVX");
    check_eq!(xsetbv(0, state), Ok(()), "XCR0");
    let bytes = u64::from(cpuid(0xd, 0).ebx);
    fill(bytes, state);
    exchange(snippet!("xrstor [rdi]"), LOADED);
    exchange(snippet!("xsave [rdi]"), BEFORE);
    let loaded = (0..bytes).step_by(8).filter(|offset| read64(BEFORE + offset) != Ok(0)).count();
    check!(loaded > 512 / 8, "{loaded} words of state that are not zero");

    let vault = Vault::open(0);
    check!(vault.holds(1000), "a call");
    unchanged(bytes, "a call");
    for (name, code, vector) in used() {
        faults(name, code, vector);
        unchanged(bytes, name);
    }
    check_eq!((read_cr4() & ALL_STATE, xgetbv(0)), (ALL_STATE, Ok(state)), "CR4 and XCR0 as before");
    check!(vault.knows(), "the PAL goes on");
    check_eq!(vault.unregister(), 0, "unregistering");
    canary::is_nowhere("after all");
}

/// A pattern in every register.
fn fill(bytes: u64, state: u64) {
    for offset in (0..bytes).step_by(8) {
        let _ = write64(LOADED + offset, 0);
        let _ = write64(BEFORE + offset, 0);
        let _ = write64(AFTER + offset, 0);
    }
    // Control word and MXCSR as FNINIT and reset leave them; ST0 to ST7, ten bytes each; XMM0 to XMM15.
    let _ = write64(LOADED, 0x037f);
    let _ = write64(LOADED + 24, 0x1f80);
    let stack = (0..8).flat_map(|register| (0..10).map(move |byte| 32 + 16 * register + byte));
    for offset in stack.chain(160..416) {
        let _ = write8(LOADED + offset, (offset * 7 + 1) as u8);
    }
    let _ = write64(LOADED + 512, state);
    for component in 2..8_u32 {
        if state >> component & 1 != 0 {
            let place = cpuid(0xd, component);
            for offset in 0..u64::from(place.eax) {
                let _ = write8(LOADED + u64::from(place.ebx) + offset, (offset * 5 + 3) as u8);
            }
        }
    }
}

fn exchange(code: Snippet, area: u64) {
    let mut regs = Regs { rdi: area, rax: WANTED, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "moving state");
}

fn unchanged(bytes: u64, what: &str) {
    exchange(snippet!("xsave [rdi]"), AFTER);
    let changed = (0..bytes).step_by(8).find(|offset| read64(AFTER + offset) != read64(BEFORE + offset));
    check_eq!(changed, None, "where the state differs behind {what}");
}

fn faults(name: &str, code: Snippet, vector: u64) {
    let pal = Pal::place(Mode::User64, 1, code);
    check_eq!(pal.register(&INTEGERS), 0, "{name}: registering");
    let data = pal.entry() + PAGE;
    let seen =
        pal.call([0, data, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.eax(), regs.rdx, regs.rflags & CF));
    check_eq!(seen, Ok((Failure::FAULTED.0, vector, CF)), "{name} in a PAL");
    check_eq!(pal.unregister(), 0, "{name}: unregistering");
}

fn used() -> [(&'static str, Snippet, u64); 17] {
    [
        ("FNINIT", snippet!("fninit"), NM),
        ("FWAIT", snippet!("fwait"), NM),
        ("FNSTSW", snippet!("fnstsw ax"), NM),
        ("EMMS", snippet!("emms"), UD),
        ("a read of MM0", snippet!("movq rax, mm0"), UD),
        ("a read of XMM0", snippet!("movups [rsi], xmm0"), UD),
        ("a write of XMM15", snippet!("xorps xmm15, xmm15"), UD),
        ("LDMXCSR", snippet!("ldmxcsr [rsi]"), UD),
        ("STMXCSR", snippet!("stmxcsr [rsi]"), UD),
        ("a read of YMM0", snippet!("vmovups [rsi], ymm0"), UD),
        ("VZEROALL", snippet!("vzeroall"), UD),
        ("a read of ZMM0", snippet!("vmovups [rsi], zmm0"), UD),
        ("a read of K1", snippet!("kmovw eax, k1"), UD),
        ("XSAVE", snippet!("mov eax, 7", "xor edx, edx", "xsave [rsi]"), UD),
        ("XRSTOR", snippet!("mov eax, 7", "xor edx, edx", "xrstor [rsi]"), UD),
        ("FXRSTOR", snippet!("fxrstor [rsi]"), NM),
        ("WRFSBASE", snippet!("wrfsbase rsi"), UD),
    ]
}
