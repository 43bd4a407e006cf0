# What the small guest of KVM runs, copied to its page 1. Every block ends in HLT, which leaves KVM for us.
.section .rodata.kvm_program, "a"
.globl kvm_program, kvm_program_end
.globl kvm_system_call
.globl kvm_real_mode, kvm_cpuid, kvm_out, kvm_rdmsr, kvm_wrmsr, kvm_touch

# R15 measurements go to [R14]; jumps, for Bochs counts at the end of a run of straight code.
.macro measure first, second=nop
2:  jmp 3f
3:  rdtsc
    shl rdx, 32
    or rax, rdx
    mov r13, rax
    mov rax, r8
    mov rcx, r9
    mov rdx, r10
    \first
    \second
    jmp 4f
4:  rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r13
    mov [r14], rax
    add r14, 8
    dec r15
    jnz 2b
    hlt
.endm

kvm_program:
.code16
kvm_real_mode:
    mov ax, 0x5a
    mov dx, 0x10
    out dx, al
    xor eax, eax
    cpuid
    mov [0x3000], ebx
    hlt
.code64
kvm_cpuid:
    measure "cpuid"
kvm_out:
    measure "out dx, al"
kvm_rdmsr:
    measure "rdmsr"
kvm_wrmsr:
    measure "wrmsr"
# Each page that RDI passes is touched for the first time.
kvm_touch:
    measure "add rdi, 4096" "mov byte ptr [rdi], 1"
# A kernel: KVM's userspace carries out what a program asks for.
kvm_system_call:
    out 0x11, al
    .byte 0x48, 0x0f, 0x07 # SYSRET to 64-bit code
kvm_program_end:
.text
