//! Ticks of instructions that may leave the guest, and of those that must not.
//! model: corei7_skylake_x
//! cmdline: log=warn
#![no_std]
#![no_main]

use guest::bench::bench;
use guest::cpu::{rdmsr, read_cr0, read_cr3, read_cr4, under_hypervisor};
use guest::trap::{reset_gate, set_gate};
use guest::{Mode, Regs, check, guest, measured, snippet};
use x86::msr::Msr;

guest!(main);

const KERNEL: Mode = Mode::Kernel64;

fn main() {
    let none = Regs::default();
    let nothing = bench("nothing", KERNEL, measured!(), none).minimum;
    let cpuid = bench("cpuid", KERNEL, measured!("cpuid"), none).minimum;
    bench("cpuid_ring3", Mode::User64, measured!("cpuid"), none);
    with_handlers();
    bench("invd", KERNEL, measured!("wbinvd", "invd"), none);
    let leaves_no_guest = ordinary();
    // Whatever an exit costs, an instruction that makes none costs far less.
    let exit = cpuid - nothing;
    for (name, ticks) in leaves_no_guest {
        let own = ticks - nothing.min(ticks);
        check!(!under_hypervisor() || own < exit / 2, "{name} takes {own} ticks, an exit {exit}");
    }
}

/// Instructions that raise an exception, which the shortest handler passes over.
fn with_handlers() {
    let inputs = Regs { r9: 0x1234, ..Regs::default() };
    set_gate(13, snippet!("add qword ptr [rsp + 8], 2", "add rsp, 8", "iretq"));
    bench("rdmsr_unknown", KERNEL, measured!("rdmsr"), inputs);
    // No bitmap holds this one, so that its access always leaves.
    let outside = Regs { r9: 0x4000_0000, ..Regs::default() };
    bench("rdmsr_outside", KERNEL, measured!("rdmsr"), outside);
    bench("wrmsr_unknown", KERNEL, measured!("wrmsr"), inputs);
    reset_gate(13);
    set_gate(6, snippet!("add qword ptr [rsp], 3", "iretq"));
    bench("vmcall", KERNEL, measured!("vmcall"), Regs::default());
    bench("vmcall_ring3", Mode::User64, measured!("vmcall"), Regs::default());
    reset_gate(6);
    set_gate(6, snippet!("add qword ptr [rsp], 2", "iretq"));
    bench("ud2", KERNEL, measured!("ud2"), Regs::default());
    reset_gate(6);
}

/// Instructions for which an ordinary guest never leaves.
fn ordinary() -> [(&'static str, u64); 20] {
    let apic = 0xfee0_0000;
    let msr = |number: u32| {
        let value = rdmsr(Msr(number)).unwrap_or(0);
        Regs { r9: number.into(), r8: value & 0xffff_ffff, r10: value >> 32, ..Regs::default() }
    };
    let value = |r8: u64| Regs { r8, ..Regs::default() };
    let at = |rdi: u64| Regs { rdi, r8: 0, ..Regs::default() };
    let port = |r10: u64| Regs { r10, ..Regs::default() };
    [
        ("rdmsr_apic_base", measured!("rdmsr"), msr(0x1b)),
        ("rdmsr_efer", measured!("rdmsr"), msr(0xc000_0080)),
        ("wrmsr_efer", measured!("wrmsr"), msr(0xc000_0080)),
        ("rdmsr_pat", measured!("rdmsr"), msr(0x277)),
        ("wrmsr_pat", measured!("wrmsr"), msr(0x277)),
        ("wrmsr_kernel_gs_base", measured!("wrmsr"), msr(0xc000_0102)),
        ("wrmsr_sysenter_eip", measured!("wrmsr"), msr(0x176)),
        ("mov_from_cr0", measured!("mov rax, cr0"), value(0)),
        ("mov_to_cr0_ts", measured!("or rax, 8", "mov cr0, rax", "clts"), value(read_cr0())),
        ("mov_to_cr3", measured!("mov cr3, rax"), value(read_cr3())),
        ("mov_to_cr4_pge", measured!("xor rax, 0x80", "mov cr4, rax"), value(read_cr4())),
        ("mov_to_cr8", measured!("mov cr8, rax"), value(0)),
        ("in_80", measured!("in al, dx"), port(0x80)),
        ("out_80", measured!("out dx, al"), port(0x80)),
        ("in_uart", measured!("in al, dx"), port(0x3fd)),
        ("lapic_read", measured!("mov eax, [rdi]"), at(apic + 0x30)),
        ("lapic_eoi", measured!("mov [rdi], eax"), at(apic + 0xb0)),
        ("wbinvd", measured!("wbinvd"), value(0)),
        ("rdtscp", measured!("rdtscp"), value(0)),
        ("mov_to_dr0", measured!("mov dr0, rax"), value(0)),
    ]
    .map(|(name, code, inputs)| (name, bench(name, KERNEL, code, inputs).minimum))
}
