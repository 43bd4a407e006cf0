# From a Multiboot loader's 32-bit protected mode to Rust in 64-bit mode, and back for the launch.
# All addresses are below 2 GiB and equal to physical addresses.

# Multiboot Specification version 0.6.96, "The layout of Multiboot header"; bit 16: address fields valid.
.set MULTIBOOT1_MAGIC, 0x1badb002
.set MULTIBOOT1_FLAGS, 0x00010003
# Multiboot2 Specification version 2.0, "The layout of Multiboot2 header".
.set MULTIBOOT2_MAGIC, 0xe85250d6

.section .multiboot, "a"
.balign 8
multiboot1_header:
    .long MULTIBOOT1_MAGIC
    .long MULTIBOOT1_FLAGS
    .long -(MULTIBOOT1_MAGIC + MULTIBOOT1_FLAGS)
    .long multiboot1_header
    .long __image_start
    .long __load_end
    .long __image_end
    .long bootloader_entry
.balign 8
multiboot2_header:
    .long MULTIBOOT2_MAGIC
    .long 0                             # 32-bit protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(MULTIBOOT2_MAGIC + (multiboot2_header_end - multiboot2_header))
    .short 0, 0                         # end of tags
    .long 8
multiboot2_header_end:

.section .text.entry, "ax"
.code32
.global bootloader_entry
.type bootloader_entry, @function
bootloader_entry:
    mov esi, eax                        # kept until Rust is called: ESI magic, EDI information
    rdtsc
    mov edi, ebx
    mov [bootloader_started], eax
    mov [bootloader_started + 4], edx
    cli
    cld
    mov esp, offset bootloader_stack_top

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29                          # Intel 64
    jnc no_long_mode

    # 4 GiB one to one: PML4, page-directory-pointer table, four page directories of 2 MiB pages.
    mov eax, offset page_tables
    lea ecx, [eax + 0x1003]             # present, writable
    mov [eax], ecx
    xor edx, edx
1:  add ecx, 0x1000
    mov [eax + 0x1000 + edx * 8], ecx
    inc edx
    cmp edx, 4
    jne 1b
    mov ecx, 0x83                       # present, writable, 2 MiB
    xor edx, edx
2:  mov [eax + 0x2000 + edx * 8], ecx
    add ecx, 0x200000
    inc edx
    cmp edx, 4 * 512
    jne 2b

    # SDM, "Initializing IA-32e Mode".
    mov cr3, eax
    mov eax, cr4
    or eax, 1 << 5                      # PAE
    mov cr4, eax
    mov ecx, 0xc0000080                 # IA32_EFER
    rdmsr
    or eax, 1 << 8                      # LME
    wrmsr
    mov eax, cr0
    or eax, 0x80010000                  # PG, WP
    mov cr0, eax
    lgdt [gdt_pointer]
    ljmp 0x08, offset long_mode

no_long_mode:
    # COM1 at 115200 8n1, as nothing was set up yet.
    mov ebx, offset serial_setup
3:  movzx edx, word ptr [ebx]
    test edx, edx
    jz 4f
    mov al, [ebx + 2]
    out dx, al
    add ebx, 3
    jmp 3b
4:  mov esi, offset no_long_mode_text
    mov edi, 0xb8000
5:  lodsb
    test al, al
    jz 8f
    mov ah, 0x07
    mov [edi], ax
    add edi, 2
    mov bl, al
    mov ecx, 0x10000                    # polls; a port that is not there is given up
    mov edx, 0x3fd
6:  in al, dx
    test al, 0x20                       # transmitter holding register empty
    jnz 7f
    dec ecx
    jnz 6b
7:  mov al, bl
    mov edx, 0x3f8
    out dx, al
    jmp 5b
8:  hlt
    jmp 8b
.size bootloader_entry, . - bootloader_entry

.code64
long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax

    # Interrupt gates for the 32 exceptions.
    mov ecx, offset exception_stubs
    mov edx, offset idt
9:  mov eax, ecx
    and eax, 0xffff
    or eax, 0x08 << 16
    mov [rdx], eax
    mov eax, ecx
    and eax, 0xffff0000
    or eax, 0x8e00
    mov [rdx + 4], eax
    add ecx, 16
    add edx, 16
    cmp ecx, offset exception_stubs_end
    jb 9b
    lidt [idt_pointer]

    xor ebp, ebp
    mov eax, esi
    mov esi, edi                        # second argument: information
    mov edi, eax                        # first argument: magic
    mov rdx, [bootloader_started]       # third argument
    call {main}
    ud2

# enter_protected_mode(entry): 32-bit protected mode, flat segments, paging off, interrupts off, EBX = entry.
.global enter_protected_mode
.type enter_protected_mode, @function
enter_protected_mode:
    # Compatibility mode, then paging off, then LME off: any other order faults (SDM, "Switching Out of IA-32e Mode
    # Operation").
    cli
    push 0x18
    push offset compatibility_mode
    retfq
.code32
compatibility_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff                 # PG off
    mov cr0, eax
    mov ecx, 0xc0000080                 # IA32_EFER
    rdmsr
    and eax, ~(1 << 8)                  # LME off
    wrmsr
    mov eax, cr4
    and eax, ~(1 << 5)                  # PAE off
    mov cr4, eax
    mov ebx, edi
    jmp edi
.size enter_protected_mode, . - enter_protected_mode

# Every stub leaves vector and error code on the stack, then the registers that a call may change.
.code64
.balign 16
exception_stubs:
.set vector, 0
.rept 32
.balign 16
.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
.else
    push 0
.endif
    push vector
    jmp exception_common
.set vector, vector + 1
.endr
.balign 16
exception_stubs_end:

exception_common:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    lea rdi, [rsp + 9 * 8]
    cld
    call {exception}
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

.section .rodata.entry, "a"
.balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff            # 0x10: flat data
    .quad 0x00cf9b000000ffff            # 0x18: flat 32-bit code
gdt_pointer:
    .short 4 * 8 - 1
    .quad gdt
idt_pointer:
    .short 32 * 16 - 1
    .quad idt
serial_setup:                           # port, value (16550 data sheet, "Accessible Registers")
    .short 0x3fb
    .byte 0x80
    .short 0x3f8
    .byte 1
    .short 0x3f9
    .byte 0
    .short 0x3fb
    .byte 3
    .short 0x3fa
    .byte 1
    .short 0
no_long_mode_text:
    .ascii "stop: bootloader: no-long-mode: this processor has no 64-bit mode; "
    .asciz "use a 64-bit Intel processor\r\n"

.section .bss.entry, "aw", @nobits
.balign 4096
.global page_tables
page_tables:
    .skip 6 * 4096
idt:
    .skip 32 * 16
bootloader_started:
    .skip 8
.balign 16
    .skip {stack_size}
bootloader_stack_top:
