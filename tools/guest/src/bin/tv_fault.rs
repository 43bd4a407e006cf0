//! Whatever a PAL does wrong ends its call with an error in the caller, and leaves nothing of it.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::read64;
use guest::pal;
use guest::pal::prelude::*;
use trustvisor::call::Failure;

guest!(main);

const INTEGERS: [(ParameterType, u64); 2] = [(ParameterType::Integer, 0); 2];
/// Arguments: 0, and where the PAL's data is.
const DATA_OFFSET: u64 = PAGE;
const PF: u64 = 14;
const GP: u64 = 13;

fn main() {
    // At the entry.
    for (name, code, vector) in privileged().into_iter().chain(vectors()) {
        ends(name, code, vector, None);
    }
    ends("a jump to nowhere", snippet!("mov eax, 0x12345000", "jmp rax"), PF, Some(0x1234_5000));
    ends("a read of nothing", snippet!("mov rax, [rdi + 0x77]"), PF, Some(0x77));
    ends("a return to elsewhere", snippet!("push 8", "ret"), PF, Some(8));
    let entry = Pal::place(Mode::User64, 0, snippet!("ret")).entry();
    ends("a write to its code", snippet!("mov [rsi - 0x1000], rdi"), PF, Some(entry));
    ends(
        "a run into its data",
        snippet!("mov byte ptr [rsi], 0xc3", "jmp rsi"),
        PF,
        Some(entry + DATA_OFFSET),
    );
    ends("a stack that overflows", snippet!("2: push rax", "jmp 2b"), PF, None);
    ends("the kernel's memory", snippet!("mov eax, 0x8000", "mov rax, [rax]"), PF, Some(0x8000));
    inside_a_pal();
    in_32_bits();
}

fn ends(name: &str, code: Snippet, kind: u64, address: Option<u64>) {
    let pal = Pal::place(Mode::User64, 0, code);
    check_eq!(pal.register(&INTEGERS), 0, "{name}: registering");
    let arguments = [0, pal.entry() + DATA_OFFSET, 0, 0, 0, 0, 0, 0, 0, 0];
    match pal.call(arguments) {
        Ok(regs) => {
            check_eq!((regs.eax(), regs.rflags & CF), (Failure::FAULTED.0, CF), "{name}");
            check_eq!(regs.rdx, kind, "{name}: what it was");
            if let Some(address) = address {
                check_eq!(regs.rcx, address, "{name}: where");
            }
            check_eq!(
                [regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10, regs.r11],
                [0; 6],
                "{name}: nothing else"
            );
            check_eq!(
                [regs.rbx, regs.rbp, regs.r12],
                [0x2222_2222, 0x4444_4444, 0x7777],
                "{name}: the caller's"
            );
        }
        Err(fault) => {
            check!(false, "{name}: the guest saw {fault:x?}");
        }
    }
    let dead = pal.call(arguments).map(|regs| (regs.eax(), regs.rflags & CF));
    check_eq!(dead, Ok((Failure::DEAD.0, CF)), "{name}: called again");
    check_eq!(pal.unregister(), 0, "{name}: unregistering");
    let left = (pal.data()..pal.at + 4 * PAGE).step_by(8).filter(|&at| read64(at) != Ok(0)).count();
    check_eq!(left, 0, "{name}: words that are left");
}

fn privileged() -> [(&'static str, Snippet, u64); 12] {
    [
        ("CLI", snippet!("cli"), GP),
        ("HLT", snippet!("hlt"), GP),
        ("IN", snippet!("in al, 0x80"), GP),
        ("OUT to a reset port", snippet!("mov al, 6", "mov edx, 0xcf9", "out dx, al"), GP),
        ("MOV to CR3", snippet!("mov cr3, rax"), GP),
        ("MOV to DR7", snippet!("mov dr7, rax"), GP),
        ("RDMSR", snippet!("mov ecx, 0x10", "rdmsr"), GP),
        ("RDPMC", snippet!("xor ecx, ecx", "rdpmc"), GP),
        ("INT 80h", snippet!("int 0x80"), GP),
        ("a segment register", snippet!("mov eax, 0x3b", "mov ds, eax"), GP),
        ("IRET", snippet!("push 0x3b", "push rsp", "push 2", "push 0x43", "push rax", "iretq"), GP),
        ("SYSENTER", snippet!("sysenter"), GP),
    ]
}

fn vectors() -> [(&'static str, Snippet, u64); 10] {
    [
        ("UD2", snippet!("ud2"), 6),
        ("a division by zero", snippet!("xor ecx, ecx", "div ecx"), 0),
        ("INT3", snippet!("int3"), 3),
        ("INT1", snippet!(".byte 0xf1"), 1),
        ("single-stepping", snippet!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "nop"), 1),
        ("SYSCALL", snippet!("syscall"), 6),
        ("x87", snippet!("fld1"), 7),
        ("SSE", snippet!("pxor xmm0, xmm0"), 6),
        ("XGETBV", snippet!("xor ecx, ecx", "xgetbv"), 6),
        ("FXSAVE", snippet!("fxsave [rsi]"), 7),
    ]
}

/// Hypercalls from inside: every number has an answer.
fn inside_a_pal() {
    let pal = Pal::place(Mode::User64, 0, snippet!("mov eax, edi", "xor ecx, ecx", "vmcall", "ret"));
    check_eq!(pal.register(&INTEGERS), 0, "registering");
    for (number, status) in
        [(1, Status::IN_PAL), (2, Status::IN_PAL), (6, Status::IN_PAL), (99, Status::UNKNOWN_COMMAND)]
    {
        let seen = pal.call([number; 10]).map(|regs| regs.rax);
        check_eq!(seen, Ok(status.0.into()), "hypercall {number} from inside a PAL");
    }
    check_eq!(pal.call([255; 10]).map(|regs| regs.rax), Ok(0), "the test hypercall from inside a PAL");
    for number in 0..32 {
        let is_answered = pal.call([number; 10]).is_ok_and(|regs| regs.rflags & CF == 0);
        check!(is_answered, "hypercall {number} from inside a PAL is answered");
    }
    check_eq!(pal.unregister(), 0, "unregistering");
    for number in (0..32).chain([254, 256, u32::MAX]) {
        let status = pal::hypercall(Mode::User64, number, [u64::MAX; 4]);
        check!(status != 0 && status != u32::MAX, "hypercall {number} from outside: {status}");
    }
}

fn in_32_bits() {
    let mode = Mode::CompatibilityUser32;
    let codes = [
        ("UD2", snippet!(code32: "ud2"), 6),
        ("SYSENTER", snippet!(code32: "sysenter"), GP),
        ("a far jump into 64-bit mode", snippet!(code32: "push 0x43", "push 0", "retf"), GP),
        ("INTO", snippet!(code32: "mov al, 127", "inc al", "into"), 4),
    ];
    for (name, code, vector) in codes {
        let pal = Pal::place(mode, 0, code);
        check_eq!(pal.register(&[]), 0, "{name}: registering");
        let seen = pal.call([0; 10]).map(|regs| (regs.eax(), regs.rdx, regs.rflags & CF));
        check_eq!(seen, Ok((Failure::FAULTED.0, vector, CF)), "32 bits, {name}");
        check_eq!(pal.unregister(), 0, "{name}: unregistering");
    }
}
