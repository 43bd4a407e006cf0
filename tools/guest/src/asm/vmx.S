# The way into a guest of this guest and back (SDM, "VM Entries"; "VM Exits").

.section .text.vmx, "ax"
.code64

# vmx_enter(rdi: general registers, rsi: 0 for VMLAUNCH, else VMRESUME) -> rax: 0 after an exit, bit 0 carry,
# bit 1 zero flag of an instruction that failed.
.globl vmx_enter, vmx_exit
vmx_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    mov rax, 0x6c14                     # host RSP
    vmwrite rax, rsp
    mov rax, cr2
    cmp rax, [rdi + 15*8]
    je 1f
    mov rax, [rdi + 15*8]
    mov cr2, rax
1:  test rsi, rsi
    mov rax, [rdi + 0*8]
    mov rcx, [rdi + 1*8]
    mov rdx, [rdi + 2*8]
    mov rbx, [rdi + 3*8]
    mov rbp, [rdi + 4*8]
    mov rsi, [rdi + 5*8]
    mov r8, [rdi + 7*8]
    mov r9, [rdi + 8*8]
    mov r10, [rdi + 9*8]
    mov r11, [rdi + 10*8]
    mov r12, [rdi + 11*8]
    mov r13, [rdi + 12*8]
    mov r14, [rdi + 13*8]
    mov r15, [rdi + 14*8]
    mov rdi, [rdi + 6*8]
    jnz 2f
    vmlaunch
    jmp 3f
2:  vmresume
3:  setc al
    setz cl
    movzx eax, al
    movzx ecx, cl
    lea eax, [eax + 2*ecx]
    pop rdi
    jmp 4f

vmx_exit:
    xchg rdi, [rsp]
    mov [rdi + 0*8], rax
    mov [rdi + 1*8], rcx
    mov [rdi + 2*8], rdx
    mov [rdi + 3*8], rbx
    mov [rdi + 4*8], rbp
    mov [rdi + 5*8], rsi
    mov [rdi + 7*8], r8
    mov [rdi + 8*8], r9
    mov [rdi + 9*8], r10
    mov [rdi + 10*8], r11
    mov [rdi + 11*8], r12
    mov [rdi + 12*8], r13
    mov [rdi + 13*8], r14
    mov [rdi + 14*8], r15
    mov rax, cr2
    mov [rdi + 15*8], rax
    pop rax
    mov [rdi + 6*8], rax
    xor eax, eax
4:  pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# Where a guest's function returns to.
.globl vmx_guest_end
vmx_guest_end:
    vmcall
    jmp vmx_guest_end
