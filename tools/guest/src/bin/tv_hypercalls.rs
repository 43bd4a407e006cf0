//! Hypercalls of every number, from every mode and privilege level: only processes register PALs, and all get an answer.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::canary::{self, Vault};
use guest::memory::FREE;
use guest::pal::PAGE;
use guest::{Fault, Mode, Regs, check, check_eq, guest, run, snippet};
use trustvisor::status::Status;

guest!(main);

fn main() {
    let vault = Vault::open(0);
    for number in (0..300).chain([0x1000, 0x4c41_5001, 0x7fff_ffff, 0x8000_0000, u32::MAX]) {
        let is_of_pals = matches!(number, 3..=5 | 7..=13 | 15 | 19 | 20);
        for mode in [Mode::Kernel64, Mode::Compatibility32] {
            let expected = match number {
                255 => 0,
                // An admission that there is none of.
                17 => Status::BAD_PARAMETER.0,
                _ if is_of_pals => Status::NOT_IN_PAL.0,
                _ => Status::NOT_A_PROCESS.0,
            };
            check_eq!(hypercall(mode, number), Ok(expected), "hypercall {number} from {mode:?}");
        }
        for mode in [Mode::User64, Mode::CompatibilityUser32] {
            let status = hypercall(mode, number);
            let is_right = match number {
                255 => status == Ok(0),
                1 | 6 => status.is_ok_and(|status| (21..=37).contains(&status)),
                2 | 16 => status == Ok(Status::NOT_REGISTERED.0),
                14 => status == Ok(Status::FLAGS.0),
                18 => status == Ok(Status::SIGNED_HEADER.0) || status == Ok(Status::BAD_ADDRESS.0),
                17 => status == Ok(Status::NOT_ADMITTED.0),
                _ if is_of_pals => status == Ok(Status::NOT_IN_PAL.0),
                _ => status == Ok(Status::UNKNOWN_COMMAND.0),
            };
            check!(is_right, "hypercall {number} from {mode:?}: {status:x?}");
        }
    }
    // Without paging or in other code sizes there is no process.
    for number in [1, 2, 3, 6, 7, 13, 14, 255] {
        for mode in
            [Mode::Protected32, Mode::ProtectedUser32, Mode::Protected16, Mode::Real, Mode::Virtual8086]
        {
            let status = hypercall(mode, number);
            let is_right = match number {
                255 => status == Ok(0),
                3 | 7 | 13 => status == Ok(Status::NOT_IN_PAL.0),
                _ => status == Ok(Status::NOT_A_PROCESS.0),
            };
            // VMCALL is undefined in real and virtual-8086 mode.
            let is_undefined = matches!(mode, Mode::Real | Mode::Virtual8086) && status == Err(Fault::UD);
            check!(is_right || is_undefined, "hypercall {number} from {mode:?}: {status:x?}");
        }
    }
    check!(vault.knows(), "the PAL goes on");
    canary::is_nowhere("after all hypercalls");
    check_eq!(vault.unregister(), 0, "unregistering");
}

/// With lists that make no sense.
fn hypercall(mode: Mode, number: u32) -> Result<u32, Fault> {
    let place = FREE + 0x4_0000 + 8 * PAGE;
    let mut regs = Regs { rax: number.into(), rcx: place, rdx: place, rsi: place, rdi: 1, ..Regs::default() };
    let code = match mode {
        Mode::Kernel64 | Mode::User64 => snippet!("vmcall"),
        Mode::Protected16 | Mode::Real | Mode::Virtual8086 => snippet!(code16: "vmcall"),
        _ => snippet!(code32: "vmcall"),
    };
    run(mode, code, &mut regs).map(|()| regs.eax())
}
