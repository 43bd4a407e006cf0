# Interrupt and exception entry of 64-bit mode, and the way into and out of a snippet.
.section .text.trap, "ax"
.code64
.globl trap_stubs
.balign 16
trap_stubs:
.set vector, 0
.rept 256
    .balign 16
    # Vectors 8, 10-14, 17 and 21 push an error code themselves.
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    push 0
    .endif
    .if vector < 128
    push vector
    .else
    .byte 0x68
    .long vector
    .endif
    jmp trap_entry
    .set vector, vector + 1
.endr

trap_entry:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call guest_trap
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

# snippet_enter(rdi: frame in trap order, rsi: where to keep RSP, rdx: RSP0 of this CPU's TSS)
.globl snippet_enter
snippet_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    mov [rsi], rsp
    mov [rdx], rsp
    lea rax, [rsp - 512]
    test byte ptr [rdi + 18*8], 3
    jz 1f
    mov rax, [rdi + 20*8]
1:  push [rdi + 21*8]
    push rax
    push [rdi + 19*8]
    push [rdi + 18*8]
    push [rdi + 17*8]
    mov r15, [rdi + 0*8]
    mov r14, [rdi + 1*8]
    mov r13, [rdi + 2*8]
    mov r12, [rdi + 3*8]
    mov r11, [rdi + 4*8]
    mov r10, [rdi + 5*8]
    mov r9, [rdi + 6*8]
    mov r8, [rdi + 7*8]
    mov rsi, [rdi + 9*8]
    mov rbp, [rdi + 10*8]
    mov rbx, [rdi + 11*8]
    mov rdx, [rdi + 12*8]
    mov rcx, [rdi + 13*8]
    mov rax, [rdi + 14*8]
    mov rdi, [rdi + 8*8]
    iretq

# snippet_leave(rdi: kept RSP): returns from that snippet_enter.
.globl snippet_leave
snippet_leave:
    mov rsp, rdi
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
