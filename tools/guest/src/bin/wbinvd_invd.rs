//! Cache instructions: WBINVD and INVD go on behind themselves and keep memory; CPL 3 may use neither.
#![no_std]
#![no_main]

use guest::memory::{FREE, read64, write64};
use guest::{Fault, Mode, Regs, Snippet, check_eq, guest, run, snippet};

guest!(main);

fn main() {
    // INVD may drop what was not yet written back, so everything is written back before.
    let codes = [
        ("WBINVD", snippet!("wbinvd", "inc eax"), snippet!(code16: "wbinvd", "inc ax")),
        ("INVD", snippet!("wbinvd", "invd", "inc eax"), snippet!(code16: "wbinvd", "invd", "inc ax")),
    ];
    for (name, code64, code16) in codes {
        for line in 0..64 {
            check_eq!(write64(FREE + line * 4096, line ^ 0x5a5a), Ok(()), "write");
        }
        for (mode, code) in [(Mode::Kernel64, code64), (Mode::Protected16, code16), (Mode::Real, code16)] {
            goes_on(name, mode, code);
        }
        for line in 0..64 {
            check_eq!(read64(FREE + line * 4096), Ok(line ^ 0x5a5a), "memory after {name}");
        }
    }
    for (name, code) in [("WBINVD", snippet!("wbinvd")), ("INVD", snippet!("invd"))] {
        check_eq!(run(Mode::User64, code, &mut Regs::default()), Err(Fault::GP), "{name} at CPL 3");
    }
    for code in [snippet!(code16: "wbinvd"), snippet!(code16: "invd")] {
        let result = run(Mode::Virtual8086, code, &mut Regs::default());
        check_eq!(result, Err(Fault::GP), "cache instruction in virtual-8086 mode");
    }
}

fn goes_on(name: &str, mode: Mode, code: Snippet) {
    let mut regs = Regs { rax: 7, rbx: 1, rcx: 2, rdx: 3, ..Regs::default() };
    check_eq!(run(mode, code, &mut regs), Ok(()), "{name} in {mode:?}");
    check_eq!([regs.rax, regs.rbx, regs.rcx, regs.rdx], [8, 1, 2, 3], "registers after {name} in {mode:?}");
}
