//! CPL checks, APIC MSRs: VMX instructions and MSRs of a guest's guest, at each privilege level and for each bitmap.
#![no_std]
#![no_main]

use guest::cpu::rdmsr;
use guest::vmx::form::Form;
use guest::vmx::prelude::*;
use guest::vmx::{allocate, clear, form, trial, write};
use guest::{Fault, Mode, Regs, snippet};
use x86::msr::Msr;
use x86::vmx::controls::PrimaryControls;

guest!(main);

const LEVELS: [(Mode, u32); 2] = [(Mode::Kernel64, 0), (Mode::User64, 3)];

fn main() {
    enter_operation();
    let mut nested = Guest::new(trial::perform);
    instructions(&mut nested);
    reads(&mut nested);
    writes(&mut nested);
    leave_operation();
}

/// SDM, "Instructions That Cause VM Exits Unconditionally": before the privilege level and the operand are looked at.
fn instructions(nested: &mut Guest) {
    for Form { name, code64, reason, .. } in form::forms().into_iter().chain([form::vmxon()]) {
        for (mode, level) in LEVELS {
            trial::begin(nested, mode, code64, form::without_memory());
            let seen = nested.run();
            check_eq!(seen.name(), reason.name(), "{name} in {mode:?}");
            check!(!nested.has_ended(), "{name} in {mode:?} leaves where it stands");
            check_eq!(
                nested.read(vmcs::GUEST_RIP) & 0xff_ffff,
                code64.address(),
                "{name} in {mode:?}: place"
            );
            let rights = nested.read(vmcs::GUEST_SS_ACCESS_RIGHTS);
            check_eq!(rights >> 5 & 3, level, "{name} in {mode:?}: privilege level");
        }
    }
    // CR4.SMXE is clear, and undefined comes before the exit.
    for (mode, _) in LEVELS {
        trial::begin(nested, mode, snippet!(".byte 0x0f, 0x37"), Regs::default());
        check_eq!(nested.run(), ExitReason::VMCALL, "GETSEC in {mode:?}");
        check_eq!(trial::result().0, Err(Fault::UD), "GETSEC in {mode:?}");
    }
    trial::begin(nested, Mode::Kernel64, snippet!("vmfunc"), Regs::default());
    check_eq!(nested.run(), ExitReason::VMCALL, "VMFUNC that is not enabled");
    check_eq!(trial::result().0, Err(Fault::UD), "VMFUNC that is not enabled");
}

/// MSRs of each range, those of the local APIC and of VMX among them.
fn msrs() -> [Msr; 14] {
    [
        Msr::IA32_APIC_BASE,
        Msr::IA32_FEATURE_CONTROL,
        Msr::IA32_SYSENTER_EIP,
        Msr::IA32_VMX_BASIC,
        Msr::IA32_VMX_MISC,
        Msr::IA32_VMX_TRUE_ENTRY_CTLS,
        Msr::X2APIC_ID,
        Msr(0x80f),
        Msr::X2APIC_ICR,
        Msr::IA32_EFER,
        Msr::IA32_FS_BASE,
        Msr::IA32_KERNEL_GS_BASE,
        Msr(0x2000),
        Msr(0xc000_2000),
    ]
}

/// Number of the bitmap's bit for reads; `None` outside both ranges, where every access leaves.
fn bit(msr: Msr) -> Option<u64> {
    match msr.0 {
        number @ 0..=0x1fff => Some(number.into()),
        number @ 0xc000_0000..=0xc000_1fff => Some(u64::from(number - 0xc000_0000) + 0x2000),
        _ => None,
    }
}

/// Without bitmaps, with none wanted, with this one wanted, with all others wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bitmap {
    Absent,
    Zeros,
    One,
    Others,
}

fn set_bitmap(nested: &mut Guest, bitmap: Bitmap, bit: Option<u64>, is_write: bool) {
    let page = allocate_once();
    clear(page);
    nested.write(vmcs::MSR_BITMAPS, page);
    if bitmap == Bitmap::Absent {
        nested.remove(vmcs::PRIMARY_CONTROLS, PrimaryControls::USE_MSR_BITMAPS.bits());
        return;
    }
    check!(nested.add_primary(PrimaryControls::USE_MSR_BITMAPS), "MSR bitmaps");
    if bitmap == Bitmap::Others {
        (0..512).for_each(|index| write(page + 8 * index, u64::MAX));
    }
    let Some(bit) = bit.map(|bit| bit + if is_write { 0x4000 } else { 0 }) else { return };
    let place = page + bit / 64 * 8;
    match bitmap {
        Bitmap::One => write(place, 1 << (bit % 64)),
        Bitmap::Others => write(place, !(1 << (bit % 64))),
        _ => {}
    }
}

fn allocate_once() -> u64 {
    static PAGE: spin::Once<u64> = spin::Once::new();
    *PAGE.call_once(allocate)
}

fn is_wanted(bitmap: Bitmap, msr: Msr) -> bool {
    matches!(bitmap, Bitmap::Absent | Bitmap::One) || bit(msr).is_none()
}

fn reads(nested: &mut Guest) {
    for msr in msrs() {
        // What no hypervisor wants is what the hypervisor itself sees.
        let own = rdmsr(msr);
        for bitmap in [Bitmap::Absent, Bitmap::Zeros, Bitmap::One, Bitmap::Others] {
            set_bitmap(nested, bitmap, bit(msr), false);
            let regs = Regs { rcx: msr.0.into(), ..Regs::default() };
            trial::begin(nested, Mode::Kernel64, snippet!("rdmsr"), regs);
            let reason = nested.run();
            if is_wanted(bitmap, msr) {
                check_eq!(reason, ExitReason::RDMSR, "RDMSR of {msr:?}, bitmap {bitmap:?}");
                check_eq!(nested.registers.rcx, u64::from(msr.0), "RDMSR of {msr:?}: RCX");
                continue;
            }
            check_eq!(reason, ExitReason::VMCALL, "RDMSR of {msr:?}, bitmap {bitmap:?}");
            let (result, regs) = trial::result();
            let seen = result.map(|()| regs.rdx << 32 | regs.rax & 0xffff_ffff);
            check_eq!(seen, own, "RDMSR of {msr:?}, bitmap {bitmap:?}");
            // At CPL 3 it faults without an exit.
            trial::begin(
                nested,
                Mode::User64,
                snippet!("rdmsr"),
                Regs { rcx: msr.0.into(), ..Regs::default() },
            );
            check_eq!(nested.run(), ExitReason::VMCALL, "RDMSR of {msr:?} at CPL 3");
            check_eq!(trial::result().0, Err(Fault::GP), "RDMSR of {msr:?} at CPL 3");
        }
    }
}

fn writes(nested: &mut Guest) {
    for msr in msrs() {
        let own = rdmsr(msr);
        for bitmap in [Bitmap::Absent, Bitmap::Zeros, Bitmap::One, Bitmap::Others] {
            // Those that cannot be written by their own value are tried where they leave only.
            let is_quiet = matches!(msr, Msr::X2APIC_ICR | Msr(0x80f) | Msr::X2APIC_ID);
            if is_quiet && !is_wanted(bitmap, msr) {
                continue;
            }
            set_bitmap(nested, bitmap, bit(msr), true);
            let value = own.unwrap_or(0);
            let regs =
                Regs { rcx: msr.0.into(), rax: value & 0xffff_ffff, rdx: value >> 32, ..Regs::default() };
            trial::begin(nested, Mode::Kernel64, snippet!("wrmsr"), regs);
            let reason = nested.run();
            let expected = if is_wanted(bitmap, msr) { ExitReason::WRMSR } else { ExitReason::VMCALL };
            check_eq!(reason, expected, "WRMSR of {msr:?}, bitmap {bitmap:?}");
            if is_wanted(bitmap, msr) {
                continue;
            }
            // Capabilities and the locked control of VMX are read-only.
            let is_read_only = (0x480..=0x493).contains(&msr.0) || msr == Msr::IA32_FEATURE_CONTROL;
            let result = trial::result().0;
            check_eq!(
                result,
                if is_read_only { Err(Fault::GP) } else { Ok(()) },
                "WRMSR of {msr:?}, {bitmap:?}"
            );
        }
    }
}
