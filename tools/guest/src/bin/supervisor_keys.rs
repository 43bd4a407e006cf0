//! Protection keys of supervisor pages bind string port instructions too, whoever carries them out.
//! model: sapphire_rapids
#![no_std]
#![no_main]

use guest::cpu::{cpuid, read_cr0, read_cr4, write_cr0, write_cr4, wrmsr};
use guest::memory::{FREE, read64, write64};
use guest::space::{BYTES, Space, WRITABLE, window};
use guest::{Fault, Mode, Regs, check_eq, guest, needs, run, snippet};
use x86::msr::Msr;

guest!(main);

const KEY_1: u64 = 1 << 59;
const DATA: u64 = FREE + BYTES;

fn main() {
    needs!(cpuid(7, 0).ecx & 1 << 31 != 0, "keys for supervisor pages");
    let space = Space::new(FREE);
    space.map(0, DATA, WRITABLE | KEY_1);
    check_eq!(write64(DATA, 0x5555), Ok(()), "write");
    check_eq!(write_cr0(read_cr0() | 1 << 16), Ok(()), "CR0.WP");
    check_eq!(write_cr4(read_cr4() | 1 << 24), Ok(()), "CR4.PKS");
    space.within(|| {
        // Ports of which one is carried out by the processor, the other by the hypervisor.
        for (pkrs, port) in [(8, 0x80), (8, 0x64), (4, 0x80), (4, 0x64)] {
            check_eq!(wrmsr(Msr(0x6e1), pkrs), Ok(()), "IA32_PKRS");
            let mut regs = Regs { rdx: port, rdi: window(0), rsi: window(0), ..Regs::default() };
            let seen = run(Mode::Kernel64, snippet!("insb"), &mut regs);
            check_eq!(
                seen,
                Err(Fault { vector: 14, error_code: 0x23 }),
                "INSB of port {port:#x} with IA32_PKRS = {pkrs}"
            );
        }
        check_eq!(wrmsr(Msr(0x6e1), 4), Ok(()), "IA32_PKRS");
        let mut regs = Regs { rdx: 0x92, rsi: window(0), ..Regs::default() };
        let seen = run(Mode::Kernel64, snippet!("outsb"), &mut regs);
        check_eq!(seen, Err(Fault { vector: 14, error_code: 0x21 }), "OUTSB of port 92H with IA32_PKRS = 4");
        check_eq!(wrmsr(Msr(0x6e1), 0), Ok(()), "IA32_PKRS");
    });
    check_eq!(read64(DATA), Ok(0x5555), "the page is as it was");
}
