//! Emulation against intercepts: what the hypervisor does in a guest's guest's stead, that one's tables and controls bound.
//! hypapp: intercept
//! bare: no
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, instruction, read, trial, write};
use guest::{Fault, Mode, Regs, Snippet, snippet};
use x86::vmx::controls::PrimaryControls;

guest!(main);

/// The keyboard controller's command port, writes to which the hypervisor looks at.
const CONTROLLER: u64 = 0x64;
/// A port of the hypapp's.
const HYPAPP: u64 = 0x1230;
const PAGE: u64 = 0x3000_1000;
const RIGHTS: u64 = 7;
const READ_ONLY: u64 = 1;
const UNMAPPED: u64 = 0x7fff_ffff_f000;
const NUMBER: u64 = 6;

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    strings(&mut nested, &mut ept);
    ports_of_l1(&mut nested);
    exceptions(&mut nested);
    leave_operation();
}

fn begin(nested: &mut Guest, code: Snippet, regs: Regs) -> ExitReason {
    trial::begin(nested, Mode::Kernel64, code, regs);
    nested.run()
}

/// INS from a port of the hypervisor's to a page that L1's tables do not give: an EPT violation of L1's, and the
/// instruction goes on where it was.
fn strings(nested: &mut Guest, ept: &mut Ept) {
    let page = allocate();
    let code = snippet!("rep insb");
    let regs = Regs { rdi: PAGE + 0xffe, rdx: CONTROLLER, rcx: NUMBER, ..Regs::default() };
    ept.map(PAGE, page, RIGHTS);
    for rights in [0, READ_ONLY] {
        let next = ept.entry(PAGE + 0x1000, 1);
        write(next, if rights == 0 { 0 } else { (page + 0x1000) | 6 << 3 | rights });
        check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT");
        check_eq!(begin(nested, code, regs), ExitReason::EPT_VIOLATION, "INS over the edge, rights {rights}");
        check_eq!(nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), PAGE + 0x1000, "where it left");
        let qualification = nested.read(vmcs::EXIT_QUALIFICATION);
        check_eq!(qualification & 7, 2, "the access");
        check_eq!(qualification >> 3 & 7, rights, "rights of the page");
        check_eq!(nested.registers.rcx, NUMBER - 2, "what was left to do");
        check_eq!(nested.registers.rdi, PAGE + 0x1000, "where it goes on");
        ept.map(PAGE + 0x1000, page, RIGHTS);
        check_eq!(nested.run(), ExitReason::VMCALL, "the rest of it");
        let (result, after) = trial::result();
        check_eq!((result, after.rcx, after.rdi), (Ok(()), 0, PAGE + 0x1004), "its end");
    }
    check_eq!(read(page) >> 32, 0, "the page beyond what was written");
}

/// Ports that the hypervisor, or its hypapp, wants too are L1's first.
fn ports_of_l1(nested: &mut Guest) {
    let bitmaps = [allocate(), allocate()];
    nested.write(vmcs::IO_BITMAP_A, bitmaps[0]);
    nested.write(vmcs::IO_BITMAP_B, bitmaps[1]);
    check!(nested.add_primary(PrimaryControls::USE_IO_BITMAPS), "I/O bitmaps");
    for port in [CONTROLLER, HYPAPP] {
        let place = bitmaps[0] + port / 64 * 8;
        for is_wanted in [true, false] {
            write(place, u64::from(is_wanted) << (port % 64));
            let reason = begin(nested, snippet!("in al, dx"), Regs { rdx: port, ..Regs::default() });
            let expected = if is_wanted { ExitReason::IO_INSTRUCTION } else { ExitReason::VMCALL };
            check_eq!(reason, expected, "port {port:#x}, wanted {is_wanted}");
        }
    }
    nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_IO_BITMAPS.bits());
}

/// A fault of an instruction that the hypervisor carries out is L1's where that intercepts it, else its guest's.
fn exceptions(nested: &mut Guest) {
    let code = snippet!("insb");
    let regs = Regs { rdi: UNMAPPED, rdx: CONTROLLER, ..Regs::default() };
    check_eq!(begin(nested, code, regs), ExitReason::VMCALL, "INS to no page");
    check_eq!(trial::result().0, Err(Fault { vector: 14, error_code: 2 }), "INS to no page");
    nested.write(vmcs::EXCEPTION_BITMAP, 1 << 14);
    check_eq!(begin(nested, code, regs), ExitReason::EXCEPTION_OR_NMI, "INS to no page that L1 looks after");
    check_eq!(nested.read(vmcs::EXIT_QUALIFICATION), UNMAPPED, "its address");
    check_eq!(nested.read(vmcs::EXIT_INTERRUPTION_ERROR_CODE), 2, "its error code");
    nested.write(vmcs::EXCEPTION_BITMAP, 0);
}
