//! String port instructions: each width, direction and address size, repeated, across pages, faulting half-way.
#![no_std]
#![no_main]

use guest::cpu::{in8, in16, in32, out8, out32};
use guest::memory::{FREE, read32, read64, write8, write64};
use guest::run::USER_BASE;
use guest::{Fault, Mode, Regs, Snippet, acpi, check, check_eq, guest, run, snippet};

guest!(main);

/// COM1's scratch register: a byte that keeps what it is given.
const SCRATCH: u16 = 0x3ff;
const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;
const KEYBOARD_STATUS: u16 = 0x64;
const DIRECTION_FLAG: u64 = 1 << 10;
/// A page behind which nothing is mapped: the last of the first 4 GiB.
const LAST_PAGE: u64 = 0xffff_f000;

fn main() {
    widths();
    repetition();
    intercepted_ports();
    address_sizes();
    page_crossing();
    privilege();
    disk_identity();
}

fn string(code: Snippet, port: u16, rsi: u64, rdi: u64, rcx: u64, rflags: u64) -> (Result<(), Fault>, Regs) {
    let mut regs = Regs { rdx: port.into(), rsi, rdi, rcx, rflags, rax: 0x55, ..Regs::default() };
    let result = run(Mode::Kernel64, code, &mut regs);
    check_eq!(regs.rax, 0x55, "RAX after a string instruction");
    (result, regs)
}

fn widths() {
    check_eq!(write64(FREE, 0x8000_0004), Ok(()), "write");
    let (result, regs) = string(snippet!("outsd"), PCI_ADDRESS, FREE, 0, 0, 0);
    check_eq!((result, regs.rsi), (Ok(()), FREE + 4), "OUTSD");
    check_eq!(in32(PCI_ADDRESS), 0x8000_0004, "OUTSD reached the PCI address register");
    out32(PCI_ADDRESS, 0x8000_0000);
    let identity = in32(PCI_DATA);
    check!(identity != 0 && identity != !0, "host bridge {identity:#x}");
    for (what, code, size) in
        [("INSB", snippet!("insb"), 1), ("INSW", snippet!("insw"), 2), ("INSD", snippet!("insd"), 4)]
    {
        check_eq!(write64(FREE, !0), Ok(()), "write");
        let (result, regs) = string(code, PCI_DATA, 0, FREE, 0, 0);
        check_eq!((result, regs.rdi), (Ok(()), FREE + size), "{what}");
        let mask = (1_u64 << (8 * size)) - 1;
        check_eq!(read64(FREE), Ok(!mask | u64::from(identity) & mask), "{what} stores {size} bytes");
    }
    let (result, regs) = string(snippet!("insb"), PCI_DATA, 0, FREE + 9, 0, DIRECTION_FLAG);
    check_eq!((result, regs.rdi), (Ok(()), FREE + 8), "INSB downwards");
}

fn repetition() {
    for (index, byte) in b"portstring".iter().enumerate() {
        check_eq!(write8(FREE + index as u64, *byte), Ok(()), "write");
    }
    let (result, regs) = string(snippet!("rep outsb"), SCRATCH, FREE, 0, 10, 0);
    check_eq!((result, regs.rsi, regs.rcx), (Ok(()), FREE + 10, 0), "REP OUTSB");
    check_eq!(in8(SCRATCH), b'g', "last byte of REP OUTSB");
    let (result, regs) = string(snippet!("rep outsb"), SCRATCH, FREE + 9, 0, 10, DIRECTION_FLAG);
    check_eq!((result, regs.rsi, regs.rcx), (Ok(()), FREE - 1, 0), "REP OUTSB downwards");
    check_eq!(in8(SCRATCH), b'p', "last byte of REP OUTSB downwards");
    let (result, regs) = string(snippet!("rep insb"), SCRATCH, 0, FREE, 8, 0);
    check_eq!((result, regs.rdi, regs.rcx), (Ok(()), FREE + 8, 0), "REP INSB");
    check_eq!(read64(FREE), Ok(u64::from_le_bytes([b'p'; 8])), "bytes of REP INSB");
    for code in [snippet!("rep insb"), snippet!("rep outsd")] {
        let (result, regs) = string(code, SCRATCH, FREE, FREE, 0, 0);
        check_eq!((result, regs.rsi, regs.rdi, regs.rcx), (Ok(()), FREE, FREE, 0), "REP of nothing");
    }
}

/// Ports that a hypervisor watches, because a reset goes through them.
fn intercepted_ports() {
    let (result, regs) = string(snippet!("rep insb"), KEYBOARD_STATUS, 0, FREE, 3, 0);
    check_eq!((result, regs.rdi, regs.rcx), (Ok(()), FREE + 3, 0), "REP INSB at the keyboard controller");
    let status = u32::from(in8(KEYBOARD_STATUS)) * 0x01_0101;
    check_eq!(read32(FREE).map(|seen| seen & 0xff_ffff), Ok(status), "keyboard status, three times");
    // Command 20h reads the controller's command byte, which comes out at port 60h.
    check_eq!(write8(FREE, 0x20), Ok(()), "write");
    let (result, regs) = string(snippet!("outsb"), KEYBOARD_STATUS, FREE, 0, 0, 0);
    check_eq!((result, regs.rsi), (Ok(()), FREE + 1), "OUTSB at the keyboard controller");
    check_eq!(in8(KEYBOARD_STATUS) & 1, 1, "the keyboard controller answers");
    let command_byte = in8(0x60);
    out8(KEYBOARD_STATUS, 0x20);
    check_eq!(in8(0x60), command_byte, "the keyboard controller answers OUT and OUTSB alike");
    // Port CF9h is one of the four of the PCI address register.
    check_eq!(write64(FREE, 0x8000_0008_8000_0000), Ok(()), "write");
    let (result, regs) = string(snippet!("rep outsd"), PCI_ADDRESS, FREE, 0, 2, 0);
    check_eq!((result, regs.rsi), (Ok(()), FREE + 8), "REP OUTSD at the PCI address register");
    check_eq!(in32(PCI_ADDRESS), 0x8000_0008, "the PCI address register keeps the last");
    if let Some((port, _)) = acpi::power_off_register() {
        let (result, regs) = string(snippet!("insw"), port, 0, FREE, 0, 0);
        check_eq!((result, regs.rdi), (Ok(()), FREE + 2), "INSW at the power control register");
        let value = in16(port);
        check_eq!(read32(FREE).map(|seen| seen & 0xffff), Ok(value.into()), "power control register");
        let (result, _) = string(snippet!("outsw"), port, FREE, 0, 0, 0);
        check_eq!((result, in16(port)), (Ok(()), value), "OUTSW at the power control register");
    }
}

fn address_sizes() {
    for port in [SCRATCH, KEYBOARD_STATUS] {
        let seen = in8(port);
        // The address-size prefix: upper halves of RDI and RCX do not count and the result has none.
        let high = 0xffff_ffff_0000_0000;
        let (result, regs) = string(snippet!("addr32 rep insb"), port, 0, high | FREE, high | 2, 0);
        check_eq!((result, regs.rdi, regs.rcx & 0xffff_ffff), (Ok(()), FREE + 2, 0), "32-bit addresses");
        check_eq!(read32(FREE).map(|word| word & 0xffff), Ok(u32::from(seen) * 0x101), "32-bit addresses");
        for mode in [Mode::Real, Mode::Protected16] {
            let code = snippet!(code16: "rep insb");
            let mut regs = Regs { rdx: port.into(), rdi: 0x1234_0600, rcx: 0x5678_0002, ..Regs::default() };
            check_eq!(run(mode, code, &mut regs), Ok(()), "INSB in {mode:?}");
            check_eq!((regs.rdi, regs.rcx), (0x1234_0602, 0x5678_0000), "INSB in {mode:?}");
            check_eq!(
                read32(0x600).map(|word| word & 0xffff),
                Ok(u32::from(seen) * 0x101),
                "INSB in {mode:?}"
            );
        }
    }
    // DI wraps within its segment; ES is FFFFh, so that the first two bytes land behind 1 MiB, the others in ROM.
    check_eq!(write64(0x10_ffe8, 0), Ok(()), "write");
    check_eq!(write64(0x10_fff0, 0), Ok(()), "write");
    let code = snippet!(code16: "push 0xffff", "pop es", "rep insb", "push 0", "pop es");
    let mut regs = Regs { rdx: SCRATCH.into(), rdi: 0xfffe, rcx: 4, ..Regs::default() };
    check_eq!(run(Mode::Real, code, &mut regs), Ok(()), "INSB that wraps DI");
    check_eq!((regs.rdi, regs.rcx), (2, 0), "INSB that wraps DI");
    let scratch = u64::from(in8(SCRATCH));
    check_eq!(read64(0x10_ffe8), Ok(scratch << 48 | scratch << 56), "INSB that wraps DI");
    check_eq!(read64(0x10_fff0), Ok(0), "INSB that wraps DI stays in its segment");
    let cell = 0x3c_u64;
    let code = snippet!(
        "push rdx",
        "mov rax, rsi",
        "mov rdx, rax",
        "shr rdx, 32",
        "mov ecx, 0xc0000100",
        "wrmsr",
        "pop rdx",
        "xor esi, esi",
        ".byte 0x64",
        "outsb"
    );
    let mut regs = Regs { rdx: SCRATCH.into(), rsi: core::ptr::from_ref(&cell) as u64, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "OUTSB by FS");
    check_eq!(in8(SCRATCH), 0x3c, "OUTSB by FS");
}

fn page_crossing() {
    out32(PCI_ADDRESS, 0x8000_0000);
    let identity = in32(PCI_DATA);
    check_eq!(write64(FREE + 0x1f_fffc, 0), Ok(()), "write");
    let (result, _) = string(snippet!("insd"), PCI_DATA, 0, FREE + 0x1f_fffe, 0, 0);
    check_eq!((result, read32(FREE + 0x1f_fffe)), (Ok(()), Ok(identity)), "INSD across a page");
    let fault = Err(Fault { vector: 14, error_code: 2 });
    for port in [PCI_DATA, KEYBOARD_STATUS] {
        // Bytes at the very end of memory go to the firmware's ROM, which ignores them.
        let (result, regs) = string(snippet!("rep insb"), port, 0, LAST_PAGE + 0xffd, 5, 0);
        check_eq!(result, fault, "INSB that leaves the mapped memory");
        check_eq!((regs.rdi, regs.rcx, regs.cr2), (1 << 32, 2, 1 << 32), "INSB stops at the bad byte");
    }
    let (result, regs) = string(snippet!("insb"), KEYBOARD_STATUS, 0, 0x8000_0000_0000_0000, 0, 0);
    check_eq!((result, regs.rip), (Err(Fault::GP), 0), "INSB at a non-canonical address");
    let read_fault = Err(Fault { vector: 14, error_code: 0 });
    for port in [SCRATCH, KEYBOARD_STATUS] {
        let (result, regs) = string(snippet!("outsb"), port, 1 << 32, 0, 0, 0);
        check_eq!((result, regs.rsi), (read_fault, 1 << 32), "OUTSB from unmapped memory");
    }
}

fn privilege() {
    for port in [0x80, KEYBOARD_STATUS, 0xcf9] {
        for code in [snippet!("insb"), snippet!("rep outsb"), snippet!("in al, dx"), snippet!("out dx, al")] {
            let mut regs = Regs { rdx: port.into(), rcx: 1, ..Regs::default() };
            regs.rsi = USER_BASE + FREE;
            regs.rdi = regs.rsi;
            check_eq!(run(Mode::User64, code, &mut regs), Err(Fault::GP), "port {port:#x} at CPL 3");
            check_eq!((regs.rip, regs.rcx), (0, 1), "port {port:#x} at CPL 3");
        }
    }
    // With IOPL 3 the string's memory is still that of CPL 3.
    let mut regs = Regs { rdx: KEYBOARD_STATUS.into(), rdi: FREE, rflags: 3 << 12, ..Regs::default() };
    let result = run(Mode::User64, snippet!("insb"), &mut regs);
    check_eq!(result, Err(Fault { vector: 14, error_code: 7 }), "INSB at CPL 3 to a supervisor page");
    regs = Regs { rdx: KEYBOARD_STATUS.into(), rdi: USER_BASE + FREE, rflags: 3 << 12, ..Regs::default() };
    check_eq!(run(Mode::User64, snippet!("insb"), &mut regs), Ok(()), "INSB at CPL 3 with IOPL 3");
}

/// ATA, "IDENTIFY DEVICE": 256 words from the data port.
fn disk_identity() {
    out8(0x1f6, if guest::cpu::under_hypervisor() { 0xf0 } else { 0xe0 });
    out8(0x1f7, 0xec);
    let ready = guest::cpu::wait_until(guest::smp::PATIENCE, || in8(0x1f7) & 0x88 == 0x08);
    check!(ready, "the disk answers");
    let (result, regs) = string(snippet!("rep insw"), 0x1f0, 0, FREE + 0xf80, 256, 0);
    check_eq!((result, regs.rdi, regs.rcx), (Ok(()), FREE + 0xf80 + 512, 0), "REP INSW of 256 words");
    check_eq!(in8(0x1f7) & 0x08, 0, "the disk has no more");
    // Word 1 is the number of cylinders, word 3 that of heads.
    check_eq!(read32(FREE + 0xf80 + 6).map(|word| word & 0xffff), Ok(16), "heads of the disk");
}
