//! Instructions, each as a function. One that can fault returns the fault.

#![expect(unsafe_code, reason = "single instructions that only assembly names")]
// UNSAFETY: a test guest promises memory safety to nobody but itself; the rule kept here is that no function
// touches memory that Rust knows of.

use core::arch::asm;

use x86::cpuid::CpuidResult;
use x86::msr::Msr;

use crate::{Fault, Mode, Regs, Snippet, run, snippet};

/// "XMHF", the CPUID leaf by which the hypervisor shows itself, and its answer.
pub const XMHF_LEAF: u32 = 0x4648_4d58;

/// Whether the hypervisor is beneath.
pub fn under_hypervisor() -> bool {
    cpuid(XMHF_LEAF, 0).eax == XMHF_LEAF
}

/// CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    CpuidResult { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
}

/// RDMSR.
///
/// # Errors
///
/// The fault.
pub fn rdmsr(msr: Msr) -> Result<u64, Fault> {
    let mut regs = Regs { rcx: msr.0.into(), ..Regs::default() };
    run(Mode::Kernel64, snippet!("rdmsr"), &mut regs)?;
    Ok(regs.rdx << 32 | regs.rax & 0xffff_ffff)
}

/// WRMSR.
///
/// # Errors
///
/// The fault.
pub fn wrmsr(msr: Msr, value: u64) -> Result<(), Fault> {
    write_edx_eax(snippet!("wrmsr"), msr.0, value)
}

/// RDMSR of a register that exists. Unlike [`rdmsr`] it executes no IRET, which would unblock NMIs.
pub fn rdmsr_existing(msr: Msr) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect on memory.
    unsafe { asm!("rdmsr", in("ecx") msr.0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR that does not fault; executes no IRET either.
pub fn wrmsr_existing(msr: Msr, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: what the register does is the caller's business.
    unsafe { asm!("wrmsr", in("ecx") msr.0, in("eax") low, in("edx") high, options(nostack)) };
}

/// XGETBV.
///
/// # Errors
///
/// The fault.
pub fn xgetbv(index: u32) -> Result<u64, Fault> {
    let mut regs = Regs { rcx: index.into(), ..Regs::default() };
    run(Mode::Kernel64, snippet!("xgetbv"), &mut regs)?;
    Ok(regs.rdx << 32 | regs.rax & 0xffff_ffff)
}

/// XSETBV.
///
/// # Errors
///
/// The fault.
pub fn xsetbv(index: u32, value: u64) -> Result<(), Fault> {
    write_edx_eax(snippet!("xsetbv"), index, value)
}

fn write_edx_eax(code: Snippet, index: u32, value: u64) -> Result<(), Fault> {
    let mut regs = Regs { rcx: index.into(), rax: value & 0xffff_ffff, rdx: value >> 32, ..Regs::default() };
    run(Mode::Kernel64, code, &mut regs)
}

macro_rules! control_registers {
    ($($read:ident $write:ident $name:literal;)*) => {$(
        #[doc = concat!("Reads ", $name, ".")]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading a control register changes nothing.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }

        #[doc = concat!("Writes ", $name, ".\n\n# Errors\n\nThe fault.")]
        pub fn $write(value: u64) -> Result<(), Fault> {
            let mut regs = Regs { rax: value, ..Regs::default() };
            run(Mode::Kernel64, snippet!(concat!("mov ", $name, ", rax")), &mut regs)
        }
    )*};
}

control_registers! {
    read_cr0 write_cr0 "cr0";
    read_cr2 write_cr2 "cr2";
    read_cr3 write_cr3 "cr3";
    read_cr4 write_cr4 "cr4";
    read_cr8 write_cr8 "cr8";
    read_dr0 write_dr0 "dr0";
    read_dr1 write_dr1 "dr1";
    read_dr2 write_dr2 "dr2";
    read_dr3 write_dr3 "dr3";
    read_dr6 write_dr6 "dr6";
    read_dr7 write_dr7 "dr7";
}

/// MOV to CR3. Unlike [`write_cr3`] it executes no snippet, so handlers of interrupts may use it.
pub fn load_cr3(value: u64) {
    // SAFETY: the tables map what this program uses, as the caller promises.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack)) };
}

macro_rules! ports {
    ($($input:ident $output:ident $width:ident $register:tt;)*) => {$(
        /// IN.
        pub fn $input(port: u16) -> $width {
            let value;
            // SAFETY: no device of the test machines writes memory when its port is read.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        /// OUT.
        pub fn $output(port: u16, value: $width) {
            // SAFETY: what a device does with the value is the caller's business.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    )*};
}

ports! {
    in8 out8 u8 "al";
    in16 out16 u16 "ax";
    in32 out32 u32 "eax";
}

/// RDTSC, in order with what is around it.
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// IRET to the next instruction, which unblocks NMIs.
pub fn iret() {
    // SAFETY: what is popped is what was pushed, and the red zone is not used.
    unsafe {
        asm!(
            "mov {old}, rsp",
            "mov {segment:e}, ss",
            "push {segment}",
            "push {old}",
            "pushfq",
            "mov {segment:e}, cs",
            "push {segment}",
            "lea {old}, [rip + 2f]",
            "push {old}",
            "iretq",
            "2:",
            old = out(reg) _,
            segment = out(reg) _,
        );
    }
}

/// VMCALL, which leaves a guest of this guest for it.
pub fn vmcall() {
    // SAFETY: the hypervisor, which is this program too, changes nothing.
    unsafe { asm!("vmcall", options(nostack)) };
}

/// PAUSE.
pub fn pause() {
    core::hint::spin_loop();
}

/// STI, then HLT: sleeps until an interrupt.
pub fn sleep() {
    // SAFETY: handlers restore what they use.
    unsafe { asm!("sti", "hlt", "cli", options(nomem, nostack)) };
}

/// CLI, then HLT: sleeps until an NMI.
pub fn sleep_deeply() {
    // SAFETY: as above; interrupts were off.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
}

/// Stops for ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: nothing follows.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Spins for `ticks` of the time-stamp counter.
pub fn wait(ticks: u64) {
    let start = rdtsc();
    while rdtsc().wrapping_sub(start) < ticks {
        pause();
    }
}

/// Waits until `condition` holds; `false` after `ticks`.
pub fn wait_until(ticks: u64, condition: impl Fn() -> bool) -> bool {
    let start = rdtsc();
    while !condition() {
        if rdtsc().wrapping_sub(start) > ticks {
            return false;
        }
        pause();
    }
    true
}
