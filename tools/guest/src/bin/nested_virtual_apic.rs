//! APIC virtualization for a guest's guest: TPR shadow, APIC-access page, registers, interrupts, posted interrupts.
//! model: corei7_skylake_x
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::apic;
use guest::cpu::{read_cr8, write_cr8};
use guest::trap::{Frame, handle};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, allocate, read, trial, write};
use guest::{Fault, Mode, Regs, Snippet, snippet};
use x86::vmx::controls::{ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};

guest!(main);

const DONE: ExitReason = ExitReason::VMCALL;
const APIC_ACCESS: ExitReason = ExitReason(44);
const VIRTUALIZED_EOI: ExitReason = ExitReason(45);
const APIC_WRITE: ExitReason = ExitReason(56);
const ID: u64 = 0x20;
const TPR: u64 = 0x80;
const EOI: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const ISR: u64 = 0x100;
const IRR: u64 = 0x200;
const ICR: u64 = 0x300;
const VECTOR: u8 = 0x51;
const POSTED: u8 = 0x92;
const NOTIFICATION: u8 = 0xf2;
const IF: u64 = 1 << 9;

static TAKEN: AtomicU64 = AtomicU64::new(0);

struct Virtual {
    nested: Guest,
    /// The virtual-APIC page.
    registers: u64,
    /// The APIC-access page.
    access: u64,
}

fn main() {
    enter_operation();
    let mut ept = Ept::identity();
    let [registers, access] = [allocate(), allocate()];
    ept.map(access, access, 7);
    let mut nested = Guest::new(trial::perform);
    nested.use_ept(&ept);
    check!(nested.add_primary(PrimaryControls::USE_TPR_SHADOW), "TPR shadow");
    nested.write(vmcs::VIRTUAL_APIC_ADDRESS, registers);
    let mut apic = Virtual { nested, registers, access };
    apic.tpr_shadow();
    apic.x2apic();
    apic.accesses();
    apic.registers();
    apic.interrupts();
    apic.posted_interrupts();
    leave_operation();
}

impl Virtual {
    fn run(&mut self, code: Snippet, regs: Regs) -> (ExitReason, u64) {
        trial::begin(&mut self.nested, Mode::Kernel64, code, regs);
        let reason = self.nested.run();
        if reason != DONE {
            return (reason, self.nested.read(vmcs::EXIT_QUALIFICATION));
        }
        let (result, regs) = trial::result();
        check_eq!(result, Ok::<(), Fault>(()), "the guest's code");
        (reason, regs.rax)
    }

    fn load(&mut self, offset: u64) -> (ExitReason, u64) {
        self.run(snippet!("mov eax, [rdi]"), Regs { rdi: self.access + offset, ..Regs::default() })
    }

    fn store(&mut self, offset: u64, value: u64) -> (ExitReason, u64) {
        let regs = Regs { rdi: self.access + offset, rsi: value, ..Regs::default() };
        self.run(snippet!("mov [rdi], esi"), regs)
    }

    fn register(&self, offset: u64) -> u64 {
        read(self.registers + (offset & !7)) >> (8 * (offset & 7)) & 0xffff_ffff
    }

    /// MOV to and from CR8 reach the page; below the threshold there is an exit.
    fn tpr_shadow(&mut self) {
        check_eq!(write_cr8(2), Ok(()), "CR8");
        let code = snippet!("mov cr8, rax", "xor eax, eax", "mov rax, cr8");
        check_eq!(self.run(code, Regs { rax: 5, ..Regs::default() }), (DONE, 5), "CR8 of the guest");
        check_eq!(self.register(TPR), 0x50, "virtual TPR");
        check_eq!(read_cr8(), 2, "CR8 of its hypervisor");
        self.nested.write(vmcs::TPR_THRESHOLD, 4);
        for (value, expected) in [(4, DONE), (3, ExitReason::TPR_BELOW_THRESHOLD)] {
            let regs = Regs { rax: value, ..Regs::default() };
            check_eq!(self.run(snippet!("mov cr8, rax"), regs).0, expected, "CR8 {value}, threshold 4");
            check_eq!(self.register(TPR), value << 4, "virtual TPR");
        }
        self.nested.write(vmcs::TPR_THRESHOLD, 0);
        check_eq!(write_cr8(0), Ok(()), "CR8");
    }

    /// The TPR as an MSR.
    fn x2apic(&mut self) {
        let mode = SecondaryControls::VIRTUALIZE_X2APIC_MODE;
        check!(self.nested.add_secondary(mode), "x2APIC mode");
        let regs = Regs { rcx: 0x808, rax: 0x60, ..Regs::default() };
        let code = snippet!("wrmsr", "xor eax, eax", "rdmsr");
        check_eq!(self.run(code, regs), (DONE, 0x60), "IA32_X2APIC_TPR of the guest");
        check_eq!((self.register(TPR), read_cr8()), (0x60, 0), "virtual TPR, CR8 of its hypervisor");
        self.nested.remove(vmcs::SECONDARY_CONTROLS, mode.bits());
    }

    /// Accesses to the page exit with offset and kind; those to the TPR are virtualized.
    fn accesses(&mut self) {
        self.nested.write(vmcs::APIC_ACCESS_ADDRESS, self.access);
        check!(self.nested.add_secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES), "APIC accesses");
        check_eq!(self.load(ID), (APIC_ACCESS, ID), "read of the ID");
        check_eq!(self.store(SPURIOUS, 1), (APIC_ACCESS, 1 << 12 | SPURIOUS), "write");
        check_eq!(self.store(TPR, 0x70).0, DONE, "write of the TPR");
        check_eq!(self.load(TPR), (DONE, 0x70), "read of the TPR");
        check_eq!((self.register(TPR), read(self.access + TPR)), (0x70, 0), "where the TPR went");
    }

    /// Reads come from the page, and writes go there, before the exit.
    fn registers(&mut self) {
        let registers = SecondaryControls::APIC_REGISTER_VIRTUALIZATION;
        check!(self.nested.add_secondary(registers), "APIC registers");
        write(self.registers + ID, 0x1234_5678);
        check_eq!(self.load(ID), (DONE, 0x1234_5678), "ID");
        check_eq!(self.load(0x40), (APIC_ACCESS, 0x40), "a register that there is not");
        check_eq!(self.store(SPURIOUS, 0x1ff), (APIC_WRITE, SPURIOUS), "write");
        check_eq!(self.register(SPURIOUS), 0x1ff, "what was written");
    }

    /// An interrupt that is requested is delivered once the guest can take it, and ends by EOI.
    fn interrupts(&mut self) {
        let delivery = SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY;
        check!(
            self.nested.add_pin(PinBasedControls::EXTERNAL_INTERRUPT_EXITING)
                && self.nested.add_secondary(delivery),
            "virtual-interrupt delivery"
        );
        handle(VECTOR, Some(take));
        write(self.registers + TPR, 0);
        for is_wanted in [false, true] {
            write(self.registers + IRR + 0x20, 1 << (VECTOR % 32));
            self.nested.write(vmcs::EOI_EXIT_BITMAP_1, u64::from(is_wanted) << (VECTOR % 64));
            self.nested.write(vmcs::GUEST_INTERRUPT_STATUS, VECTOR.into());
            let code = snippet!("nop", "nop", "sti", "nop", "nop", "cli");
            check_eq!(self.run(code, Regs::default()).0, DONE, "a guest that is interrupted");
            check_eq!(TAKEN.swap(0, Ordering::SeqCst), VECTOR.into(), "what it took");
            let status = self.nested.read(vmcs::GUEST_INTERRUPT_STATUS);
            check_eq!(status, u16::from(VECTOR) << 8, "requested and in service");
            check_eq!(self.register(ISR + 0x20) >> (VECTOR % 32) & 1, 1, "virtual ISR");
            let expected = if is_wanted { (VIRTUALIZED_EOI, VECTOR.into()) } else { (DONE, 0) };
            check_eq!(self.store(EOI, 0), expected, "EOI, wanted {is_wanted}");
            check_eq!(self.nested.read(vmcs::GUEST_INTERRUPT_STATUS), 0, "nothing in service");
        }
        self.nested.write(vmcs::EOI_EXIT_BITMAP_1, 0);
        handle(VECTOR, None);
    }

    /// The notification brings what is posted, without an exit.
    fn posted_interrupts(&mut self) {
        // Bochs refuses one that is aligned to 64 bytes only.
        let descriptor = allocate();
        check!(
            self.nested.add_exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
                && self.nested.add_pin(PinBasedControls::PROCESS_POSTED_INTERRUPTS),
            "posted interrupts"
        );
        self.nested.write(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, descriptor);
        self.nested.write(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, NOTIFICATION.into());
        write(descriptor + 8 * u64::from(POSTED / 64), 1 << (POSTED % 64));
        write(descriptor + 32, 1);
        handle(POSTED, Some(take));
        apic::write(apic::register::SPURIOUS, 0x1ff);
        let regs = Regs {
            rdi: apic::base() + ICR,
            rsi: 1 << 18 | 1 << 14 | u64::from(NOTIFICATION),
            rflags: IF,
            ..Regs::default()
        };
        let code = snippet!("mov [rdi], esi", "mov ecx, 1000", "2:", "dec ecx", "jnz 2b");
        check_eq!(self.run(code, regs).0, DONE, "a guest that is notified");
        check_eq!(TAKEN.swap(0, Ordering::SeqCst), POSTED.into(), "what it took");
        check_eq!(read(descriptor + 8 * u64::from(POSTED / 64)), 0, "what is still posted");
        check_eq!(read(descriptor + 32) & 1, 0, "outstanding notification");
        // Another vector is the hypervisor's.
        let regs = Regs { rsi: regs.rsi - 1, ..regs };
        check_eq!(self.run(code, regs).0, ExitReason::EXTERNAL_INTERRUPT, "another vector");
        let expected = 0x8000_0000 + u32::from(NOTIFICATION) - 1;
        check_eq!(self.nested.read(vmcs::EXIT_INTERRUPTION_INFORMATION), expected, "acknowledged");
        apic::end_of_interrupt();
        handle(POSTED, None);
    }
}

fn take(frame: &mut Frame) -> bool {
    TAKEN.store(frame.vector, Ordering::SeqCst);
    true
}
