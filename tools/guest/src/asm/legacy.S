# Leaves long mode, runs a snippet in a 32-bit, 16-bit, virtual-8086 or real mode, and comes back when it
# faults or executes INT 80h. Only the bootstrap processor does this.

.section .legacy, "ax"
.code64
# legacy_enter(edi: 0 same privilege, 1 ring 3, 2 virtual-8086, 3 real mode)
.globl legacy_enter
legacy_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    cli
    mov [legacy_rsp], rsp
    mov ebx, edi
    mov rax, cr0
    mov [legacy_cr0], eax
    mov rax, cr4
    mov [legacy_cr4], eax
    push 0x18
    push offset legacy_protected
    .byte 0x48, 0xcb                    # far return, 64-bit operands
.code32
legacy_protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, offset legacy_stack_end
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    mov eax, cr4
    and eax, 0xffffffdf
    mov cr4, eax
    lidt [legacy_idt_pointer]
    and byte ptr [gdt + 0x48 + 5], 0xfd
    mov ax, 0x48
    ltr ax
    mov eax, [legacy_in_cr3]
    test eax, eax
    jz 4f
    mov cr3, eax
    mov eax, cr4
    or eax, [legacy_in_cr4]
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
4:  mov dx, [legacy_in_ds]
    cmp ebx, 3
    je legacy_to_real
    cmp ebx, 1
    jb 2f
    je 1f
    push 0                              # GS, FS, DS, ES, SS of virtual-8086 mode
    push 0
    push 0
    push 0
    push 0
    push [legacy_in_esp]
    jmp 3f
1:  push 0x3b
    push [legacy_in_esp]
    jmp 3f
2:  mov ss, dx
3:  push [legacy_in_eflags]
    push [legacy_in_cs]
    push [legacy_in_eip]
    mov edi, [legacy_in + 0]
    mov esi, [legacy_in + 4]
    mov ebp, [legacy_in + 8]
    mov ebx, [legacy_in + 16]
    mov ecx, [legacy_in + 24]
    mov eax, [legacy_in + 28]
    mov ds, dx
    mov es, dx
    mov edx, cs:[legacy_in + 20]
    iretd

# Vectors 0-31, then 80h.
.balign 16
.globl legacy_stubs
legacy_stubs:
.set vector, 0
.rept 33
    .balign 16
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    push 0
    .endif
    .if vector < 32
    push vector
    .else
    .byte 0x68
    .long 0x80
    .endif
    jmp legacy_trap
    .set vector, vector + 1
.endr

legacy_trap:
    pushad
    cld
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esi, esp
    mov edi, offset legacy_out
    mov ecx, 19                         # registers, vector, error code and the longest frame
    rep movsd
legacy_return:
    mov eax, cr0
    mov [legacy_out_cr + 0], eax
    and eax, 0x7fffffff
    mov ebx, cr2
    mov [legacy_out_cr + 4], ebx
    mov ebx, cr3
    mov [legacy_out_cr + 8], ebx
    mov ebx, cr4
    mov [legacy_out_cr + 12], ebx
    mov cr0, eax
    mov eax, [legacy_cr4]
    mov cr4, eax
    mov ebx, offset legacy_back
    jmp enter_long_mode
.code64
legacy_back:
    mov eax, [legacy_cr0]
    mov cr0, rax
    lidt [idt_pointer]
    and byte ptr [gdt + 0x70 + 5], 0xfd
    mov ax, 0x70
    ltr ax
    mov rsp, [legacy_rsp]
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.code32
legacy_to_real:
    .byte 0xea
    .long 1f
    .word 0x20
.code16
1:  mov ax, 0x28
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .word 2f, 0
2:  xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, offset legacy_stack_end
    lidt [real_idt_pointer]
    call real_exchange_vectors
    push word ptr [legacy_in_eflags]
    push ax
    push word ptr [legacy_in_eip]
    mov edi, [legacy_in + 0]
    mov esi, [legacy_in + 4]
    mov ebp, [legacy_in + 8]
    mov ebx, [legacy_in + 16]
    mov edx, [legacy_in + 20]
    mov ecx, [legacy_in + 24]
    mov eax, [legacy_in + 28]
    iret

# Exchanges the listed vectors of the interrupt vector table with ours; the second call puts them back.
real_exchange_vectors:
    mov si, offset real_vectors
1:  mov bx, [si]
    cmp bx, 0xffff
    je 2f
    mov eax, [si + 2]
    xchg eax, [bx]
    mov [si + 2], eax
    add si, 6
    jmp 1b
2:  xor ax, ax
    ret

.macro real_stub number
real_stub_\number:
    .byte 0x68
    .word \number
    jmp real_trap
.endm
real_stub 0
real_stub 1
real_stub 3
real_stub 4
real_stub 6
real_stub 7
real_stub 12
real_stub 13
real_stub 128
real_trap:
    pushad
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    movzx ebp, sp
    mov si, bp
    mov di, offset legacy_out
    mov cx, 16
1:  mov ax, ss:[si]
    stosw
    add si, 2
    loop 1b
    movzx eax, word ptr ss:[bp + 32]    # vector
    stosd
    xor eax, eax                        # no error code in real mode
    stosd
    movzx eax, word ptr ss:[bp + 34]
    stosd
    movzx eax, word ptr ss:[bp + 36]
    stosd
    movzx eax, word ptr ss:[bp + 38]
    stosd
    lea eax, [ebp + 40]
    stosd
    mov ax, ss
    movzx eax, ax
    stosd
    call real_exchange_vectors
    cli
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0xea
    .word 2f, 0x18
.code32
2:  mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, offset legacy_stack_end
    jmp legacy_return

.section .lowdata, "aw"
.balign 4
.globl legacy_in, legacy_in_eflags, legacy_out, legacy_out_cr
.globl legacy_tss, legacy_idt, legacy_user_stack_end, legacy_stack_end
legacy_in: .fill 8, 4, 0                # EDI ESI EBP ESP EBX EDX ECX EAX
legacy_in_eflags: .long 0
legacy_in_cs: .long 0
legacy_in_eip: .long 0
legacy_in_esp: .long 0
legacy_in_ds: .long 0
legacy_in_cr3: .long 0                  # 0 without paging
legacy_in_cr4: .long 0                  # bits to set for it
legacy_out: .fill 19, 4, 0              # as legacy_in; vector, error, EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
legacy_out_cr: .fill 4, 4, 0            # CR0 CR2 CR3 CR4
legacy_rsp: .quad 0
legacy_cr0: .long 0
legacy_cr4: .long 0
.macro real_vector number
    .word \number * 4
    .word real_stub_\number, 0
.endm
real_vectors:
    real_vector 0
    real_vector 1
    real_vector 3
    real_vector 4
    real_vector 6
    real_vector 7
    real_vector 12
    real_vector 13
    real_vector 128
    .word 0xffff
.balign 4
    .word 0
real_idt_pointer:
    .word 0x3ff
    .long 0
    .word 0
legacy_idt_pointer:
    .word 0x81 * 8 - 1
    .long legacy_idt
.balign 8
legacy_tss: .fill 26, 4, 0
legacy_idt: .fill 0x81, 8, 0
.balign 16
    .fill 1024, 1, 0
legacy_user_stack_end:
    .fill 4096, 1, 0
legacy_stack_end:
    .fill 16, 4, 0                      # read, never written, when a short frame is copied out
