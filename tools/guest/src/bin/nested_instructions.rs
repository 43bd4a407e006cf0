//! Unknown fields, and whatever else a VMX instruction can find: success, and each VM-instruction error there can be.
//! hypapp: quiesce
#![no_std]
#![no_main]

use guest::cpu::{rdmsr_existing, read_cr4, under_hypervisor};
use guest::memory::low;
use guest::vmx::instruction::{invept, invvpid, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmxon};
use guest::vmx::prelude::*;
use guest::vmx::{Ept, Failure, Outcome, allocate, attempt_with, read, region, revision, write};
use guest::{Regs, Snippet, snippet};
use x86::msr::Msr;
use x86::vmx::controls::{PrimaryControls, SecondaryControls};

guest!(main);

const NONE: u64 = u64::MAX;
/// Addresses that no region can have: unaligned by a little and by much, and beyond any physical address.
const BAD_ADDRESSES: [u64; 5] = [1, 0x800, 0xfff, 1 << 52, 1 << 63];
const SHADOW: u64 = 1 << 31;

fn main() {
    let vmxon_region = enter_operation();
    without_current(vmxon_region);
    clear_and_load(vmxon_region);
    revisions();
    fields();
    launch_states();
    entry_failures();
    invalidations();
    with_current_only();
    leave_operation();
    again();
}

fn valid<T>(number: u32) -> Result<T, Failure> {
    Err(Failure::Valid(number))
}

/// SDM, "Conventions": VMfail is VMfailInvalid where there is no current VMCS.
fn without_current(vmxon_region: u64) {
    check_eq!(vmptrst(), NONE, "VMPTRST after VMXON");
    let invalid = Err(Failure::Invalid);
    check_eq!(vmread(vmcs::GUEST_RIP.encoding().into()), Err(Failure::Invalid), "VMREAD without VMCS");
    check_eq!(vmread(0xffff), Err(Failure::Invalid), "VMREAD of no field without VMCS");
    check_eq!(vmwrite(vmcs::GUEST_RIP.encoding().into(), 0), invalid, "VMWRITE without VMCS");
    check_eq!(attempt_with(snippet!("vmlaunch"), Regs::default()), Outcome::INVALID, "VMLAUNCH without VMCS");
    check_eq!(attempt_with(snippet!("vmresume"), Regs::default()), Outcome::INVALID, "VMRESUME without VMCS");
    check_eq!(attempt_with(snippet!("vmcall"), Regs::default()), Outcome::INVALID, "VMCALL without VMCS");
    check_eq!(vmxon(region()), invalid, "VMXON in VMX operation without VMCS");
    check_eq!(vmclear(vmxon_region), invalid, "VMCLEAR of the VMXON region without VMCS");
    check_eq!(vmptrld(vmxon_region), invalid, "VMPTRLD of the VMXON region without VMCS");
    check_eq!(vmptrld(allocate()), invalid, "VMPTRLD of a page of zeros without VMCS");
    for bad in BAD_ADDRESSES {
        check_eq!(vmclear(bad), invalid, "VMCLEAR of {bad:#x} without VMCS");
        check_eq!(vmptrld(bad), invalid, "VMPTRLD of {bad:#x} without VMCS");
    }
    check_eq!(invept(0, [0; 2]), invalid, "INVEPT of type 0 without VMCS");
    check_eq!(invvpid(4, [0; 2]), invalid, "INVVPID of type 4 without VMCS");
    check_eq!(vmptrst(), NONE, "VMPTRST after failures");
}

fn clear_and_load(vmxon_region: u64) {
    let (one, other) = (region(), region());
    check_eq!(vmclear(one), Ok(()), "VMCLEAR");
    check_eq!(vmptrst(), NONE, "VMCLEAR makes nothing current");
    check_eq!(vmptrld(one), Ok(()), "VMPTRLD");
    check_eq!(vmptrst(), one, "VMPTRST");
    check_eq!(vmptrld(one), Ok(()), "VMPTRLD of the current VMCS");
    for bad in BAD_ADDRESSES {
        check_eq!(vmclear(bad), valid(2), "VMCLEAR of {bad:#x}");
        check_eq!(vmptrld(bad), valid(9), "VMPTRLD of {bad:#x}");
    }
    check_eq!(vmclear(vmxon_region), valid(3), "VMCLEAR of the VMXON region");
    check_eq!(vmptrld(vmxon_region), valid(10), "VMPTRLD of the VMXON region");
    check_eq!(vmxon(region()), valid(15), "VMXON in VMX operation");
    check_eq!(vmxon(vmxon_region), valid(15), "VMXON once more");
    check_eq!(vmptrst(), one, "VMPTRST after failures");
    // The error stays until the next failure.
    check_eq!(vmread(vmcs::INSTRUCTION_ERROR.encoding().into()), Ok(15), "VM-instruction error");
    check_eq!(vmclear(other), Ok(()), "VMCLEAR of another VMCS");
    check_eq!(vmptrst(), one, "VMCLEAR of another VMCS leaves the current one");
    check_eq!(
        vmread(vmcs::INSTRUCTION_ERROR.encoding().into()),
        Ok(15),
        "VM-instruction error after success"
    );
    check_eq!(vmwrite(vmcs::GUEST_RIP.encoding().into(), 0x1234_5678_9abc), Ok(()), "VMWRITE");
    check_eq!(vmptrld(other), Ok(()), "VMPTRLD of another VMCS");
    check_eq!(vmwrite(vmcs::GUEST_RIP.encoding().into(), 1), Ok(()), "VMWRITE to the other");
    check_eq!(vmclear(one), Ok(()), "VMCLEAR of an active VMCS that is not current");
    check_eq!(vmptrst(), other, "the current one after it");
    check_eq!(vmptrld(one), Ok(()), "VMPTRLD after VMCLEAR");
    check_eq!(vmread(vmcs::GUEST_RIP.encoding().into()), Ok(0x1234_5678_9abc), "field after VMCLEAR");
    check_eq!(vmclear(one), Ok(()), "VMCLEAR of the current VMCS");
    check_eq!(vmptrst(), NONE, "no VMCS is current after it");
    check_eq!(vmptrld(other), Ok(()), "VMPTRLD of the other");
    check_eq!(vmread(vmcs::GUEST_RIP.encoding().into()), Ok(1), "its field");
    check_eq!(low(read(one)), revision(), "VMCLEAR leaves the revision alone");
}

fn revisions() {
    let page = region();
    check_eq!(vmclear(page), Ok(()), "VMCLEAR");
    for wrong in [0, revision() + 1, revision() ^ 1 << 30, !revision() & 0x7fff_ffff] {
        write(page, wrong.into());
        check_eq!(vmptrld(page), valid(11), "VMPTRLD with revision {wrong:#x}");
        check_eq!(vmclear(page), Ok(()), "VMCLEAR with revision {wrong:#x}");
        check_eq!(low(read(page)), wrong, "VMCLEAR keeps revision {wrong:#x}");
    }
    write(page, u64::from(revision()) | SHADOW);
    let has_shadowing = rdmsr_existing(Msr::IA32_VMX_PROCBASED_CTLS2) >> 32
        & u64::from(SecondaryControls::VMCS_SHADOWING.bits())
        != 0;
    let expected = if has_shadowing { Ok(()) } else { valid(11) };
    check_eq!(vmptrld(page), expected, "VMPTRLD of a shadow VMCS, shadowing {has_shadowing}");
    if has_shadowing {
        check_eq!(
            attempt_with(snippet!("vmlaunch"), Regs::default()),
            Outcome::INVALID,
            "VMLAUNCH of a shadow VMCS"
        );
        check_eq!(
            attempt_with(snippet!("vmresume"), Regs::default()),
            Outcome::INVALID,
            "VMRESUME of a shadow VMCS"
        );
        check_eq!(vmclear(page), Ok(()), "VMCLEAR of it");
    }
}

fn fields() {
    let nested = Guest::new(nothing);
    let highest = rdmsr_existing(Msr(0x48a)) >> 1 & 0x1ff;
    for encoding in
        [0xffff, 0x1000, 0x2fff, 0x6c7e, 0x681f, 0x8000, 1 << 31, 1 << 32 | 0x681e, 1 << 63 | 0x681e]
    {
        check_eq!(vmread(encoding), valid(12), "VMREAD of {encoding:#x}, highest index {highest}");
        check_eq!(vmwrite(encoding, 0), valid(12), "VMWRITE of {encoding:#x}");
    }
    let writes_all = rdmsr_existing(Msr::IA32_VMX_MISC) >> 29 & 1 == 1;
    let expected = if writes_all { Ok(()) } else { valid(13) };
    for field in [0x4400, 0x4402, 0x440e, 0x6400, 0x640a, 0x2400] {
        check_eq!(vmwrite(field, 0x77), expected, "VMWRITE to read-only {field:#x}, writable {writes_all}");
    }
    // Narrow fields are zero-extended; what does not fit is dropped. Halves of a 64-bit field.
    for (field, wide, kept) in
        [(0x0802, u64::MAX, 0xffff), (0x4800, u64::MAX, 0xffff_ffff), (0x4016, 1 << 40, 0)]
    {
        check_eq!(vmwrite(field, wide), Ok(()), "VMWRITE to {field:#x}");
        check_eq!(vmread(field), Ok(kept), "VMREAD of {field:#x}");
    }
    let [tsc_offset, upper] = [0x2010, 0x2011];
    check_eq!(vmwrite(tsc_offset, 0x1122_3344_5566_7788), Ok(()), "VMWRITE of a 64-bit field");
    check_eq!(vmread(upper), Ok(0x1122_3344), "VMREAD of its upper half");
    check_eq!(vmwrite(upper, 0x99_aabb_ccdd), Ok(()), "VMWRITE of its upper half");
    check_eq!(vmread(tsc_offset), Ok(0xaabb_ccdd_5566_7788), "VMREAD of all of it");
    // Every natural-width guest field holds anything, for checks come with VM entry.
    for field in (0x6800..=0x6826).step_by(2) {
        check_eq!(vmwrite(field, !field), Ok(()), "VMWRITE of {field:#x}");
        check_eq!(vmread(field), Ok(!field), "VMREAD of {field:#x}");
    }
    check_eq!(vmclear(nested.region), Ok(()), "VMCLEAR");
}

fn launch_states() {
    let mut nested = Guest::new(nothing);
    let attempt = |code| attempt_with(code, Regs::default());
    check_eq!(attempt(snippet!("vmresume")), Outcome::valid(5), "VMRESUME of a clear VMCS");
    check_eq!(nested.run(), ExitReason::VMCALL, "VMLAUNCH");
    check_eq!(attempt(snippet!("vmlaunch")), Outcome::valid(4), "VMLAUNCH of a launched VMCS");
    nested.call(nothing);
    check_eq!(nested.run(), ExitReason::VMCALL, "VMRESUME after that failure");
    nested.load();
    check_eq!(attempt(snippet!("vmlaunch")), Outcome::valid(4), "VMLAUNCH after VMPTRLD");
    nested.clear();
    check_eq!(attempt(snippet!("vmresume")), Outcome::INVALID, "VMRESUME after VMCLEAR");
    nested.load();
    check_eq!(attempt(snippet!("vmresume")), Outcome::valid(5), "VMRESUME after VMCLEAR and VMPTRLD");
    nested.call(nothing);
    check_eq!(nested.run(), ExitReason::VMCALL, "VMLAUNCH after VMCLEAR");
}

fn entry_failures() {
    let mut nested = Guest::new(nothing);
    let entries: [(&str, Snippet); 2] = [
        ("VMLAUNCH", snippet!("mov ss, eax", "vmlaunch")),
        ("VMRESUME", snippet!("mov ss, eax", "vmresume")),
    ];
    let stack = Regs { rax: 0x10, ..Regs::default() };
    for (index, (name, after_mov_ss)) in entries.into_iter().enumerate() {
        check_eq!(attempt_with(after_mov_ss, stack), Outcome::valid(26), "{name} after MOV SS");
        let primary = nested.read(vmcs::PRIMARY_CONTROLS);
        nested.write(vmcs::PRIMARY_CONTROLS, 0);
        check_eq!(nested.enter(), valid(7), "{name} with primary controls 0");
        // The host's state is looked at only after the controls.
        let host_cr4 = nested.read(vmcs::HOST_CR4);
        nested.write(vmcs::HOST_CR4, 0);
        check_eq!(nested.enter(), valid(7), "{name} with bad controls and host");
        nested.write(vmcs::PRIMARY_CONTROLS, primary);
        check_eq!(nested.enter(), valid(8), "{name} with host CR4 0");
        nested.write(vmcs::HOST_CR4, host_cr4);
        nested.write(vmcs::HOST_TR_SELECTOR, 0);
        check_eq!(nested.enter(), valid(8), "{name} with host TR 0");
        nested.write(vmcs::HOST_TR_SELECTOR, 0x70);
        check_eq!(read_cr4(), host_cr4, "CR4 after failures");
        check_eq!(nested.add_primary(PrimaryControls::HLT_EXITING), true, "HLT exiting");
        check_eq!(nested.run(), ExitReason::VMCALL, "{name} after failures, {index}");
        nested.call(nothing);
    }
}

fn invalidations() {
    let _nested = Guest::new(nothing);
    let ept = Ept::identity();
    check_eq!(invept(1, [ept.pointer(), 0]), Ok(()), "INVEPT of one context");
    check_eq!(invept(2, [0, 0]), Ok(()), "INVEPT of all contexts");
    for kind in [0, 3, 4, 1 << 32 | 1, u64::MAX] {
        check_eq!(invept(kind, [ept.pointer(), 0]), valid(28), "INVEPT of type {kind:#x}");
    }
    for bad in
        [ept.root(), ept.root() | 6, ept.pointer() | 1, ept.pointer() | 1 << 11, ept.pointer() | 1 << 52]
    {
        check_eq!(invept(1, [bad, 0]), valid(28), "INVEPT of EPT pointer {bad:#x}");
    }
    let descriptor = [7, 0x1000];
    for kind in 0..=3 {
        check_eq!(invvpid(kind, descriptor), Ok(()), "INVVPID of type {kind}");
        check_eq!(invvpid(kind, [1 << 16 | 7, 0]), valid(28), "INVVPID of type {kind} with reserved bits");
        let zero = if kind == 2 { Ok(()) } else { valid(28) };
        check_eq!(invvpid(kind, [0, 0x1000]), zero, "INVVPID of type {kind} of VPID 0");
    }
    check_eq!(invvpid(0, [7, 1 << 47]), valid(28), "INVVPID of an address that is not canonical");
    check_eq!(invvpid(1, [7, 1 << 47]), Ok(()), "INVVPID of one context, whose address does not matter");
    for kind in [4, 1 << 32, u64::MAX] {
        check_eq!(invvpid(kind, descriptor), valid(28), "INVVPID of type {kind:#x}");
    }
}

fn with_current_only() {
    let _nested = Guest::new(nothing);
    // Bochs has no answer and dies of it.
    if under_hypervisor() {
        check_eq!(attempt_with(snippet!("vmcall"), Regs::default()), Outcome::valid(1), "VMCALL in VMX root");
    }
    check_eq!(attempt_with(snippet!("vmfunc"), Regs::default()), Outcome::UD, "VMFUNC in VMX root");
}

/// VMXOFF and VMXON: nothing is current any more; the old region and the old VMCS serve again.
fn again() {
    let region = enter_operation();
    check_eq!(vmptrst(), NONE, "VMPTRST after the second VMXON");
    let mut nested = Guest::new(nothing);
    check_eq!(nested.run(), ExitReason::VMCALL, "VMLAUNCH after the second VMXON");
    nested.clear();
    leave_operation();
    check_eq!(low(read(region)), revision(), "the VMXON region's revision");
}

extern "C" fn nothing() {}
