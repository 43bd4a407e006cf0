# The measured entry: 32-bit protected mode, flat segments, paging off, interrupts off, EBX = physical
# address of secure_loader_entry (Intel TXT MLE Developer's Guide, "MLE Launch"). Nothing else is believed.
# Labels are used by their distance from the image's first byte, so the code runs at any physical address.

.section .loader_header, "awx"
.balign 16
secure_loader_image:                    # platform::handoff::LoaderHeader; size and digest are packed in later
    .quad {magic}
    .long secure_loader_entry - secure_loader_image
    .long 0
    .quad 0
    .skip 32

# The same section, so that the assembler knows every distance.
.balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 8: 64-bit code
    .quad 0x00cf93000000ffff            # 16: flat data
.set gdt_offset, gdt - secure_loader_image

.code32
.global secure_loader_entry
.type secure_loader_entry, @function
secure_loader_entry:
.set image_from_entry, secure_loader_image - secure_loader_entry
    cli
    cld
    lea ebp, [ebx + image_from_entry]     # EBP = base of the region

    # Flat segments of our own; the GDTR image is built on the stack page by absolute addressing.
    lea esp, [ebp + {stack_top}]
    lea eax, [ebp + gdt_offset]
    mov word ptr [esp - 8], {gdt_limit}
    mov dword ptr [esp - 6], eax
    lgdt [esp - 8]
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax

    # Five page tables, cleared: +0 PML4, +0x1000/+0x2000 identity, +0x3000/+0x4000 linear map.
    lea edi, [ebp + {boot_tables}]
    mov esi, edi
    mov ecx, 5 * 1024
    rep stosd

    lea eax, [esi + 0x1000 + 3]         # present, writable
    mov [esi], eax
    lea eax, [esi + 0x3000 + 3]
    mov [esi + 511 * 8], eax

    mov ecx, ebp                        # identity: the 2 MiB that this code is in
    shr ecx, 30
    lea eax, [esi + 0x2000 + 3]
    mov [esi + 0x1000 + ecx * 8], eax
    mov ecx, ebp
    shr ecx, 21
    and ecx, 511
    lea eax, [ebp + 0x83]               # present, writable, 2 MiB
    mov [esi + 0x2000 + ecx * 8], eax

    lea edx, [esi + 0x4000 + 3]         # linear: the whole region
    mov [esi + 0x3000 + 510 * 8], edx
    mov ecx, [ebp + {handoff_region_length}]    # not checked yet, hence the bounds
    shr ecx, 21
    jnz 1f
    mov ecx, 1
1:  cmp ecx, {region_entries_limit}
    jbe 2f
    mov ecx, {region_entries_limit}
2:  mov [esi + 0x4000 + ecx * 8 - 8], eax
    # From the last entry down: entry i maps base + i * 2 MiB.
    lea edx, [ecx - 1]
    shl edx, 21
    add [esi + 0x4000 + ecx * 8 - 8], edx
    dec ecx
    jnz 2b
    mov dword ptr [esi + 0x4000 + {low_memory_entry} * 8], 0x83

    # 64-bit mode (SDM, "Initializing IA-32e Mode"); of CR4 only SMXE and MCE survive.
    mov eax, cr4
    and eax, 0x4040
    or eax, 0x20                        # PAE
    mov cr4, eax
    mov cr3, esi
    mov ecx, 0xc0000080                 # IA32_EFER
    rdmsr
    or eax, 0x100                       # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3                 # CD, NW, TS, EM off
    or eax, 0x80010020                  # PG, WP, NE on
    mov cr0, eax

    lea eax, [ebp + long_mode_offset]
    push 8
    push eax
    retf

.code64
long_mode:
.set long_mode_offset, long_mode - secure_loader_image
    mov edi, ebp                        # first argument: physical base of the region
    movabs rax, offset high_half
    jmp rax
high_half:
    movabs rax, offset gdt              # the GDT where the runtime can still reach it
    sub rsp, 16
    mov word ptr [rsp], {gdt_limit}
    mov qword ptr [rsp + 2], rax
    lgdt [rsp]
    movabs rsp, {stack_top_virtual}
    xor ebp, ebp
    call {main}
    ud2
.size secure_loader_entry, . - secure_loader_entry

# Every stub leaves vector and error code on the stack, as the processor does for some.
.balign 16
.global secure_loader_exception_stubs
secure_loader_exception_stubs:
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
exception_common:
    mov rdi, rsp
    and rsp, -16
    cld
    call {exception}
    ud2
