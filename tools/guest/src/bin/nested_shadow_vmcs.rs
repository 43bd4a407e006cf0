//! Emulation against intercepts: VMREAD and VMWRITE of a guest's guest reach its linked VMCS, or leave by the bitmaps.
#![no_std]
#![no_main]

use guest::cpu::{cpuid, rdmsr_existing};
use guest::vmx::instruction::{invept, vmclear, vmptrld, vmread, vmwrite};
use guest::vmx::prelude::*;
use guest::vmx::verdict::{CONTROLS, Entry, try_values};
use guest::vmx::{Ept, allocate, ept_violation, read, region, revision, trial, write};
use guest::{Fault, Mode, Regs, Snippet, snippet};
use x86::msr::Msr;
use x86::vmx::controls::SecondaryControls;
use x86::vmx::vmcs::TrustedField;

guest!(main);

const INDICATOR: u64 = 1 << 31;
const NO_LINK: u64 = u64::MAX;
/// A page of the guest's that lies nowhere else.
const PAGE: u64 = 0x3000_1000;
/// Of the root table of the guest's linear addresses, used by nobody.
const SLOT: u64 = 200;
const LINK_FAILED: Entry = Entry::Failed(33, 4);
const STATUS: u64 = 0x8d5;
/// Neither in the bitmaps' way nor of any effect: guest RIP, TSC offset and its upper half, a selector.
const RIP: u64 = 0x681e;
const TSC_OFFSET: u64 = 0x2010;
const SELECTOR: u64 = 0x0802;

/// What became of VMREAD or VMWRITE of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Left(ExitReason),
    Done(u64),
    Invalid,
    Error(u32),
    Raised(Fault),
    Flags(u64),
}

struct Shadowing {
    nested: Guest,
    linked: u64,
    read_bitmap: u64,
    write_bitmap: u64,
}

fn main() {
    enter_operation();
    let mut shadowing = Shadowing::new();
    shadowing.accesses();
    shadowing.bitmaps();
    shadowing.privilege_and_mode();
    shadowing.errors();
    shadowing.moves_between_vmcss();
    shadowing.operands();
    shadowing.entries();
    leave_operation();
}

/// A page that VMPTRLD takes for a shadow VMCS.
fn shadow_region() -> u64 {
    let page = region();
    write(page, u64::from(revision()) | INDICATOR);
    page
}

/// Makes the VMCS at `page` current for `act`.
fn with_current(nested: &Guest, page: u64, act: impl FnOnce()) {
    check_eq!(vmptrld(page), Ok(()), "VMPTRLD of {page:#x}");
    act();
    check_eq!(vmclear(page), Ok(()), "VMCLEAR of {page:#x}");
    nested.load();
}

impl Shadowing {
    /// A guest whose every VMREAD and VMWRITE passes.
    fn new() -> Self {
        let linked = shadow_region();
        check_eq!(vmclear(linked), Ok(()), "VMCLEAR of a shadow VMCS");
        let mut nested = Guest::new(trial::perform);
        let [read_bitmap, write_bitmap] = [allocate(), allocate()];
        check!(nested.add_secondary(SecondaryControls::VMCS_SHADOWING), "VMCS shadowing is offered");
        nested.write(vmcs::VMREAD_BITMAP_ADDRESS, read_bitmap);
        nested.write(vmcs::VMWRITE_BITMAP_ADDRESS, write_bitmap);
        nested.write(vmcs::VMCS_LINK_POINTER, linked);
        Self { nested, linked, read_bitmap, write_bitmap }
    }

    fn attempt(&mut self, mode: Mode, code: Snippet, rax: u64, rdx: u64) -> Seen {
        trial::begin(&mut self.nested, mode, code, Regs { rax, rdx, rflags: STATUS, ..Regs::default() });
        self.finish()
    }

    fn finish(&mut self) -> Seen {
        let reason = self.nested.run();
        if !self.nested.has_ended() {
            return Seen::Left(reason);
        }
        let (result, regs) = trial::result();
        match (result, regs.rflags & STATUS) {
            (Err(fault), _) => Seen::Raised(fault),
            (Ok(()), 0) => Seen::Done(regs.rax),
            (Ok(()), 1) => Seen::Invalid,
            (Ok(()), 0x40) => Seen::Error(self.nested.read(vmcs::INSTRUCTION_ERROR)),
            (Ok(()), flags) => Seen::Flags(flags),
        }
    }

    fn vmread(&mut self, encoding: u64) -> Seen {
        self.attempt(Mode::Kernel64, snippet!("vmread rax, rdx"), 0x7777, encoding)
    }

    fn vmwrite(&mut self, encoding: u64, value: u64) -> Seen {
        self.attempt(Mode::Kernel64, snippet!("vmwrite rdx, rax"), value, encoding)
    }

    /// What the guest reads is what its hypervisor wrote, and the other way round; the VMCS it runs on is another.
    fn accesses(&mut self) {
        with_current(&self.nested, self.linked, || {
            for (field, value) in [(RIP, 0x1234_5678_9abc), (TSC_OFFSET, 0x1111_2222_3333_4444)] {
                check_eq!(vmwrite(field, value), Ok(()), "VMWRITE to a shadow VMCS");
                check_eq!(vmread(field), Ok(value), "VMREAD from a shadow VMCS");
            }
        });
        check_eq!(self.vmread(RIP), Seen::Done(0x1234_5678_9abc), "VMREAD");
        check_eq!(self.vmread(TSC_OFFSET + 1), Seen::Done(0x1111_2222), "VMREAD of an upper half");
        check_eq!(self.vmwrite(TSC_OFFSET + 1, 0x9_aabb_ccdd), Seen::Done(0x9_aabb_ccdd), "VMWRITE of one");
        check_eq!(self.vmread(TSC_OFFSET), Seen::Done(0xaabb_ccdd_3333_4444), "VMREAD of both halves");
        check_eq!(self.vmwrite(SELECTOR, 0x12_3456), Seen::Done(0x12_3456), "VMWRITE of 16 bits");
        check_eq!(self.vmread(SELECTOR), Seen::Done(0x3456), "VMREAD of 16 bits");
        check_eq!(self.vmwrite(RIP, !0), Seen::Done(!0), "VMWRITE");
        with_current(&self.nested, self.linked, || {
            check_eq!(vmread(RIP), Ok(!0), "what the guest wrote");
            check_eq!(vmread(TSC_OFFSET), Ok(0xaabb_ccdd_3333_4444), "what the guest wrote in part");
        });
        check_eq!(vmread(TSC_OFFSET), Ok(0), "the VMCS that the guest runs on");
    }

    /// A bit for each instruction and encoding; encodings of more than 15 bits leave always.
    fn bitmaps(&mut self) {
        let (vmread, vmwrite) = (ExitReason::VMREAD, ExitReason::VMWRITE);
        let at = RIP / 64 * 8;
        for (bitmap, expected) in [
            (self.read_bitmap, [Seen::Left(vmread), Seen::Done(5)]),
            (self.write_bitmap, [Seen::Done(!0), Seen::Left(vmwrite)]),
        ] {
            write(bitmap + at, 1 << (RIP % 64));
            let seen = [self.vmread(RIP), self.vmwrite(RIP, 5)];
            check_eq!(seen, expected, "bit of guest RIP in {bitmap:#x}");
            check_eq!(self.nested.read(vmcs::EXIT_INSTRUCTION_LENGTH), 3, "length");
            write(bitmap + at, !(1 << (RIP % 64)));
            check_eq!(self.vmwrite(RIP, !0), Seen::Done(!0), "every bit but that of guest RIP");
            write(bitmap + at, 0);
        }
        for encoding in [0x8000, RIP | 1 << 15, RIP | 1 << 32, RIP | 1 << 63] {
            check_eq!(self.vmread(encoding), Seen::Left(vmread), "VMREAD of {encoding:#x}");
            check_eq!(self.vmwrite(encoding, 0), Seen::Left(vmwrite), "VMWRITE of {encoding:#x}");
        }
        self.nested.remove(vmcs::SECONDARY_CONTROLS, SecondaryControls::VMCS_SHADOWING.bits());
        self.nested.write(vmcs::VMCS_LINK_POINTER, NO_LINK);
        check_eq!(self.vmread(RIP), Seen::Left(vmread), "VMREAD without shadowing");
        check_eq!(self.vmwrite(RIP, 0), Seen::Left(vmwrite), "VMWRITE without shadowing");
        check!(self.nested.add_secondary(SecondaryControls::VMCS_SHADOWING), "VMCS shadowing again");
        self.nested.write(vmcs::VMCS_LINK_POINTER, self.linked);
    }

    /// The exit comes before the check of the privilege, the mode before both.
    fn privilege_and_mode(&mut self) {
        let gp = Seen::Raised(Fault::GP);
        for (code, bitmap, reason) in [
            (snippet!("vmread rax, rdx"), self.read_bitmap, ExitReason::VMREAD),
            (snippet!("vmwrite rdx, rax"), self.write_bitmap, ExitReason::VMWRITE),
        ] {
            check_eq!(self.attempt(Mode::User64, code, 0, RIP), gp, "{reason:?} at CPL 3");
            write(bitmap + RIP / 64 * 8, 1 << (RIP % 64));
            let left = Seen::Left(reason);
            check_eq!(self.attempt(Mode::User64, code, 0, RIP), left, "{reason:?} at CPL 3 with its bit");
            let ud = Seen::Raised(Fault::UD);
            check_eq!(
                self.attempt(Mode::Compatibility32, code, 0, RIP),
                ud,
                "{reason:?} in compatibility mode"
            );
            write(bitmap + RIP / 64 * 8, 0);
        }
    }

    /// Errors go to the VMCS that the guest runs on.
    fn errors(&mut self) {
        for unknown in [0x7ffe, 0x1000, 0x681f, 0x6c7e] {
            self.nested.write(vmcs::INSTRUCTION_ERROR, 0);
            check_eq!(self.vmread(unknown), Seen::Error(12), "VMREAD of {unknown:#x}");
            self.nested.write(vmcs::INSTRUCTION_ERROR, 0);
            check_eq!(self.vmwrite(unknown, 0), Seen::Error(12), "VMWRITE of {unknown:#x}");
        }
        let writes_all = rdmsr_existing(Msr::IA32_VMX_MISC) >> 29 & 1 == 1;
        let expected = if writes_all { Seen::Done(0x77) } else { Seen::Error(13) };
        for field in [0x4400, 0x4402, 0x6400] {
            check_eq!(self.vmwrite(field, 0x77), expected, "VMWRITE to {field:#x}, writable {writes_all}");
        }
        self.nested.write(vmcs::VMCS_LINK_POINTER, NO_LINK);
        check_eq!(self.vmread(RIP), Seen::Invalid, "VMREAD with nothing linked");
        check_eq!(self.vmread(0x7ffe), Seen::Invalid, "VMREAD of no field with nothing linked");
        check_eq!(self.vmwrite(RIP, 0), Seen::Invalid, "VMWRITE with nothing linked");
        self.nested.write(vmcs::VMCS_LINK_POINTER, self.linked);
    }

    /// One shadow VMCS after the other; each keeps what is its own.
    fn moves_between_vmcss(&mut self) {
        let other = shadow_region();
        check_eq!(vmclear(other), Ok(()), "VMCLEAR of another shadow VMCS");
        with_current(&self.nested, other, || {
            check_eq!(vmwrite(RIP, 2), Ok(()), "VMWRITE to the other");
        });
        check_eq!(self.vmwrite(RIP, 1), Seen::Done(1), "VMWRITE to the one");
        self.nested.write(vmcs::VMCS_LINK_POINTER, other);
        check_eq!(self.vmread(RIP), Seen::Done(2), "VMREAD from the other");
        check_eq!(self.vmwrite(RIP, 3), Seen::Done(3), "VMWRITE to the other");
        self.nested.write(vmcs::VMCS_LINK_POINTER, self.linked);
        check_eq!(self.vmread(RIP), Seen::Done(1), "VMREAD from the one");
        with_current(&self.nested, other, || {
            check_eq!(vmread(RIP), Ok(3), "the other's");
        });
    }

    /// Operands in memory: page faults are the guest's, EPT violations its hypervisor's.
    fn operands(&mut self) {
        let (load, store) = (snippet!("vmwrite rdx, [rax]"), snippet!("vmread [rax], rdx"));
        let memory = allocate();
        write(memory + 8, 0xfeed);
        check_eq!(self.attempt(Mode::Kernel64, load, memory + 8, RIP), Seen::Done(memory + 8), "from memory");
        check_eq!(
            self.attempt(Mode::Kernel64, store, memory + 16, RIP),
            Seen::Done(memory + 16),
            "to memory"
        );
        check_eq!(read(memory + 16), 0xfeed, "what came to memory");
        let absent = 1 << 46;
        for (code, error_code) in [(load, 0), (store, 2)] {
            let fault = Seen::Raised(Fault { vector: 14, error_code });
            check_eq!(self.attempt(Mode::Kernel64, code, absent, RIP), fault, "an absent page");
            let gp = Seen::Raised(Fault::GP);
            check_eq!(self.attempt(Mode::Kernel64, code, 1 << 48, RIP), gp, "an address that is none");
        }
        let mut ept = Ept::identity();
        ept.unmap(PAGE);
        self.nested.use_ept(&ept);
        for (code, access) in [(load, 1), (store, 2)] {
            check_eq!(
                self.attempt(Mode::Kernel64, code, PAGE + 8, RIP),
                Seen::Left(ExitReason::EPT_VIOLATION),
                "an operand that is not mapped"
            );
            self.violation(access | 0x180);
            ept.map(PAGE, memory, 7);
            check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
            check_eq!(self.finish(), Seen::Done(PAGE + 8), "the same once it is mapped");
            ept.unmap(PAGE);
            check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
        }
        ept.map(PAGE, memory, 1);
        check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
        check_eq!(self.attempt(Mode::Kernel64, load, PAGE + 8, RIP), Seen::Done(PAGE + 8), "a readable page");
        let left = Seen::Left(ExitReason::EPT_VIOLATION);
        check_eq!(self.attempt(Mode::Kernel64, store, PAGE + 8, RIP), left, "to a readable page");
        self.violation(0x18a);
        // A table of the guest's own that is not mapped: one more page is the guest's at slot 200.
        let slot = (guest::cpu::read_cr3() & !0xfff) + 8 * SLOT;
        write(slot, PAGE + 0x1003);
        ept.unmap(PAGE + 0x1000);
        check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT");
        let behind = SLOT << 39 | 3 << 30;
        check_eq!(
            self.attempt(Mode::Kernel64, store, behind, RIP),
            left,
            "behind a table that is not mapped"
        );
        check_eq!(ept_violation(&self.nested), 0x81, "qualification of a walk");
        check_eq!(self.nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), PAGE + 0x1018, "entry of a table");
        check_eq!(self.nested.read(vmcs::GUEST_LINEAR_ADDRESS), behind, "guest-linear address");
        write(slot, 0);
        self.nested.remove(vmcs::SECONDARY_CONTROLS, SecondaryControls::ENABLE_EPT.bits());
    }

    fn violation(&self, qualification: u64) {
        check_eq!(ept_violation(&self.nested), qualification, "qualification");
        check_eq!(self.nested.read(vmcs::GUEST_PHYSICAL_ADDRESS), PAGE + 8, "guest-physical address");
        check_eq!(self.nested.read(vmcs::GUEST_LINEAR_ADDRESS), PAGE + 8, "guest-linear address");
        check_eq!(self.nested.read(vmcs::IDT_VECTORING_INFORMATION) >> 31, 0, "nothing was delivered");
    }

    /// What may be linked depends on the control, and is looked at with each entry.
    fn entries(&mut self) {
        let width = cpuid(0x8000_0008, 0).eax & 0xff;
        let (linked, ordinary, own) = (self.linked, region(), self.nested.region);
        let wrong = region();
        write(wrong, u64::from(revision()) ^ 1 | INDICATOR);
        let link = vmcs::VMCS_LINK_POINTER;
        try_values(
            &mut self.nested,
            "link pointer with shadowing",
            link,
            &[
                (linked, Entry::Entered),
                (NO_LINK, Entry::Entered),
                (ordinary, LINK_FAILED),
                (wrong, LINK_FAILED),
                (own, LINK_FAILED),
                (linked | 0x800, LINK_FAILED),
                (linked | 1 << width, LINK_FAILED),
            ],
        );
        write(linked, revision().into());
        try_values(&mut self.nested, "link pointer to what changed", link, &[(linked, LINK_FAILED)]);
        write(linked, u64::from(revision()) | INDICATOR);
        for bitmap in [vmcs::VMREAD_BITMAP_ADDRESS, vmcs::VMWRITE_BITMAP_ADDRESS] {
            self.bitmap_address(bitmap, width);
        }
        self.nested.remove(vmcs::SECONDARY_CONTROLS, SecondaryControls::VMCS_SHADOWING.bits());
        try_values(
            &mut self.nested,
            "link pointer without shadowing",
            link,
            &[(ordinary, Entry::Entered), (linked, LINK_FAILED), (own, LINK_FAILED)],
        );
    }

    fn bitmap_address(&mut self, bitmap: TrustedField<u64>, width: u32) {
        let values = [(self.read_bitmap | 8, CONTROLS), (1 << width, CONTROLS)];
        try_values(&mut self.nested, "address of a bitmap", bitmap, &values);
    }
}
